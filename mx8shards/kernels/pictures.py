"""How do the payloads of rows become crops, with no Python in between?

For each row: the head is read, the boxes of all crops are found, the tiles that they touch are cut out, decoded to
planes at a scale that suits, and each crop is resized and coloured into its place in the bank.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels import crop, turbo
from mx8shards.kernels.boxes import find_box
from mx8shards.kernels.jit import kernel
from mx8shards.kernels.jpeg import (
    CMYK,
    CUT_SHORT,
    GREY,
    HEAD,
    MOST_SCANS,
    SEQUENTIAL,
    YCBCR,
    YCCK,
    has_too_many_scans,
    orientation,
    read_head,
)
from mx8shards.kernels.jpeg import OK as HEAD_OK
from mx8shards.kernels.jpeg_tiles import TILES as TILES_FOUND
from mx8shards.kernels.jpeg_tiles import splice, tiles_for
from mx8shards.kernels.memory import load_int64, read_fully, view_bytes
from mx8shards.kernels.reach import populate
from mx8shards.kernels.records import MAPPED, OK, READ, READ_FAILED, REFUSED
from mx8shards.kernels.resample import carve
from mx8shards.kernels.yuv420 import claimed_size, is_yuv420, planes_of, size_of

Array = npt.NDArray[Any]
Record = Any

# Where a crop's rows go: the address of the first, and that of their offsets, 0 if all are of one size; how many bytes
# each number has; whether channels come last.
TARGET = np.dtype([("address", "u8"), ("offsets", "u8"), ("item_bytes", "i8"), ("channels_last", "i8")])

SIZE_BYTES = 8  # height and width, uint32, before the pixels of a row whose size only the picture tells

# What of a picture is decoded: these of its pixels, at one `scale`-th of the size, and `how`.
CUT = np.dtype(
    [
        ("left", "i8"),
        ("top", "i8"),
        ("width", "i8"),
        ("height", "i8"),
        ("scale", "i8"),
        ("how", "i8"),
        ("tiles", TILES_FOUND),
    ]
)

# how a part of a picture is decoded
ALL = 0  # it is none
TILES = 1  # its tiles are cut out first
REGION = 2  # the library skips what is around it

# What a thread has, beside memory: records that kernels write into.
DESK = np.dtype([("head", HEAD), ("cut", CUT), ("status", "i8"), ("bytes", "i8")])

# What becomes of a row in the kernels here, beside the statuses of rows. These are left to Python:
NO_ROOM = 101  # it needs so many `bytes` of scratch
OTHER = 102  # it is no JPEG that the kernel decodes, or one that has to be turned

_MOST_TILES = 0.9  # of a picture: tiles that are nearly all of it are not worth the copy
_MOST_REGION = 0.6  # of a picture: of a larger region, planes are made as soon as colours, and resized sooner
UNKNOWN_SIZE = -1

# Of a payload that is read, this much is looked at first: a head and its tiles nearly always fit, if there is no
# thumbnail. Those of the largest pictures take more, but no more than this.
HEAD_BYTES = 8 << 10
LONG_HEAD_BYTES = 64 << 10

_PNG = np.frombuffer(b"\x89PNG\r\n\x1a\n", np.uint8)
_IHDR = np.frombuffer(b"IHDR", np.uint8)
_BLOCK_BYTES = 2 * 64
_PAD = 2  # pixels, at any scale, that chroma is smoothed over where it is made as fine as luma
# a bare number is a type of its own, for which kernels are compiled anew
_ONE: Any = np.int64(1)
_EVEN: Any = (np.int64(2), np.int64(2))
_ROW = 64  # planes' strides are multiples of that


@kernel
def _find_boxes(head: Record, crops: Array, draws: Array, found: Array) -> Any:
    """The box of each crop, and how far the picture may be scaled down so that neither that nor chroma is enlarged."""
    scale = np.int64(8)
    for k in range(len(crops)):
        box = found[k]
        find_box(crops[k], draws[k], head["width"], head["height"], box)
        across, down = _steps(box)
        while scale > 1 and (across < scale * head["h"][0] or down < scale * head["v"][0]):
            scale //= 2
    return scale


@kernel
def _steps(box: Record) -> Any:
    """How many pixels of the picture make one of the crop, across and down."""
    return (box["right"] - box["left"]) / box["width"], (box["bottom"] - box["top"]) / box["height"]


@kernel
def find_cut(
    data: Array,
    head: Record,
    crops: Array,
    draws: Array,
    found: Array,
    whole: Any,
    regions: Any,
    pad: Any,
    cut: Record,
) -> None:
    """The box of each crop, and what has to be decoded for all of them: so many pixels more than they look at.

    `whole`: all of the picture, in its own size. `regions`: the library can decode one, where there are no tiles.
    """
    width, height = head["width"], head["height"]
    scale = _find_boxes(head, crops, draws, found)
    cut["left"], cut["top"], cut["width"], cut["height"], cut["how"] = 0, 0, width, height, ALL
    cut["scale"] = 1 if whole else scale
    if whole or (head["tiles"] == 0 and not regions):
        return
    coarse_x, coarse_y = head["h"][0] * scale, head["v"][0] * scale  # pixels that one sample of chroma is made of
    left, top, right, bottom = width, height, 0, 0
    for k in range(len(crops)):
        box = found[k]
        across, down = _steps(box)
        reach_x, reach_y = max(across, coarse_x) + coarse_x, max(down, coarse_y) + coarse_y
        left = min(left, max(box["low_x"], np.int64(np.floor(box["left"] - reach_x))) - pad * scale)
        top = min(top, max(box["low_y"], np.int64(np.floor(box["top"] - reach_y))) - pad * scale)
        right = max(right, min(box["high_x"], np.int64(np.ceil(box["right"] + reach_x))) + pad * scale)
        bottom = max(bottom, min(box["high_y"], np.int64(np.ceil(box["bottom"] + reach_y))) + pad * scale)
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    part = np.float64(right - left) * np.float64(bottom - top) / (np.float64(width) * np.float64(height))
    tiles = cut["tiles"]
    if head["tiles"] > 0 and part < _MOST_TILES and tiles_for(data, head, left, top, right, bottom, tiles) == HEAD_OK:
        cut["left"], cut["top"] = tiles["left"], tiles["top"]
        cut["width"], cut["height"] = tiles["width"], tiles["height"]
        cut["how"] = TILES
    elif regions and part < _MOST_REGION:
        left -= left % head["mcu_width"]
        top -= top % head["mcu_height"]
        cut["left"], cut["top"], cut["width"], cut["height"] = left, top, right - left, bottom - top
        cut["how"] = REGION


@kernel
def has_planes(head: Record) -> Any:
    """Whether TurboJPEG gives this picture's planes: luma, and two of chroma that are 1, 2 or 4 times as coarse."""
    if head["colours"] == GREY:
        return True
    if head["colours"] != YCBCR:
        return False
    for i in range(1, 3):
        if head["h"][i] != 1 or head["v"][i] != 1:
            return False
    h, v = head["h"][0], head["v"][0]
    return (v == 1 and (h == 1 or h == 2 or h == 4)) or (v == 2 and h <= 2)


@kernel
def decode_planes(handle: Any, jpeg: Array, head: Record, cut: Record, memory: Array) -> Any:
    """Y, Cb and Cr of what is decoded, in scratch, and what is left of that; before them False, if that failed."""
    width, height = _scaled(cut["width"], cut["scale"]), _scaled(cut["height"], cut["scale"])
    h, v = head["h"][0], head["v"][0]
    luma, memory = _plane(width, height, h, v, memory)
    grey = head["colours"] == GREY
    blue, memory = _plane(0 if grey else _scaled(width, h), 0 if grey else _scaled(height, v), _ONE, _ONE, memory)
    red, memory = _plane(0 if grey else _scaled(width, h), 0 if grey else _scaled(height, v), _ONE, _ONE, memory)
    words, memory = carve(memory, 48)
    planes, strides = words[:24].view(np.uint64), words[24:36].view(np.int32)
    planes[0], planes[1], planes[2] = luma.ctypes.data, blue.ctypes.data, red.ctypes.data
    strides[0], strides[1], strides[2] = luma.shape[1], blue.shape[1], red.shape[1]
    failed = turbo.decompress_to_planes(
        np.uint64(handle),
        np.uint64(jpeg.ctypes.data),
        np.uint64(len(jpeg)),
        np.uint64(planes.ctypes.data),
        np.int32(width),
        np.uint64(strides.ctypes.data),
        np.int32(height),
        np.int32(turbo.STRICT),
    )
    return failed == 0, luma, blue, red, memory


@kernel
def _scaled(length: Any, scale: Any) -> Any:
    return (length + scale - 1) // scale


@kernel
def _plane(width: Any, height: Any, h: Any, v: Any, memory: Array) -> Any:
    """Room for a plane, padded as TurboJPEG pads it."""
    stride = (width + h + _ROW - 1) // _ROW * _ROW
    rows = (height + v - 1) // v * v
    found, memory = carve(memory, stride * rows)
    return found.reshape(rows, stride), memory


@kernel
def planes_bytes(head: Record, cut: Record) -> Any:
    """Scratch for `decode_planes`: three full planes, as under a map the sampling may change before it is decoded."""
    width, height = _scaled(cut["width"], cut["scale"]), _scaled(cut["height"], cut["scale"])
    return 3 * ((width + 4 + _ROW) * (height + 4) + _ROW) + 64


@kernel
def coefficient_bytes(head: Record) -> Any:
    """What libjpeg keeps of a picture whose coefficients come in several scans: all of them, whatever is made of it."""
    if head["kind"] == SEQUENTIAL and head["one_scan"] == 1:
        return 0
    blocks = 0
    for i in range(head["components"]):
        blocks += head["h"][i] * head["v"][i]
    return blocks * head["columns"] * head["rows"] * _BLOCK_BYTES


@kernel
def crop_bytes(found: Array, cut: Record) -> Any:
    """Scratch for the crop that needs most, once the pixels are there."""
    width, height = _scaled(cut["width"], cut["scale"]), _scaled(cut["height"], cut["scale"])
    most = 0
    for k in range(len(found)):
        most = max(most, crop.scratch_bytes(width, height, found[k]["width"], found[k]["height"]))
    return most + 128


@kernel
def _shift(box: Record, cut: Record, memory: Array) -> Any:
    """A box of the picture and its clip, in pixels of the part of it that was decoded."""
    words, memory = carve(memory, 64)
    corners, clip = words[:32].view(np.float64), words[32:].view(np.int64)
    scale = np.float64(cut["scale"])
    corners[0], corners[1] = (box["left"] - cut["left"]) / scale, (box["top"] - cut["top"]) / scale
    corners[2], corners[3] = (box["right"] - cut["left"]) / scale, (box["bottom"] - cut["top"]) / scale
    clip[0] = max(0, np.int64(np.floor((box["low_x"] - cut["left"]) / scale)))
    clip[1] = max(0, np.int64(np.floor((box["low_y"] - cut["top"]) / scale)))
    clip[2] = _scaled(min(cut["width"], box["high_x"] - cut["left"]), cut["scale"])
    clip[3] = _scaled(min(cut["height"], box["high_y"] - cut["top"]), cut["scale"])
    return corners, clip, memory


@kernel
def fits(crops: Array, found: Array, targets: Array, row: Any) -> Any:
    """Whether the bank has room for just these crops in this row: a picture may have changed since it was measured."""
    for k in range(len(found)):
        height, width = found[k]["height"], found[k]["width"]
        offsets = targets[k]["offsets"] + np.uint64(8 * row)
        if targets[k]["offsets"] == 0:
            if height != crops[k]["height"] or width != crops[k]["width"]:
                return False
        elif load_int64(offsets + np.uint64(8)) - load_int64(offsets) != whole_bytes(
            height, width, targets[k]["item_bytes"]
        ):
            return False
    return True


@kernel
def whole_bytes(height: Any, width: Any, item_bytes: Any) -> Any:
    """How long a row is that begins with its size: a multiple of eight."""
    return SIZE_BYTES + (3 * height * width * item_bytes + 7) // 8 * 8


@kernel
def _place_of(target: Record, box: Record, row: Any) -> Any:
    """A crop's place in the bank, as bytes."""
    size = 3 * box["height"] * box["width"] * target["item_bytes"]
    if target["offsets"] == 0:
        return view_bytes(target["address"] + np.uint64(row * size), size)
    begin = target["address"] + np.uint64(load_int64(target["offsets"] + np.uint64(8 * row)))
    sides = view_bytes(begin, SIZE_BYTES).view(np.uint32)
    sides[0], sides[1] = box["height"], box["width"]
    return view_bytes(begin + np.uint64(SIZE_BYTES), size)


@kernel
def crop_rgb(pixels: Array, cut: Record, found: Array, tables: Array, targets: Array, row: Any, memory: Array) -> None:
    """All crops of pixels in red, green and blue, into their places."""
    for k in range(len(found)):
        corners, clip, rest = _shift(found[k], cut, memory)
        shape = (found[k]["height"], found[k]["width"])
        flip, last = found[k]["flip"] == 1, targets[k]["channels_last"] == 1
        crop.rgb(pixels, corners, clip, flip, tables[k], shape, last, rest, _place_of(targets[k], found[k], row))


@kernel
def _crop_planes(
    sources: tuple[Array, Array, Array],
    factors: tuple[int, int],
    cut: Record,
    found: Array,
    tables: Array,
    targets: Array,
    row: Any,
    memory: Array,
) -> None:
    """All crops of planes, into their places."""
    for k in range(len(found)):
        corners, clip, rest = _shift(found[k], cut, memory)
        shape = (found[k]["height"], found[k]["width"])
        flip, last = found[k]["flip"] == 1, targets[k]["channels_last"] == 1
        out = _place_of(targets[k], found[k], row)
        crop.planes(sources, factors, corners, clip, flip, tables[k], shape, last, rest, out)


@kernel
def cut_out(data: Array, crops: Array, draws: Array, exact: Any, desk: Record, found: Array, memory: Array) -> Any:
    """What a decoder that gives red, green and blue has to decode of a JPEG, if that are tiles.

    How many bytes of scratch a JPEG of them has; 0 if it is all of `data`, else a status below zero.
    """
    head, cut = desk["head"], desk["cut"]
    if read_head(data, head) != HEAD_OK:
        return -OTHER
    if head["colours"] == CMYK or head["colours"] == YCCK or has_too_many_scans(data, head):
        return -REFUSED
    find_cut(data, head, crops, draws, found, exact or head["colours"] != YCBCR, False, _PAD, cut)
    if cut["how"] != TILES:
        return 0
    if _spliced_bytes(head, cut) > len(memory):
        desk["bytes"] = _spliced_bytes(head, cut)
        return -NO_ROOM
    size = splice(data, head, data, 0, cut["tiles"], memory)
    return size if size > 0 else -REFUSED


@kernel
def place_whole(width: Any, height: Any, crops: Array, draws: Array, found: Array, cut: Record) -> None:
    """The boxes of all crops in a picture of this size that was decoded whole."""
    for k in range(len(crops)):
        find_box(crops[k], draws[k], width, height, found[k])
    cut["left"], cut["top"], cut["width"], cut["height"], cut["scale"], cut["how"] = 0, 0, width, height, 1, ALL


@kernel
def _spliced_bytes(head: Record, cut: Record) -> Any:
    """Scratch for a JPEG of the tiles that are cut out."""
    return head["entropy"] + cut["tiles"]["end"] - cut["tiles"]["begin"] + 64 if cut["how"] == TILES else 0


@kernel
def crop_yuv420(
    data: Array,
    crops: Array,
    draws: Array,
    tables: Array,
    targets: Array,
    desk: Record,
    found: Array,
    row: Any,
    memory: Array,
) -> Any:
    """All crops of planes that lie in the payload, into their places; a status."""
    height, width = size_of(data)
    if height == 0:
        return REFUSED
    place_whole(width, height, crops, draws, found, desk["cut"])
    if not fits(crops, found, targets, row):
        return REFUSED
    needed = crop_bytes(found, desk["cut"])
    if needed > len(memory):
        desk["bytes"] = needed
        return NO_ROOM
    _crop_planes(planes_of(data, height, width), _EVEN, desk["cut"], found, tables, targets, row, memory)
    return OK


@kernel
def _decode_rgb(handle: Any, jpeg: Array, cut: Record, width: Any, height: Any, pixels: Array) -> Any:
    """Red, green and blue of what is decoded; False if that failed."""
    handle, source, size = np.uint64(handle), np.uint64(jpeg.ctypes.data), np.uint64(len(jpeg))
    to, stride, form = np.uint64(pixels.ctypes.data), np.int32(3 * width), np.int32(turbo.RGB)
    if cut["how"] != REGION:
        flags = np.int32(turbo.STRICT)
        return turbo.decompress(handle, source, size, to, np.int32(width), stride, np.int32(height), form, flags) == 0
    corner = np.int64(cut["left"] // cut["scale"] | (cut["top"] // cut["scale"]) << 32)
    turbo.set_parameter(handle, np.int32(turbo.STOP_ON_WARNINGS), np.int32(1))
    turbo.set_parameter(handle, np.int32(turbo.SCAN_LIMIT), np.int32(MOST_SCANS))
    good = turbo.read_header(handle, source, size) == 0
    good = good and turbo.set_scale(handle, np.int64(1 | cut["scale"] << 32)) == 0
    good = good and turbo.set_region(handle, corner, np.int64(width | height << 32)) == 0
    good = good and turbo.decompress_region(handle, source, size, to, stride, form) == 0
    turbo.set_region(handle, np.int64(0), np.int64(0))
    return good


@kernel
def narrow_rows(
    shards: Array,
    rows: Array,
    spans: Array,
    crops: Array,
    draws: Array,
    regions: Any,
    desk: Array,
    found: Array,
    memory: Array,
) -> None:
    """Shrink the spans of tiled JPEGs that are not in memory yet to the tiles that their crops touch."""
    head, cut = desk[0]["head"], desk[0]["cut"]
    for i in range(len(rows)):
        if rows[i]["status"] != OK or rows[i]["way"] == MAPPED:
            continue
        begin, size = spans[i]["begin"], spans[i]["size"]
        data = _see_head(shards, rows[i], begin, size, head, memory)
        if len(data) == 0 or read_head(data, head) != HEAD_OK:
            continue  # whoever fills it finds out why
        if crops[0]["upright"] and orientation(data, head) != 1:
            continue
        head["size"] = size
        if has_planes(head):
            find_cut(data, head, crops, draws[i], found, False, regions, _PAD if regions else 0, cut)
            if cut["how"] == TILES:
                spans[i]["begin"] = begin + cut["tiles"]["begin"]
                spans[i]["size"] = cut["tiles"]["end"] - cut["tiles"]["begin"]


@kernel
def _see_head(shards: Array, row: Record, begin: Any, size: Any, head: Record, memory: Array) -> Any:
    """The beginning of a payload, as far as its head goes, if that is not too long; nothing if it cannot be reached."""
    seen = min(size, HEAD_BYTES)
    address = _reached(shards, row, begin, seen, memory)
    if address != 0 and seen < size and read_head(view_bytes(address, seen), head) == CUT_SHORT:
        seen = min(size, LONG_HEAD_BYTES)
        address = _reached(shards, row, begin, seen, memory)
    return view_bytes(address, seen if address != 0 else 0)


@kernel
def _reached(shards: Array, row: Record, begin: Any, size: Any, memory: Array) -> Any:
    """The address of some bytes of a shard, in its map or read into memory; 0 if they cannot be reached."""
    address = shards[row["shard"]]["base"] + np.uint64(begin)
    if row["way"] == READ:
        address = np.uint64(memory.ctypes.data)
        good = read_fully(row["file"], address, size, begin)
    else:
        good = row["way"] == MAPPED or size == 0 or populate(address, size)
    return address if good else np.uint64(0)


@kernel
def _fill_row(
    handle: Any,
    data: Array,
    part: Array,
    part_begin: Any,
    size: Any,
    row: Any,
    crops: Array,
    draws: Array,
    exact: Any,
    regions: Any,
    tables: Array,
    targets: Array,
    desk: Record,
    found: Array,
    memory: Array,
) -> Any:
    """All crops of one JPEG of `size` bytes, into their places; a status.

    `data` is all of it, or, if only a `part` was read, its head.
    """
    if is_yuv420(data):
        return crop_yuv420(data, crops, draws, tables, targets, desk, found, row, memory)
    head, cut = desk["head"], desk["cut"]
    if read_head(data, head) != HEAD_OK:
        return OTHER
    head["size"] = size
    if crops[0]["upright"] and orientation(data, head) != 1:
        return OTHER
    if head["colours"] == CMYK or head["colours"] == YCCK or has_too_many_scans(data, head):
        return REFUSED
    planar = not exact and has_planes(head)
    find_cut(data, head, crops, draws, found, not planar, regions and planar, _PAD if regions else 0, cut)
    planar = planar and cut["how"] != REGION
    if not fits(crops, found, targets, row) or (cut["how"] != TILES and len(data) < size):
        return REFUSED
    copied = _spliced_bytes(head, cut)
    need = copied + 64 + coefficient_bytes(head)
    if planar:
        need += planes_bytes(head, cut) + crop_bytes(found, cut)
    else:
        need += 3 * cut["width"] * cut["height"] + crop_bytes(found, cut)
    if need > len(memory):
        desk["bytes"] = need
        return NO_ROOM
    jpeg = data
    if cut["how"] == TILES:
        room, memory = carve(memory, copied)
        spliced = splice(data, head, part, part_begin, cut["tiles"], room)
        if spliced < 0:
            return REFUSED
        jpeg = room[:spliced]
    if planar:
        good, luma, blue, red, memory = decode_planes(handle, jpeg, head, cut, memory)
        if not good:
            return REFUSED
        factors = (head["h"][0], head["v"][0])
        _crop_planes((luma, blue, red), factors, cut, found, tables, targets, row, memory)
        return OK
    width, height = _scaled(cut["width"], cut["scale"]), _scaled(cut["height"], cut["scale"])
    pixels, memory = carve(memory, 3 * width * height)
    if not _decode_rgb(handle, jpeg, cut, width, height, pixels):
        return REFUSED
    crop_rgb(pixels.reshape(height, width, 3), cut, found, tables, targets, row, memory)
    return OK


@kernel
def fill_rows(
    shards: Array,
    rows: Array,
    payloads: Array,
    spans: Array,
    crops: Array,
    draws: Array,
    exact: Any,
    regions: Any,
    tables: Array,
    targets: Array,
    desk: Array,
    found: Array,
    memory: Array,
    start: Any,
    stop: Any,
) -> Any:
    """The crops of rows from start on; how far that went. The row it stops at has a status on the desk.

    `spans` are what is wanted of `payloads`, beside their heads.
    """
    for i in range(start, stop):
        if rows[i]["status"] != OK:
            continue
        size = payloads[i]["size"]
        part_begin, part_size = spans[i]["begin"] - payloads[i]["begin"], spans[i]["size"]
        whole = part_size == size
        read = rows[i]["way"] == READ
        first = size if whole else min(size, LONG_HEAD_BYTES)
        needed = first + (0 if whole else part_size + _ROW) if read else 0
        if needed > len(memory):
            desk[0]["status"], desk[0]["bytes"] = NO_ROOM, needed
            return i
        room, left = carve(memory, first if read else 0)
        if whole:
            address = _reached(shards, rows[i], payloads[i]["begin"], size, room)
            data = view_bytes(address, size if address != 0 else 0)
            part = data
        else:
            data = _see_head(shards, rows[i], payloads[i]["begin"], size, desk[0]["head"], room)
            room, left = carve(left, part_size if read else 0)
            address = _reached(shards, rows[i], spans[i]["begin"], part_size, room)
            part = view_bytes(address, part_size if address != 0 else 0)
        if address == 0 or len(data) == 0:
            rows[i]["status"] = READ_FAILED
            continue
        handle = turbo.open_handle()  # a new one is quickly made, and has no tables of another picture
        if handle == 0:
            rows[i]["status"] = REFUSED
            continue
        status = _fill_row(
            handle,
            data,
            part,
            part_begin,
            size,
            i,
            crops,
            draws[i],
            exact,
            regions,
            tables,
            targets,
            desk[0],
            found,
            left,
        )
        turbo.close_handle(handle)
        if status in (NO_ROOM, OTHER):
            desk[0]["status"] = status
            desk[0]["bytes"] += len(memory) - len(left)
            return i
        rows[i]["status"] = status
    return stop


@kernel
def measure_rows(
    shards: Array, rows: Array, spans: Array, item_bytes: Any, desk: Array, memory: Array, most: Any, sizes: Array
) -> None:
    """How long the rows of whole pictures will be, from their heads; UNKNOWN_SIZE where a kernel cannot tell.

    One that would be longer than `most` is refused.
    """
    for i in range(len(rows)):
        sizes[i] = 0
        if rows[i]["status"] != OK:
            continue
        begin, size = spans[i]["begin"], spans[i]["size"]
        seen = min(size, len(memory))
        address = _reached(shards, rows[i], begin, seen, memory)
        if address == 0:
            rows[i]["status"] = READ_FAILED
            continue
        height, width = _sides(view_bytes(address, seen), desk[0]["head"])
        if height == 0 or width == 0:
            sizes[i] = UNKNOWN_SIZE
        elif height > most // width // (3 * item_bytes):  # a product of what is claimed may be beyond any number
            rows[i]["status"] = REFUSED
        else:
            sizes[i] = whole_bytes(height, width, item_bytes)


@kernel
def _sides(data: Array, head: Record) -> Any:
    """Height and width of a picture, from its beginning; 0 and 0 where that does not tell."""
    if is_yuv420(data):
        return claimed_size(data)
    if is_png(data):
        return _uint32(data, 20), _uint32(data, 16)
    read_head(data, head)
    return head["height"], head["width"]


@kernel
def is_png(data: Array) -> Any:
    """Whether it begins as a PNG does, with its size."""
    same = len(data) >= 24
    for i in range(len(_PNG)):
        same = same and data[i] == _PNG[i]
    for i in range(len(_IHDR)):
        same = same and data[12 + i] == _IHDR[i]
    return same


@kernel
def _uint32(data: Array, at: Any) -> Any:
    """The big-endian number there."""
    number = np.int64(0)
    for i in range(4):
        number = number << 8 | np.int64(data[at + i])
    return number
