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
from mx8shards.format.randomness import occurrences_of, uniforms
from mx8shards.kernels import boxes, placing, turbo
from mx8shards.kernels import picture_rows as kernels
from mx8shards.kernels.colour_conversion import value_table
from mx8shards.kernels.cuts import CUT, JOB, NO_ROOM, OTHER, PAD, REGION, WORKSPACE, cut_out, find_cut, place_whole
from mx8shards.kernels.decompress import coefficient_bytes, has_planes
from mx8shards.kernels.jpeg import OK as HEAD_OK
from mx8shards.kernels.jpeg import orientation, read_head
from mx8shards.kernels.records import FAULT, MAPPED, OK, READ, READ_FAILED, REFUSED
from mx8shards.kernels.residency import populate
from mx8shards.kernels.yuv420_planes import is_yuv420
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
    """Crops of one column's kernels.

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
        self._exact = any(crop.exact for crop in crops.values())
        self._upright = any(crop.upright for crop in crops.values())
        self._turbo = turbo.library is not None
        ways = "planes and regions" if turbo.HAS_REGIONS else "planes"
        self.path = "exact" if self._exact else ways if self._turbo else "rgb"
        self._jobs = np.zeros(len(crops), JOB)
        for job, crop in zip(self._jobs, crops.values(), strict=True):
            job["crop"], job["values"] = _record(crop), _values(crop)
        self._own_bytes = min(_MOST_BYTES, use.scratch_bytes // 2 // use.threads)
        large = _Large(min(MOST_DECODED_BYTES, use.scratch_bytes // 2))
        self._large = use.shared.setdefault("large pictures", large)
        self.scratch_bytes = self._own_bytes * use.threads + self._large.most_bytes

    def scratch(self) -> Scratch:
        """Memory that grows."""
        return Scratch(self._workspace(), min(_FIRST_BYTES, self._own_bytes))

    def _workspace(self) -> Any:
        """What kernels know of this stage, and room for what they find out."""
        workspace: Any = np.zeros(1, WORKSPACE)[0]
        workspace["exact"], workspace["regions"] = self._exact, turbo.HAS_REGIONS
        return workspace

    def begin(self, work: Work) -> None:
        """Draw the numbers of all crops, unless that is done, and note where each goes."""
        jobs = self._jobs.copy()
        for job, (name, crop) in zip(jobs, self._crops.items(), strict=True):
            place = work.place(name)
            bank = work.whole.ctypes.data
            offsets = 0 if place.offsets is None else bank + place.offsets
            job["target"] = bank + place.values, offsets, np.dtype(crop.dtype).itemsize, crop.layout == "HWC"
        payloads, draws = work.notes.get(self) or (self._payloads(work).copy(), self._drawn(work))
        work.notes[self] = payloads, draws, jobs

    def _payloads(self, work: Work) -> Array:
        """The spans of this column."""
        spans: Array = work.spans[:, self._use.number]
        return spans

    def _drawn(self, work: Work) -> Array:
        """The numbers of all crops: those of a row depend on its sample, and on which occurrence of it the row is."""
        occurrences = occurrences_of(work.extras)
        draws = np.zeros((len(work.rows), len(self._crops), boxes.DRAWS))
        for k, (name, crop) in enumerate(self._crops.items()):
            if isinstance(crop, RandomResizedCrop) or crop.flip:
                purpose = f"crop:{name}" if crop.seed is None else f"crops:{crop.seed}"
                ids = work.rows["sample_id"]
                draws[:, k] = uniforms(self._use.seed, work.epoch, ids, purpose, boxes.DRAWS, occurrences)
        return draws

    def fill(self, work: Work, start: int, stop: int, scratch: Scratch) -> None:
        """Decode and crop the pictures of rows from start to before stop."""
        jobs = work.notes[self][2].copy()  # several threads fill a batch, each for pictures of its own
        while start < stop:
            need = OTHER
            if self._turbo:
                start, need = self._by_kernel(work, start, stop, jobs, scratch, scratch.memory)
            if start < stop:
                self._by_hand(work, start, need, jobs, scratch)
                start += 1

    def _by_kernel(
        self, work: Work, start: int, stop: int, jobs: Array, scratch: Scratch, memory: Bytes
    ) -> tuple[int, int]:
        """As many rows as it can make anything of; the row where it stopped, and what that needs."""
        payloads, draws, _ = work.notes[self]
        row, need = kernels.fill_rows(
            work.shards,
            work.rows,
            payloads,
            self._payloads(work),
            jobs,
            draws,
            scratch.workspace,
            memory,
            start,
            stop,
        )
        return row, need

    def _by_hand(self, work: Work, i: int, need: int, jobs: Array, scratch: Scratch) -> None:
        """One row: with more memory, or by a library that Python calls. Its status says what came of it."""
        if work.rows["status"][i] != OK:
            return
        row = i
        while row == i and need == NO_ROOM:
            row, need = self._with_room(int(scratch.workspace["bytes"]), work, i, jobs, scratch)
        if row > i:
            return
        with ExitStack() as turn:  # until nothing is held any more of what the turn is for, errors included
            work.rows["status"][i] = self._outside(work, i, jobs, scratch, turn)

    def _outside(self, work: Work, i: int, jobs: Array, scratch: Scratch, turn: ExitStack) -> int:
        """One row, from a copy of its payload, and the status that this gives it."""
        span = work.notes[self][0][i]
        try:
            self._take(int(span["size"]), scratch, turn)  # threads that wait for their turn hold no payload
            payload = self._payload(work, i, span)
            if is_yuv420(np.frombuffer(payload, np.uint8)):
                return self._of_planes(payload, work, i, jobs, scratch, turn)
            self._by_library(payload, work, i, jobs, scratch, turn)
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

    def _with_room(self, size_bytes: int, work: Work, i: int, jobs: Array, scratch: Scratch) -> tuple[int, int]:
        """One row by the kernel, with so much scratch; the row where it stopped, and what that needs."""
        if size_bytes <= self._own_bytes:
            scratch.memory = decoding.room(0)
            scratch.memory = decoding.room(min(2 * size_bytes, self._own_bytes))
            return self._by_kernel(work, i, i + 1, jobs, scratch, scratch.memory)
        if size_bytes <= self._large.most_bytes:
            with self._large.lock:
                return self._by_kernel(work, i, i + 1, jobs, scratch, self._large.memory(size_bytes))
        work.rows["status"][i] = REFUSED
        return i + 1, kernels.DONE

    def _by_library(self, payload: bytes, work: Work, i: int, jobs: Array, scratch: Scratch, turn: ExitStack) -> None:
        """One row by simplejpeg, if the kernel could have decoded it, else by Pillow."""
        draws = work.notes[self][1][i]
        cut = scratch.workspace["cut"]

        def prepare(height: int, width: int, size_bytes: int) -> None:
            """Before that many pixels are made, in so many bytes."""
            if not placing.fits(jobs, i):
                raise DecodeError("a picture of another size than there is room for")
            more = len(payload) + int(placing.crop_bytes(jobs, cut))
            decoding.check_fits(width, height, size_bytes + more, self._large.most_bytes)
            self._take(size_bytes + more, scratch, turn, kept_bytes)

        def place(width: int, height: int, size_bytes: int) -> None:
            place_whole(width, height, jobs, draws, cut)
            prepare(height, width, size_bytes)

        head = scratch.workspace["head"]
        orientation = orientation_of(payload, head) if self._upright else UPRIGHT
        jpeg, kept_bytes = self._jpeg(payload, jobs, draws, scratch, turn) if orientation == UPRIGHT else (None, 0)
        if orientation != UPRIGHT:
            size = turned_size(head["width"], head["height"], orientation)
            place_whole(*size, jobs, draws, cut)
            pixels = decode_turned(payload, head, orientation, jobs["box"], self._exact, cut, prepare)
        elif jpeg is None:
            decoding.check_rare(payload, self._large.most_bytes)
            pixels = decoding.decode(payload, place, upright=self._upright)
        else:
            height, width = (-(-int(cut[side]) // int(cut["scale"])) for side in ("height", "width"))
            prepare(height, width, 3 * height * width + len(jpeg) + int(coefficient_bytes(head)))
            pixels = decoding.decode_jpeg(jpeg, height, width)
            if pixels.shape != (height, width, 3):
                raise DecodeError("a JPEG of another size than its head says")
        memory = decoding.room(int(placing.crop_bytes(jobs, cut)))
        placing.crop_rgb(pixels, cut, jobs, i, memory)

    def _jpeg(
        self, payload: bytes, jobs: Array, draws: Array, scratch: Scratch, turn: ExitStack
    ) -> tuple[Bytes | None, int]:
        """The JPEG that has to be decoded, of some tiles or the payload itself; None if that is no JPEG.

        Also how much of this thread's scratch it keeps in use.
        """
        workspace, memory, kept_bytes = scratch.workspace, scratch.memory, len(scratch.memory)
        data = np.frombuffer(payload, np.uint8)
        size = cut_out(data, jobs, draws, workspace, memory)
        if size == -NO_ROOM:
            memory, kept_bytes = decoding.room(0), 0
            self._take(int(workspace["bytes"]) + len(payload), scratch, turn)
            memory = decoding.room(int(workspace["bytes"]))
            size = cut_out(data, jobs, draws, workspace, memory)
        if size == -OTHER:
            return None, 0
        if size < 0:
            raise DecodeError("a JPEG in CMYK or of too many scans, or one whose tile index does not match its data")
        return (memory[:size], kept_bytes) if size else (data, 0)

    def _of_planes(self, payload: bytes, work: Work, i: int, jobs: Array, scratch: Scratch, turn: ExitStack) -> int:
        """One row by the kernel, which needs no library for it; the status that this gives it."""
        draws, workspace, data = work.notes[self][1][i], scratch.workspace, np.frombuffer(payload, np.uint8)
        status = kernels.crop_yuv420(data, jobs, draws, workspace, i, scratch.memory)
        if status == NO_ROOM:
            self._take(int(workspace["bytes"]) + len(payload), scratch, turn)
            status = kernels.crop_yuv420(data, jobs, draws, workspace, i, decoding.room(int(workspace["bytes"])))
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
                self._check_room(picture)
                decoding.decode(picture, partial(self._check_sides, len(picture)), upright=self._upright)
        except DecodeError as error:
            return without_traceback(error)
        return None

    def _check_room(self, picture: bytes) -> None:
        """DecodeError for a JPEG that takes more memory to decode than there is.

        Which part a random crop needs is not known here, so all of the picture is counted then.
        """
        workspace = self._workspace()
        data, head, cut = np.frombuffer(picture, np.uint8), workspace["head"], workspace["cut"]
        if read_head(data, head) != HEAD_OK or (self._upright and orientation(data, head) != UPRIGHT):
            return
        jobs, draws = self._jobs.copy(), np.zeros((len(self._crops), boxes.DRAWS))
        planar = self._turbo and not self._exact and bool(has_planes(head))
        if any(isinstance(crop, RandomResizedCrop) for crop in self._crops.values()):
            place_whole(head["width"], head["height"], jobs, draws, cut)
        else:
            regions = planar and turbo.HAS_REGIONS
            find_cut(data, head, jobs, draws, not planar, regions, PAD if turbo.HAS_REGIONS else 0, cut)
            planar = planar and cut["how"] != REGION
        size_bytes = int(kernels.jpeg_bytes(head, cut, jobs, planar)) + 2 * len(picture)  # a copy, and one of its tiles
        decoding.check_fits(int(head["width"]), int(head["height"]), size_bytes, self._large.most_bytes)

    def _check_sides(self, payload_bytes: int, width: int, height: int, size_bytes: int) -> None:
        """DecodeError for a picture of another size than all have, or of one that takes too much memory."""
        for crop in self._crops.values():
            if isinstance(crop, Decode) and crop.size is not None and crop.sides != (height, width):
                expected = f"{crop.sides[0]} rows of {crop.sides[1]} pixels"
                raise DecodeError(expected=expected, found=f"{height} of {width}")
        cut: Any = np.zeros(1, CUT)[0]
        jobs, draws = self._jobs.copy(), np.zeros((len(self._crops), boxes.DRAWS))
        place_whole(width, height, jobs, draws, cut)
        more = payload_bytes + int(placing.crop_bytes(jobs, cut))
        decoding.check_fits(width, height, size_bytes + more, self._large.most_bytes)


class Scratch:
    """What one thread needs: a record to work on, and memory, which all stages of a thread share."""

    def __init__(self, workspace: Any, size_bytes: int) -> None:
        self._room = getattr(_of_thread, "room", lambda: None)() or _Room(size_bytes)
        _of_thread.room = weakref.ref(self._room)
        self.workspace = workspace

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

    head_bytes = kernels.HEAD_BYTES

    def narrow(self, work: Work) -> None:
        """Look at the heads of rows that have to be read."""
        payloads, draws = self._payloads(work).copy(), self._drawn(work)
        spans, jobs, memory = self._payloads(work), self._jobs.copy(), decoding.room(kernels.LONG_HEAD_BYTES)
        kernels.narrow_rows(work.shards, work.rows, spans, jobs, draws, self._workspace(), memory)
        work.notes[self] = payloads, draws
        cold = work.rows["way"] != MAPPED
        if cold.any():  # whole payloads are asked for sooner, if there are no tiles
            narrowed = (spans["size"] != payloads["size"]).any()
            self.head_bytes = kernels.HEAD_BYTES if narrowed else MAX_BYTES


class WholePictures(Pictures):
    """One column's pictures as they are, each of its own size: a batch has them as Ragged."""

    def __init__(self, crops: Mapping[str, Picture], use: Use) -> None:
        super().__init__(crops, use)
        self._item_bytes = {name: np.dtype(crop.dtype).itemsize for name, crop in crops.items()}
        self.decoders = {name: partial(_whole, np.dtype(crop.dtype), crop.layout) for name, crop in crops.items()}

    def measure(self, work: Work) -> Mapping[str, Array]:
        """How many bytes each picture will have, by what its head says of its size."""
        spans, memory = work.spans[:, self._use.number], np.empty(kernels.LONG_HEAD_BYTES, np.uint8)
        workspace, most_bytes = self._workspace(), self._large.most_bytes
        found = {}
        for name, item_bytes in self._item_bytes.items():
            sizes = np.zeros(len(work.rows), np.int64)
            kernels.measure_rows(work.shards, work.rows, spans, item_bytes, workspace, memory, most_bytes, sizes)
            for i in np.flatnonzero(sizes == kernels.UNKNOWN_SIZE).tolist():
                height, width = self._sides_of(work, i)
                sizes[i] = placing.whole_bytes(height, width, item_bytes) if height else 0
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
    height, width = np.frombuffer(row[: placing.SIZE_BYTES], np.uint32).tolist()
    shape = (3, height, width) if layout == "CHW" else (height, width, 3)
    return np.frombuffer(row, dtype, 3 * height * width, placing.SIZE_BYTES).reshape(shape)
