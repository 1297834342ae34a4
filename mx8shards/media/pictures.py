"""How does a column of pictures become crops? The stage that decodes, in a loader's threads."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, SettingError, without_traceback
from mx8shards.format.columns import MAX_BYTES
from mx8shards.format.picture_files import MOST_DECODED_BYTES
from mx8shards.format.randomness import uniforms
from mx8shards.kernels import boxes, pictures, turbo
from mx8shards.kernels.colour import value_table
from mx8shards.kernels.reach import populate
from mx8shards.kernels.records import FAULT, MAPPED, OK, READ, READ_FAILED, REFUSED
from mx8shards.kernels.yuv420 import is_yuv420
from mx8shards.media import decoding, yuv420
from mx8shards.media.specs import CenterCrop, Decode, Picture, RandomResizedCrop
from mx8shards.media.turned_jpegs import decode_turned, orientation_of
from mx8shards.media.turning import UPRIGHT, turned_size
from mx8shards.stages import RAGGED, Output, Stage, Use, Work

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

ENCODINGS = ("bytes", "jpeg", "png")

_FIRST_BYTES = 2 << 20  # of a thread's scratch, which grows as pictures ask for it
_RETURNED_BYTES = 1 << 20  # smaller pictures leave little behind, and the call takes longer than they
_MOST_BYTES = 64 << 20  # of a thread's; larger pictures take turns


def stage_of(crops: Mapping[str, Picture], use: Use) -> Stage:
    """The stage that makes these crops."""
    if RAGGED in map(_output, crops.values()):
        return WholePictures(crops, use)
    exact = any(crop.exact for crop in crops.values())
    return (Pictures if exact or turbo.library is None else PartialPictures)(crops, use)


class Pictures(Stage):
    """Crops of one column's pictures.

    With libturbojpeg, JPEGs are decoded by a kernel, and Python sees only what that cannot do. Each thread has scratch
    of its own; pictures that need more take turns with the largest there may be.
    """

    def __init__(self, crops: Mapping[str, Picture], use: Use) -> None:
        if use.encoding not in ENCODINGS:
            raise SettingError(
                subject="decode",
                place=f"column {use.column!r}",
                expected=f"an encoding of whole picture files: {', '.join(ENCODINGS)}",
                found=repr(use.encoding),
            )
        decoding.import_libraries()
        self.columns = (use.column,)
        self.outputs = {name: _output(crop) for name, crop in crops.items()}
        self._crops = crops
        self._use = use
        self.draws = any(isinstance(crop, RandomResizedCrop) or crop.flip for crop in crops.values())
        self._exact = any(crop.exact for crop in crops.values())
        self._upright = any(crop.upright for crop in crops.values())
        self._turbo = turbo.library is not None
        ways = "planes and regions" if turbo.HAS_REGIONS else "planes"
        self.path = "exact" if self._exact else ways if self._turbo else "rgb"
        self._table = np.array([_record(crop) for crop in crops.values()], boxes.CROP)
        self._values = np.array([_values(crop) for crop in crops.values()])
        self._own_bytes = min(_MOST_BYTES, use.scratch_bytes // 2 // use.threads)
        large = _Large(min(MOST_DECODED_BYTES, use.scratch_bytes // 2))
        self._large = use.shared.setdefault("large pictures", large)
        self.scratch_bytes = self._own_bytes * use.threads + self._large.most_bytes

    def scratch(self) -> Scratch:
        """Memory that grows."""
        return Scratch(len(self._crops), min(_FIRST_BYTES, self._own_bytes))

    def begin(self, work: Work) -> None:
        """Draw the numbers of all crops, unless that is done, and note where each goes."""
        targets = np.zeros(len(self._crops), pictures.TARGET)
        for k, (name, crop) in enumerate(self._crops.items()):
            place = work.place(name)
            bank = work.whole.ctypes.data
            offsets = 0 if place.offsets is None else bank + place.offsets
            targets[k] = bank + place.values, offsets, np.dtype(crop.dtype).itemsize, crop.layout == "HWC"
        payloads, draws = work.notes.get(self) or (self._payloads(work).copy(), self._drawn(work))
        work.notes[self] = payloads, draws, targets

    def _payloads(self, work: Work) -> Array:
        """The spans of this column."""
        spans: Array = work.spans[:, self._use.number]
        return spans

    def _drawn(self, work: Work) -> Array:
        """The numbers of all crops: those of a row depend on its sample alone."""
        draws = np.zeros((len(work.rows), len(self._crops), boxes.DRAWS))
        for k, (name, crop) in enumerate(self._crops.items()):
            if isinstance(crop, RandomResizedCrop) or crop.flip:
                purpose = f"crop:{name}" if crop.seed is None else f"crops:{crop.seed}"
                ids = work.rows["sample_id"]
                draws[:, k] = uniforms(self._use.seed, work.epoch, ids, purpose, boxes.DRAWS)
        return draws

    def fill(self, work: Work, start: int, stop: int, scratch: Scratch) -> None:
        """Decode and crop the pictures of rows from start to before stop."""
        while start < stop:
            if self._turbo:
                start = self._by_kernel(work, start, stop, scratch, scratch.memory)
            if start < stop:
                self._by_hand(work, start, scratch)
                start += 1

    def _by_kernel(self, work: Work, start: int, stop: int, scratch: Scratch, memory: Bytes) -> int:
        """As many rows as it can make anything of; where it stopped."""
        payloads, draws, targets = work.notes[self]
        return int(
            pictures.fill_rows(
                work.shards,
                work.rows,
                payloads,
                self._payloads(work),
                self._table,
                draws,
                self._exact,
                turbo.HAS_REGIONS,
                self._values,
                targets,
                scratch.desk,
                scratch.found,
                memory,
                start,
                stop,
            )
        )

    def _by_hand(self, work: Work, i: int, scratch: Scratch) -> None:
        """One row: with more memory, or by a library that Python calls. Its status says what came of it."""
        if work.rows["status"][i] != OK:
            return
        while self._turbo and scratch.desk[0]["status"] == pictures.NO_ROOM:
            if self._with_room(int(scratch.desk[0]["bytes"]), work, i, scratch):
                return
        with ExitStack() as turn:  # until nothing is held any more of what the turn is for, errors included
            work.rows["status"][i] = self._outside(work, i, scratch, turn)

    def _outside(self, work: Work, i: int, scratch: Scratch, turn: ExitStack) -> int:
        """One row, from a copy of its payload, and the status that this gives it."""
        span = work.notes[self][0][i]
        try:
            self._take(int(span["size"]), scratch, turn)  # threads that wait for their turn hold no payload
            payload = self._payload(work, i, span)
            if is_yuv420(np.frombuffer(payload, np.uint8)):
                return self._of_planes(payload, work, i, scratch, turn)
            self._by_library(payload, work, i, scratch, turn)
        except DecodeError:
            return REFUSED
        except OSError:
            return READ_FAILED
        return OK

    def _payload(self, work: Work, i: int, span: Any) -> bytes:
        """A row's payload, copied. DecodeError for one that is too long, OSError for one that cannot be read."""
        row, begin, size = work.rows[i], int(span["begin"]), int(span["size"])
        if size > self._large.most_bytes:
            raise DecodeError(expected=f"at most {self._large.most_bytes} bytes", found=f"{size}")
        if row["way"] == READ:
            payload = os.pread(int(row["file"]), size, begin)
            if len(payload) < size:
                raise OSError("the file is shorter than it was")
            return payload
        address = int(work.shards[row["shard"]]["base"]) + begin
        if row["way"] == FAULT and size and not populate(address, size):
            raise OSError("the pages cannot be had")
        return ctypes.string_at(address, size)

    def _with_room(self, size_bytes: int, work: Work, i: int, scratch: Scratch) -> bool:
        """One row by the kernel, with so much scratch; False if it stops again, for more or for another reason."""
        if size_bytes <= self._own_bytes:
            scratch.memory = decoding.room(0)
            scratch.memory = decoding.room(min(2 * size_bytes, self._own_bytes))
            return self._by_kernel(work, i, i + 1, scratch, scratch.memory) > i
        if size_bytes <= self._large.most_bytes:
            with self._large.lock:
                return self._by_kernel(work, i, i + 1, scratch, self._large.memory(size_bytes)) > i
        work.rows["status"][i] = REFUSED
        return True

    def _by_library(self, payload: bytes, work: Work, i: int, scratch: Scratch, turn: ExitStack) -> None:
        """One row by simplejpeg, if the kernel could have decoded it, else by Pillow."""
        _, draws, targets = work.notes[self]
        cut, found = scratch.desk[0]["cut"], scratch.found

        def prepare(height: int, width: int, size_bytes: int) -> None:
            """Before that many pixels are made, in so many bytes."""
            if not pictures.fits(self._table, found, targets, i):
                raise DecodeError("a picture of another size than there is room for")
            more = len(payload) + int(pictures.crop_bytes(found, cut))
            decoding.check_fits(width, height, size_bytes + more, self._large.most_bytes)
            self._take(size_bytes + more, scratch, turn, kept_bytes)

        def place(width: int, height: int, size_bytes: int) -> None:
            pictures.place_whole(width, height, self._table, draws[i], found, cut)
            prepare(height, width, size_bytes)

        head = scratch.desk[0]["head"]
        orientation = orientation_of(payload, head) if self._upright else UPRIGHT
        jpeg, kept_bytes = self._jpeg(payload, draws[i], scratch, turn) if orientation == UPRIGHT else (None, 0)
        if orientation != UPRIGHT:
            size = turned_size(head["width"], head["height"], orientation)
            pictures.place_whole(*size, self._table, draws[i], found, cut)
            pixels = decode_turned(payload, head, orientation, found, self._exact, cut, prepare)
        elif jpeg is None:
            decoding.check_rare(payload, self._large.most_bytes)
            pixels = decoding.decode(payload, place, upright=self._upright)
        else:
            height, width = (-(-int(cut[side]) // int(cut["scale"])) for side in ("height", "width"))
            prepare(height, width, 3 * height * width + len(jpeg) + int(pictures.coefficient_bytes(head)))
            pixels = decoding.decode_jpeg(jpeg, height, width)
            if pixels.shape != (height, width, 3):
                raise DecodeError("a JPEG of another size than its head says")
        memory = decoding.room(int(pictures.crop_bytes(found, cut)))
        pictures.crop_rgb(pixels, cut, found, self._values, targets, i, memory)

    def _jpeg(self, payload: bytes, draws: Array, scratch: Scratch, turn: ExitStack) -> tuple[Bytes | None, int]:
        """The JPEG that has to be decoded, of some tiles or the payload itself; None if that is no JPEG.

        Also how much of this thread's scratch it keeps in use.
        """
        desk, memory, kept_bytes = scratch.desk[0], scratch.memory, len(scratch.memory)
        arguments = np.frombuffer(payload, np.uint8), self._table, draws, self._exact, desk, scratch.found
        size = pictures.cut_out(*arguments, memory)
        if size == -pictures.NO_ROOM:
            memory, kept_bytes = decoding.room(0), 0
            self._take(int(desk["bytes"]) + len(payload), scratch, turn)
            memory = decoding.room(int(desk["bytes"]))
            size = pictures.cut_out(*arguments, memory)
        if size == -pictures.OTHER:
            return None, 0
        if size < 0:
            raise DecodeError("a JPEG in CMYK or of too many scans, or one whose tile index does not match its data")
        return (memory[:size], kept_bytes) if size else (arguments[0], 0)

    def _of_planes(self, payload: bytes, work: Work, i: int, scratch: Scratch, turn: ExitStack) -> int:
        """One row by the kernel, which needs no library for it; the status that this gives it."""
        _, draws, targets = work.notes[self]
        desk, data = scratch.desk[0], np.frombuffer(payload, np.uint8)
        arguments = data, self._table, draws[i], self._values, targets, desk, scratch.found, i
        status = pictures.crop_yuv420(*arguments, scratch.memory)
        if status == pictures.NO_ROOM:
            self._take(int(desk["bytes"]) + len(payload), scratch, turn)
            status = pictures.crop_yuv420(*arguments, decoding.room(int(desk["bytes"])))
        return int(status)

    def _take(self, size_bytes: int, scratch: Scratch, turn: ExitStack, kept_bytes: int = 0) -> None:
        """Before so many bytes are taken: out of this thread's own memory, or else of that for one large picture.

        For that, threads take turns. Of the thread's own memory, `kept_bytes` of scratch stay in use.
        """
        if size_bytes > self._large.most_bytes:
            raise DecodeError("a picture that takes more memory than there is")
        if size_bytes + kept_bytes > self._own_bytes:
            turn.enter_context(self._large.alone(size_bytes))
        elif size_bytes + len(scratch.memory) > self._own_bytes:
            scratch.memory = decoding.room(0)

    def why(self, size_bytes: int, read: Callable[[], bytes]) -> Exception | None:
        """What is wrong with a picture: first of all what the strictest decoder says of it.

        It is read and decoded in the memory for one large picture, so one thread at a time does this.
        """
        if size_bytes > self._large.most_bytes:
            return DecodeError(expected=f"at most {self._large.most_bytes} bytes", found=f"{size_bytes}")
        with self._large.alone(size_bytes):
            return self._refusal(read())

    def _refusal(self, picture: bytes) -> Exception | None:
        most_bytes = self._large.most_bytes
        try:
            if is_yuv420(np.frombuffer(picture, np.uint8)):
                height, width = yuv420.planes(picture)[0].shape
                self._check_sides(len(picture), width, height, 0)
            else:
                decoding.check_jpeg(picture, most_bytes)
                decoding.check_rare(picture, most_bytes)
                decoding.decode(picture, partial(self._check_sides, len(picture)), upright=self._upright)
        except DecodeError as error:
            return without_traceback(error)
        return None

    def _check_sides(self, payload_bytes: int, width: int, height: int, size_bytes: int) -> None:
        """DecodeError for a picture of another size than all have, or of one that takes too much memory."""
        for crop in self._crops.values():
            if isinstance(crop, Decode) and crop.size is not None and crop.sides != (height, width):
                expected = f"{crop.sides[0]} rows of {crop.sides[1]} pixels"
                raise DecodeError(expected=expected, found=f"{height} of {width}")
        desk: Any = np.zeros(1, pictures.DESK)
        found, draws = np.zeros(len(self._crops), boxes.BOX), np.zeros((len(self._crops), boxes.DRAWS))
        pictures.place_whole(width, height, self._table, draws, found, desk[0]["cut"])
        more = payload_bytes + int(pictures.crop_bytes(found, desk[0]["cut"]))
        decoding.check_fits(width, height, size_bytes + more, self._large.most_bytes)


class Scratch:
    """What one thread needs: records to work on, and memory, which all stages of a thread share."""

    def __init__(self, crops: int, size_bytes: int) -> None:
        self._room = getattr(_of_thread, "room", lambda: None)() or _Room(size_bytes)
        _of_thread.room = weakref.ref(self._room)
        self.desk = np.zeros(1, pictures.DESK)
        self.found = np.zeros(crops, boxes.BOX)

    @property
    def memory(self) -> Bytes:
        """What there is of it now."""
        return self._room.memory

    @memory.setter
    def memory(self, memory: Bytes) -> None:
        self._room.memory = memory


class _Room:
    """A thread's memory, for as long as a stage of it lives."""

    def __init__(self, size_bytes: int) -> None:
        self.memory = decoding.room(size_bytes)


_of_thread = threading.local()


class _Large:
    """Memory for one picture at a time that is too large for a thread's own."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.lock = RLock()
        self._memory = decoding.room(0)

    def memory(self, size_bytes: int) -> Bytes:
        """At least so many bytes; the lock is held."""
        if len(self._memory) < size_bytes:
            self._memory = decoding.room(0)
            self._memory = decoding.room(min(2 * size_bytes, self.most_bytes))
        return self._memory

    @contextmanager
    def alone(self, size_bytes: int) -> Iterator[None]:
        """The thread's turn to allocate so many bytes or more in its own way; everything is freed when that ends."""
        with self.lock:
            self._memory = decoding.room(0)
            try:
                yield
            finally:
                if size_bytes >= _RETURNED_BYTES:
                    decoding.return_freed_memory()


def _output(crop: Picture) -> Output:
    height, width = crop.sides
    if not height:
        return RAGGED
    shape = (3, height, width) if crop.layout == "CHW" else (height, width, 3)
    return Output(np.dtype(crop.dtype), shape, crop.layout)


def _record(crop: Picture) -> tuple[Any, ...]:
    """A crop as kernels see it."""
    kind, resize, scale, ratio = boxes.COVER, 0, (1.0, 1.0), (1.0, 1.0)
    if isinstance(crop, Decode):
        kind = boxes.WHOLE
    elif isinstance(crop, RandomResizedCrop):
        kind, scale, ratio = boxes.RANDOM, crop.scale, crop.ratio
    elif isinstance(crop, CenterCrop):
        kind, resize = (boxes.NATIVE, 0) if crop.resize is None else (boxes.WITHIN, crop.resize)
    return kind, *crop.sides, resize, *scale, *ratio, crop.flip, crop.upright


def _values(crop: Picture) -> npt.NDArray[np.uint32]:
    """What each level of each channel is in a batch."""
    if crop.dtype == "uint8":
        return value_table(np.ones(3), np.zeros(3), np.uint8)
    mean, std = np.array(crop.mean or (0.0,) * 3), np.array(crop.std or (1.0,) * 3)
    return value_table(1 / (255 * std), -mean / std, np.dtype(crop.dtype))


class PartialPictures(Pictures):
    """Crops for which, of tiled JPEGs that are not in memory yet, no more is read than their tiles."""

    head_bytes = pictures.HEAD_BYTES

    def narrow(self, work: Work) -> None:
        """Look at the heads of rows that have to be read."""
        payloads, draws = self._payloads(work).copy(), self._drawn(work)
        desk, found = np.zeros(1, pictures.DESK), np.zeros(len(self._crops), boxes.BOX)
        memory, regions = decoding.room(pictures.LONG_HEAD_BYTES), turbo.HAS_REGIONS
        spans = self._payloads(work)
        pictures.narrow_rows(work.shards, work.rows, spans, self._table, draws, regions, desk, found, memory)
        work.notes[self] = payloads, draws
        cold = work.rows["way"] != MAPPED
        if cold.any():  # whole payloads are asked for sooner, if there are no tiles
            narrowed = (spans["size"] != payloads["size"]).any()
            self.head_bytes = pictures.HEAD_BYTES if narrowed else MAX_BYTES


class WholePictures(Pictures):
    """One column's pictures as they are, each of its own size: a batch has them as Ragged."""

    def __init__(self, crops: Mapping[str, Picture], use: Use) -> None:
        super().__init__(crops, use)
        self._item_bytes = {name: np.dtype(crop.dtype).itemsize for name, crop in crops.items()}
        self.decoders = {name: partial(_whole, np.dtype(crop.dtype), crop.layout) for name, crop in crops.items()}

    def measure(self, work: Work) -> Mapping[str, Array]:
        """How many bytes each picture will have, by what its head says of its size."""
        spans, memory = work.spans[:, self._use.number], np.empty(pictures.LONG_HEAD_BYTES, np.uint8)
        desk, most_bytes = np.zeros(1, pictures.DESK), self._large.most_bytes
        found = {}
        for name, item_bytes in self._item_bytes.items():
            sizes = np.zeros(len(work.rows), np.int64)
            pictures.measure_rows(work.shards, work.rows, spans, item_bytes, desk, memory, most_bytes, sizes)
            for i in np.flatnonzero(sizes == pictures.UNKNOWN_SIZE).tolist():
                height, width = self._sides_of(work, i)
                sizes[i] = pictures.whole_bytes(height, width, item_bytes) if height else 0
            found[name] = sizes
        return found

    def _sides_of(self, work: Work, i: int) -> tuple[int, int]:
        """Height and width of a picture that no kernel knows; a row that has none is refused."""
        span = work.spans[i, self._use.number]
        with self._large.alone(int(span["size"])):  # for the payload, and what a library takes to look at it
            try:
                height, width = decoding.sides(self._payload(work, i, span))
                decoding.check_fits(width, height, 3 * 4 * width * height, self._large.most_bytes)
            except DecodeError:
                work.rows["status"][i] = REFUSED
            except OSError:
                work.rows["status"][i] = READ_FAILED
            else:
                return height, width
        return 0, 0


def _whole(dtype: np.dtype[Any], layout: str, row: memoryview) -> Array:
    """One picture of a ragged row."""
    height, width = np.frombuffer(row[: pictures.SIZE_BYTES], np.uint32).tolist()
    shape = (3, height, width) if layout == "CHW" else (height, width, 3)
    return np.frombuffer(row, dtype, 3 * height * width, pictures.SIZE_BYTES).reshape(shape)
