"""How does the Loader decode a column of pictures to crops? The stage for `decode=`, run by a loader's threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, SettingError, without_traceback
from mx8shards.format.picture_files import MOST_DECODED_BYTES
from mx8shards.format.randomness import occurrences_of, uniforms
from mx8shards.kernels import boxes, turbo, write_crops
from mx8shards.kernels import picture_rows as kernels
from mx8shards.kernels.colour_conversion import value_table
from mx8shards.kernels.cuts import CUT, JOB, PAD, REGION, WORKSPACE, cut_whole, find_cut
from mx8shards.kernels.decompress import has_planes
from mx8shards.kernels.jpeg import OK as HEAD_OK
from mx8shards.kernels.jpeg import orientation, read_head
from mx8shards.kernels.records import MAPPED, OK, READ_FAILED, REFUSED
from mx8shards.kernels.yuv420_planes import is_yuv420
from mx8shards.media import decoding, library_pictures, yuv420
from mx8shards.media.crop_settings import CropKind, CropSettings
from mx8shards.media.exif_rotation import UPRIGHT
from mx8shards.media.picture_memory import LargeMemory, ThreadMemory, thread_bytes
from mx8shards.stages import RAGGED, DecoderContext, Output, Stage, Work

Array = npt.NDArray[Any]

ENCODINGS = ("bytes", "jpeg", "png")

_KINDS: dict[CropKind, int] = {
    "whole": boxes.WHOLE,
    "cover": boxes.COVER,
    "random": boxes.RANDOM,
    "within": boxes.WITHIN,
    "native": boxes.NATIVE,
}

_COST_OF_BYTE = 64  # decoding and cropping one byte of a picture file takes as long as copying 64 bytes


def stage_of(crops: Mapping[str, CropSettings], context: DecoderContext) -> Stage:
    """The stage that makes these crops."""
    if RAGGED in map(_output, crops.values()):
        return WholePictures(crops, context)
    exact = any(crop.exact for crop in crops.values())
    return (Pictures if exact or turbo.library is None else PartialPictures)(crops, context)


def _require_pictures(context: DecoderContext) -> None:
    """SettingError if a column has no pictures, but clips or another encoding."""
    place = f"column {context.column!r}"
    if context.clips is not None:
        expected = "mx8.Clip(size) or mx8.Clip(crop=…), because the view has clips of this column"
        raise SettingError(subject="decode", place=place, expected=expected, found="a decoder of pictures")
    if context.encoding not in ENCODINGS:
        expected = f"an encoding of whole picture files: {', '.join(ENCODINGS)}"
        raise SettingError(subject="decode", place=place, expected=expected, found=repr(context.encoding))


class Pictures(Stage):
    """Decodes the pictures of one column and makes their crops.

    With libturbojpeg, a kernel decodes JPEGs, and Python handles only the other pictures. Each thread has scratch;
    pictures that need more are decoded one at a time, in memory that all threads share.
    """

    opens_thread = True

    def __init__(self, crops: Mapping[str, CropSettings], context: DecoderContext) -> None:
        _require_pictures(context)
        decoding.import_libraries()
        self.columns = (context.column,)
        self.outputs = {name: _output(crop) for name, crop in crops.items()}
        self._crops = crops
        self._context = context
        self._exact = any(crop.exact for crop in crops.values())
        self._upright = any(crop.upright for crop in crops.values())
        self._turbo = turbo.library is not None
        ways = "planes and regions" if turbo.HAS_REGIONS else "planes"
        self.path = "exact" if self._exact else ways if self._turbo else "rgb"
        self._jobs = np.zeros(len(crops), JOB)
        for job, crop in zip(self._jobs, crops.values(), strict=True):
            job["crop"], job["values"] = crop_record(crop), crop_values(crop)
        self._thread_bytes = thread_bytes(context.scratch_bytes, context.threads)
        large = LargeMemory(min(MOST_DECODED_BYTES, context.scratch_bytes // 2))
        self._large = context.shared.setdefault("large pictures", large)
        self.scratch_bytes = self._thread_bytes * context.threads + self._large.most_bytes

    def open_thread(self) -> ThreadMemory:
        """The workspace and scratch of one thread."""
        return ThreadMemory(self._workspace(), self._thread_bytes, self._large)

    def costs(self, work: Work) -> Array:
        """The cost of decoding, in proportion to the payload's size."""
        costs: Array = _COST_OF_BYTE * self._payloads(work)["size"]
        return costs

    def _workspace(self) -> Any:
        """A new WORKSPACE record with the settings of this stage."""
        workspace: Any = np.zeros(1, WORKSPACE)[0]
        workspace["exact"], workspace["regions"] = self._exact, turbo.HAS_REGIONS
        return workspace

    def begin(self, work: Work) -> None:
        """Draw the random numbers of all crops, unless `narrow` did, and store the bank addresses of the outputs."""
        jobs = self._jobs.copy()
        for job, (name, crop) in zip(jobs, self._crops.items(), strict=True):
            region = work.region(name)
            bank = work.whole.ctypes.data
            offsets = 0 if region.offsets is None else bank + region.offsets
            job["target"] = bank + region.values, offsets, np.dtype(crop.dtype).itemsize, crop.layout == "HWC"
        payloads, draws = work.notes.get(self) or (self._payloads(work).copy(), self._draw(work))
        work.notes[self] = payloads, draws, jobs

    def _payloads(self, work: Work) -> Array:
        """The spans of this column."""
        spans: Array = work.spans[:, self._context.number]
        return spans

    def _draw(self, work: Work) -> Array:
        """Draw the random numbers of all crops, keyed by (seed, epoch, sample_id, purpose, occurrence) of each row."""
        occurrences = occurrences_of(work.extras)
        draws = np.zeros((len(work.rows), len(self._crops), boxes.DRAWS))
        for k, (name, crop) in enumerate(self._crops.items()):
            if crop.kind == "random" or crop.flip:
                purpose = f"crop:{name}" if crop.seed is None else f"crops:{crop.seed}"
                ids = work.rows["sample_id"]
                draws[:, k] = uniforms(self._context.seed, work.epoch, ids, purpose, boxes.DRAWS, occurrences)
        return draws

    def fill(self, work: Work, start: int, stop: int, memory: ThreadMemory) -> None:
        """Decode and crop the pictures of rows [start, stop)."""
        payloads, draws, jobs = work.notes[self]
        jobs = jobs.copy()  # kernels store boxes in it, and several threads fill a batch
        batch = work.shards, work.rows, payloads, self._payloads(work), draws
        need = 0 if self._turbo else kernels.PYTHON
        while start < stop:
            if need >= 0:
                start, need = self._fill_by_kernel(batch, jobs, memory, need, start, stop)
            if need == kernels.PYTHON:
                self._fill_by_library(work, start, jobs, memory)
                start += 1
                need = 0 if self._turbo else kernels.PYTHON

    def _fill_by_kernel(
        self, batch: Any, jobs: Array, memory: ThreadMemory, need: int, start: int, stop: int
    ) -> tuple[int, int]:
        """Fill rows with `need` bytes of scratch or more; return the row at which that stopped, and its need."""
        if need <= len(memory.scratch) or memory.grow(need):
            row, need = kernels.fill_rows(batch, jobs, memory.workspace, memory.scratch, start, stop)
            return row, need
        if need > self._large.most_bytes:
            batch[1]["status"][start] = REFUSED
            return start + 1, 0
        with self._large.lock:
            scratch = self._large.scratch(need)
            row, need = kernels.fill_rows(batch, jobs, memory.workspace, scratch, start, start + 1)
        return row, need

    def _fill_by_library(self, work: Work, i: int, jobs: Array, memory: ThreadMemory) -> None:
        """Fill one row that kernels did not decode."""
        if work.rows["status"][i] != OK:
            return
        payloads, draws, _ = work.notes[self]
        picture = library_pictures.Picture(
            work=work,
            row=i,
            span=payloads[i],
            jobs=jobs,
            draws=draws[i],
            exact=self._exact,
            upright=self._upright,
        )
        work.rows["status"][i] = library_pictures.make_crops(picture, memory)

    def why(self, size_bytes: int, read: Callable[[], bytes]) -> Exception | None:
        """The error for a picture that was refused; None if it decodes now. The strictest decoder is tried first.

        The picture is read and decoded in the memory for one large picture, so one thread at a time does this.
        """
        if size_bytes > self._large.most_bytes:
            return DecodeError(expected=f"at most {self._large.most_bytes} bytes", found=f"{size_bytes}")
        with self._large.alone(size_bytes):
            return self._find_error(read())

    def _find_error(self, picture: bytes) -> Exception | None:
        most_bytes = self._large.most_bytes
        try:
            if is_yuv420(np.frombuffer(picture, np.uint8)):
                height, width = yuv420.planes(picture)[0].shape
                self._check_sides(len(picture), width, height, 0)
            else:
                decoding.check_jpeg(picture, most_bytes)
                decoding.check_pillow_jpeg(picture, most_bytes)
                self._check_memory(picture)
                decoding.decode(picture, partial(self._check_sides, len(picture)), upright=self._upright)
                if picture.startswith(b"\xff\xd8"):  # crops also refuse JPEGs for which libjpeg only warns
                    decoding.decode_jpeg(np.frombuffer(picture, np.uint8), 1, 1)
        except DecodeError as error:
            return without_traceback(error)
        return None

    def _check_memory(self, picture: bytes) -> None:
        """DecodeError for a JPEG that takes too much memory to decode.

        The box of a random crop is not known here, so the whole picture is counted.
        """
        workspace = self._workspace()
        data, head, cut = np.frombuffer(picture, np.uint8), workspace["head"], workspace["cut"]
        if read_head(data, head) != HEAD_OK or (self._upright and orientation(data, head) != UPRIGHT):
            return
        jobs, draws = self._jobs.copy(), np.zeros((len(self._crops), boxes.DRAWS))
        planar = self._turbo and not self._exact and bool(has_planes(head))
        if any(crop.kind == "random" for crop in self._crops.values()):
            cut_whole(head["width"], head["height"], jobs, draws, cut)
        else:
            regions = planar and turbo.HAS_REGIONS
            find_cut(data, head, jobs, draws, not planar, regions, PAD if turbo.HAS_REGIONS else 0, cut)
            planar = planar and cut["how"] != REGION
        size_bytes = int(kernels.jpeg_bytes(head, cut, jobs, planar)) + 2 * len(picture)  # the payload and its tiles
        decoding.check_fits(int(head["width"]), int(head["height"]), size_bytes, self._large.most_bytes)

    def _check_sides(self, payload_bytes: int, width: int, height: int, size_bytes: int) -> None:
        """DecodeError for a picture that does not have the size in the settings, or takes too much memory."""
        for crop in self._crops.values():
            if crop.kind == "whole" and any(crop.sides) and crop.sides != (height, width):
                expected = f"{crop.sides[0]} rows of {crop.sides[1]} pixels"
                raise DecodeError(expected=expected, found=f"{height} of {width}")
        cut: Any = np.zeros(1, CUT)[0]
        jobs, draws = self._jobs.copy(), np.zeros((len(self._crops), boxes.DRAWS))
        cut_whole(width, height, jobs, draws, cut)
        more = payload_bytes + int(write_crops.crop_bytes(jobs, cut))
        decoding.check_fits(width, height, size_bytes + more, self._large.most_bytes)


def _output(crop: CropSettings) -> Output:
    height, width = crop.sides
    if not height:
        return RAGGED
    shape = (3, height, width) if crop.layout == "CHW" else (height, width, 3)
    return Output(np.dtype(crop.dtype), shape, crop.layout)


def crop_record(crop: CropSettings) -> tuple[Any, ...]:
    """The settings of a crop as a CROP record."""
    return _KINDS[crop.kind], *crop.sides, crop.resize, *crop.scale, *crop.ratio, crop.flip, crop.upright


def crop_values(crop: CropSettings) -> npt.NDArray[np.uint32]:
    """The value table of a crop: the value of each level of each channel in a batch."""
    if crop.dtype == "uint8":
        return value_table(np.ones(3), np.zeros(3), np.uint8)
    mean, std = np.array(crop.mean or (0.0,) * 3), np.array(crop.std or (1.0,) * 3)
    return value_table(1 / (255 * std), -mean / std, np.dtype(crop.dtype))


class PartialPictures(Pictures):
    """Pictures of fixed size. It reads only the needed tiles of tiled JPEGs that are not in the page cache."""

    narrows = True
    head_bytes = kernels.HEAD_BYTES

    def narrow(self, work: Work) -> bool:
        """Read the heads of rows that are not mapped, and narrow their spans to the tiles that the crops need."""
        payloads, draws = self._payloads(work).copy(), self._draw(work)
        spans, scratch = self._payloads(work), decoding.aligned_scratch(kernels.LONG_HEAD_BYTES)
        batch = work.shards, work.rows, payloads, spans, draws
        kernels.narrow_rows(batch, self._jobs.copy(), self._workspace(), scratch)
        work.notes[self] = payloads, draws
        return bool((work.rows["way"] == MAPPED).all() or (spans["size"] != payloads["size"]).any())


class WholePictures(Pictures):
    """Pictures of different sizes, decoded without resizing: a batch has them as Ragged."""

    measures = True

    def __init__(self, crops: Mapping[str, CropSettings], context: DecoderContext) -> None:
        super().__init__(crops, context)
        self._item_bytes = {name: np.dtype(crop.dtype).itemsize for name, crop in crops.items()}
        self.decoders = {name: partial(_decode_row, np.dtype(crop.dtype), crop.layout) for name, crop in crops.items()}

    def measure(self, work: Work) -> Mapping[str, Array]:
        """The bytes of each decoded picture, from the size in its head."""
        spans, scratch = work.spans[:, self._context.number], np.empty(kernels.LONG_HEAD_BYTES, np.uint8)
        workspace, most_bytes = self._workspace(), self._large.most_bytes
        found = {}
        for name, item_bytes in self._item_bytes.items():
            sizes = np.zeros(len(work.rows), np.int64)
            kernels.measure_rows(work.shards, work.rows, spans, item_bytes, workspace, scratch, most_bytes, sizes)
            for i in np.flatnonzero(sizes == kernels.UNKNOWN_SIZE).tolist():
                height, width = self._sides_of(work, i)
                sizes[i] = write_crops.whole_bytes(height, width, item_bytes) if height else 0
            found[name] = sizes
        return found

    def _sides_of(self, work: Work, i: int) -> tuple[int, int]:
        """Height and width of a picture in a format that kernels do not know; 0 and 0 if the row is refused."""
        span = work.spans[i, self._context.number]
        with self._large.alone(int(span["size"])):  # for the payload, and the library's memory for opening it
            try:
                payload = library_pictures.read_payload(work, i, span, self._large.most_bytes)
                height, width = decoding.sides(payload)
                decoding.check_fits(width, height, 3 * 4 * width * height, self._large.most_bytes)
            except DecodeError:
                work.rows["status"][i] = REFUSED
            except OSError:
                work.rows["status"][i] = READ_FAILED
            else:
                return height, width
        return 0, 0


def _decode_row(dtype: np.dtype[Any], layout: str, row: memoryview) -> Array:
    """The picture in a row of a ragged column, as an array."""
    height, width = np.frombuffer(row[: write_crops.SIZE_BYTES], np.uint32).tolist()
    shape = (3, height, width) if layout == "CHW" else (height, width, 3)
    return np.frombuffer(row, dtype, 3 * height * width, write_crops.SIZE_BYTES).reshape(shape)
