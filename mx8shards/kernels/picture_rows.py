"""How are the pictures of a range of rows decoded, cropped and resized into the bank without calling Python?

For each row: read the head, find the boxes of all crops, splice the tiles that they touch, decode these to planes at a
suitable scale, then resize each crop, convert it to RGB and write it to the bank. Each of these kernels is compiled
when the first picture needs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.cuts import (
    JOB,
    PAD,
    REGION,
    TILES,
    WORKSPACE,
    cut_whole,
    find_cut,
    scaled,
    spliced_bytes,
)
from mx8shards.kernels.decompress import (
    coefficient_bytes,
    decode_planes,
    decode_rgb,
    decoded_planes,
    has_planes,
    planes_bytes,
)
from mx8shards.kernels.jit import (
    BYTES,
    INT,
    MEMORY,
    NOTHING,
    PAIR,
    array,
    helper,
    inner_kernel,
    kernel,
    record,
    tuple_of,
)
from mx8shards.kernels.jpeg import CMYK, CUT_SHORT, YCCK, has_too_many_scans, orientation, read_head
from mx8shards.kernels.jpeg import OK as HEAD_OK
from mx8shards.kernels.jpeg_tiles import splice
from mx8shards.kernels.memory import view_bytes
from mx8shards.kernels.payloads import payload_at
from mx8shards.kernels.records import MAPPED, OK, READ, READ_FAILED, REFUSED, ROW, SHARD, SPAN
from mx8shards.kernels.resample import carve
from mx8shards.kernels.write_crops import crop_bytes, crop_planes, crop_rgb, fits, whole_bytes
from mx8shards.kernels.yuv420_planes import claimed_size, is_yuv420, planes_of, size_of

Array = npt.NDArray[Any]
Record = Any

# The need of the row at which `fill_rows` stopped: a number of bytes of scratch, or one of these values.
NOTHING_MORE = 0
PYTHON = -1  # a library called by Python: kernels do not decode this format, or the JPEG has to be rotated

# HEAD_BYTES of a payload are read first: a head with its tile index nearly always fits, if there is no thumbnail. If it
# does not, LONG_HEAD_BYTES are read.
HEAD_BYTES = 8 << 10
LONG_HEAD_BYTES = 64 << 10

UNKNOWN_SIZE = -1

_PNG = np.frombuffer(b"\x89PNG\r\n\x1a\n", np.uint8)
_IHDR = np.frombuffer(b"IHDR", np.uint8)
_ALIGNMENT = 64  # of pieces of scratch

# types
_DRAWS, _ALL_DRAWS = array(np.float64, 2), array(np.float64, 3)
_SHARDS, _ROWS, _SPANS = array(SHARD), array(ROW), array(SPAN, strided=True)  # spans of one column
_JOBS, _WORKSPACE = array(JOB), record(WORKSPACE)

# A batch for kernels: shards, rows, spans of the payloads, spans of the parts that are needed in addition to the head,
# and the random numbers of each row.
BATCH = tuple_of(_SHARDS, _ROWS, array(SPAN), _SPANS, _ALL_DRAWS)

# The bytes of a JPEG: its beginning, with the head; the part that is needed; the offset of that part in the payload;
# the size of the payload. If the span was not narrowed, the part is the whole payload.
_SOURCE = tuple_of(BYTES, BYTES, INT, INT)


# narrowing spans -----------------------------------------------------------------------------------------------------


@helper
def _read_beginning(shards: Array, row: Record, begin: Any, size: Any, head: Record, scratch: Array) -> Any:
    """The address and size of a payload's beginning, with the head if that is not too long; 0, 0 if reading fails."""
    seen, to = min(size, HEAD_BYTES), np.uint64(scratch.ctypes.data)
    address = payload_at(shards, row, begin, seen, to)
    if address != 0 and seen < size and read_head(view_bytes(address, seen), head) == CUT_SHORT:
        seen = min(size, LONG_HEAD_BYTES)
        address = payload_at(shards, row, begin, seen, to)
    return address, seen if address != 0 else np.int64(0)


@kernel(NOTHING, BATCH, _JOBS, _WORKSPACE, MEMORY)
def narrow_rows(batch: tuple[Array, ...], jobs: Array, workspace: Record, scratch: Array) -> None:
    """Narrow the spans of tiled JPEGs that are not in memory yet to the tiles that their crops touch."""
    shards, rows, _, spans, draws = batch
    head, cut, regions = workspace["head"], workspace["cut"], workspace["regions"]
    for i in range(len(rows)):
        if rows[i]["status"] != OK or rows[i]["way"] == MAPPED:
            continue
        begin, size = spans[i]["begin"], spans[i]["size"]
        address, seen = _read_beginning(shards, rows[i], begin, size, head, scratch)
        data = view_bytes(address, seen)
        if seen == 0 or read_head(data, head) != HEAD_OK:
            continue  # `fill_rows` will find the error
        if jobs[0]["crop"]["upright"] and orientation(data, head) != 1:
            continue
        head["size"] = size
        if has_planes(head):
            find_cut(data, head, jobs, draws[i], False, regions, PAD if regions else 0, cut)
            if cut["how"] == TILES:
                spans[i]["begin"] = begin + cut["tiles"]["begin"]
                spans[i]["size"] = cut["tiles"]["end"] - cut["tiles"]["begin"]


# filling rows --------------------------------------------------------------------------------------------------------


@kernel(PAIR, BATCH, _JOBS, _WORKSPACE, MEMORY, INT, INT)
def fill_rows(
    batch: tuple[Array, ...], jobs: Array, workspace: Record, scratch: Array, start: Any, stop: Any
) -> tuple[int, int]:
    """Make the crops of rows [start, stop); return the row at which this stopped, and its need.

    The need is a number of bytes of scratch, or PYTHON. If all rows are done, the result is (stop, NOTHING_MORE).
    """
    shards, rows, payloads, spans, draws = batch
    for i in range(start, stop):
        if rows[i]["status"] != OK:
            continue
        begin, size = payloads[i]["begin"], payloads[i]["size"]
        part_begin, part_size = spans[i]["begin"], spans[i]["size"]
        narrowed, read = part_size != size, rows[i]["way"] == READ
        first = min(size, LONG_HEAD_BYTES) if narrowed else size
        used = first + (part_size + _ALIGNMENT if narrowed else 0) if read else 0
        if used > len(scratch):
            return i, used
        buffer, left = carve(scratch, first if read else 0)
        part_buffer, left = carve(left, part_size if read and narrowed else 0)
        seen = size
        if narrowed:
            address, seen = _read_beginning(shards, rows[i], begin, size, workspace["head"], buffer)
        else:
            address = payload_at(shards, rows[i], begin, size, np.uint64(buffer.ctypes.data))
        part = address
        if narrowed:
            part = payload_at(shards, rows[i], part_begin, part_size, np.uint64(part_buffer.ctypes.data))
        if address == 0 or part == 0 or seen == 0:
            rows[i]["status"] = READ_FAILED
            continue
        source = view_bytes(address, seen), view_bytes(part, part_size), part_begin - begin, size
        status, need = _fill_row(source, i, jobs, draws[i], workspace, left)
        if need != NOTHING_MORE:
            return i, need + (len(scratch) - len(left) if need > 0 else 0)
        rows[i]["status"] = status
    return stop, NOTHING_MORE


@helper
def _fill_row(source: Any, row: Any, jobs: Array, draws: Array, workspace: Record, scratch: Array) -> Any:
    """Make all crops of one picture; return its status, and its need, or NOTHING_MORE if it is done."""
    if is_yuv420(source[0]):
        return crop_yuv420(source[0], jobs, draws, workspace, row, scratch)
    return _fill_jpeg(source, row, jobs, draws, workspace, scratch)


@inner_kernel(PAIR, _SOURCE, INT, _JOBS, _DRAWS, _WORKSPACE, MEMORY)
def _fill_jpeg(
    source: tuple[Array, Array, int, int], row: Any, jobs: Array, draws: Array, workspace: Record, scratch: Array
) -> tuple[int, int]:
    """Make all crops of one JPEG; return its status, and its need, or NOTHING_MORE if it is done."""
    data, part, part_begin, size = source
    head, cut, regions = workspace["head"], workspace["cut"], workspace["regions"]
    if read_head(data, head) != HEAD_OK:
        return OK, PYTHON
    head["size"] = size
    if jobs[0]["crop"]["upright"] and orientation(data, head) != 1:
        return OK, PYTHON
    if head["colours"] == CMYK or head["colours"] == YCCK or has_too_many_scans(data, head):
        return REFUSED, NOTHING_MORE
    planar = not workspace["exact"] and has_planes(head)
    find_cut(data, head, jobs, draws, not planar, regions and planar, PAD if regions else 0, cut)
    planar = planar and cut["how"] != REGION
    if not fits(jobs, row) or (cut["how"] != TILES and len(data) < size):
        return REFUSED, NOTHING_MORE
    need = jpeg_bytes(head, cut, jobs, planar)
    if need > len(scratch):
        return OK, need
    jpeg = data
    if cut["how"] == TILES:
        out, scratch = carve(scratch, spliced_bytes(head, cut))
        spliced = splice(data, head, part, part_begin, cut["tiles"], out)
        if spliced < 0:
            return REFUSED, NOTHING_MORE
        jpeg = view_bytes(np.uint64(out.ctypes.data), spliced)
    if planar:
        good = _crop_by_planes(jpeg, workspace, jobs, row, scratch)
    else:
        good = _crop_by_rgb(jpeg, workspace, jobs, row, scratch)
    return OK if good else REFUSED, NOTHING_MORE


@helper
def jpeg_bytes(head: Record, cut: Record, jobs: Array, planar: Any) -> Any:
    """Bytes for decoding and cropping one JPEG: scratch, and what libjpeg allocates."""
    pixels = planes_bytes(head, cut) if planar else 3 * cut["width"] * cut["height"]
    return spliced_bytes(head, cut) + 64 + coefficient_bytes(head) + pixels + crop_bytes(jobs, cut)


@helper
def _crop_by_planes(jpeg: Array, workspace: Record, jobs: Array, row: Any, scratch: Array) -> Any:
    """Decode a JPEG to planes and make its crops from these; False if it cannot be decoded."""
    head, cut, planes = workspace["head"], workspace["cut"], workspace["planes"][:]
    used = decode_planes(jpeg, head, cut, planes, scratch)
    if used > 0:
        crop_planes(decoded_planes(planes, scratch), (head["h"][0], head["v"][0]), cut, jobs, row, scratch[used:])
    return used > 0


@helper
def _crop_by_rgb(jpeg: Array, workspace: Record, jobs: Array, row: Any, scratch: Array) -> Any:
    """Decode a JPEG to RGB pixels and make its crops from these; False if it cannot be decoded."""
    cut = workspace["cut"]
    width, height = scaled(cut["width"], cut["scale"]), scaled(cut["height"], cut["scale"])
    pixels, scratch = carve(scratch, 3 * width * height)
    good = decode_rgb(jpeg, cut, width, height, pixels)
    if good:
        crop_rgb(pixels.reshape((height, width, 3)), cut, jobs, row, scratch)
    return good


@kernel(PAIR, BYTES, _JOBS, _DRAWS, _WORKSPACE, INT, MEMORY)
def crop_yuv420(data: Array, jobs: Array, draws: Array, workspace: Record, row: Any, scratch: Array) -> tuple[int, int]:
    """Make all crops of a yuv420 payload; return its status, and the bytes of scratch that it needs, or 0."""
    cut = workspace["cut"]
    height, width = size_of(data)
    if height == 0:
        return REFUSED, NOTHING_MORE
    cut_whole(width, height, jobs, draws, cut)
    if not fits(jobs, row):
        return REFUSED, NOTHING_MORE
    needed = crop_bytes(jobs, cut)
    if needed > len(scratch):
        return OK, needed
    crop_planes(planes_of(data, height, width), (2, 2), cut, jobs, row, scratch)
    return OK, NOTHING_MORE


# measuring rows ------------------------------------------------------------------------------------------------------


@kernel(NOTHING, _SHARDS, _ROWS, _SPANS, INT, _WORKSPACE, MEMORY, INT, array(np.int64))
def measure_rows(
    shards: Array,
    rows: Array,
    spans: Array,
    item_bytes: Any,
    workspace: Record,
    scratch: Array,
    most: Any,
    sizes: Array,
) -> None:
    """Compute the bytes of each decoded picture from its head; UNKNOWN_SIZE for formats that kernels do not know.

    A picture of more than `most` bytes is refused.
    """
    for i in range(len(rows)):
        sizes[i] = 0
        if rows[i]["status"] != OK:
            continue
        begin, size = spans[i]["begin"], spans[i]["size"]
        seen = min(size, len(scratch))
        address = payload_at(shards, rows[i], begin, seen, np.uint64(scratch.ctypes.data))
        if address == 0:
            rows[i]["status"] = READ_FAILED
            continue
        height, width = _sides(view_bytes(address, seen), workspace["head"])
        if height == 0 or width == 0:
            sizes[i] = UNKNOWN_SIZE
        elif height > most // width // (3 * item_bytes):  # divisions, because a product of the sides could overflow
            rows[i]["status"] = REFUSED
        else:
            sizes[i] = whole_bytes(height, width, item_bytes)


@helper
def _sides(data: Array, head: Record) -> Any:
    """Height and width of a picture from its beginning; 0 and 0 if they are not found there."""
    if is_yuv420(data):
        return claimed_size(data)
    if is_png(data):
        return _uint32(data, 20), _uint32(data, 16)
    read_head(data, head)
    return head["height"], head["width"]


@helper
def is_png(data: Array) -> Any:
    """Whether a payload begins with a PNG signature and an IHDR chunk, which has the size."""
    same = len(data) >= 24
    for i in range(len(_PNG)):
        same = same and data[i] == _PNG[i]
    for i in range(len(_IHDR)):
        same = same and data[12 + i] == _IHDR[i]
    return same


@helper
def _uint32(data: Array, at: Any) -> Any:
    """Read a big-endian uint32."""
    number = np.int64(0)
    for i in range(4):
        number = number << 8 | np.int64(data[at + i])
    return number
