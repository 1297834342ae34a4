"""Which tiles of a tiled JPEG cover a rectangle, and how are they spliced into a small JPEG?

A tile is one restart interval: `restart_interval` MCUs wide and one MCU row high (spec §14). Tiles are copied without
being decoded. The tile index is checked against the size of the data before it is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import BYTES, INT, MEMORY, helper, kernel, record
from mx8shards.kernels.jpeg import (
    BAD_TILES,
    HEAD,
    NO_ROOM,
    NOT_TILED,
    OK,
    SEQUENTIAL,
    copy,
    is_adobe,
    is_frame,
    is_jfif,
    skip_fill,
    uint16,
)

Array = npt.NDArray[Any]
Record = Any

# A rectangle of tiles: its columns and rows of tiles, its pixels, and its bytes in the file.
TILES = np.dtype(
    [
        ("column_begin", "i8"),
        ("column_end", "i8"),
        ("row_begin", "i8"),
        ("row_end", "i8"),
        ("left", "i8"),  # pixels
        ("top", "i8"),
        ("width", "i8"),
        ("height", "i8"),
        ("begin", "i8"),  # bytes, from the first tile to the last one, with all tiles between them
        ("end", "i8"),
    ]
)

# offsets in the tile index, from its marker
VERSION_AT = 12
WIDTH_AT = 13  # bytes per size, 2 or 3
PADDING_AT = 14
REST_AT = 15  # number of bytes after the last tile, uint32
SIZES_AT = 19


@kernel(INT, BYTES, record(HEAD))
def check_tiles(data: Array, head: Record) -> int:
    """Check the tile index against the picture and the file; return a status. `data` has at least the head."""
    at = head["tiles"]
    if at == 0:
        return NOT_TILED
    interval = head["restart_interval"]
    if head["kind"] != SEQUENTIAL or head["one_scan"] == 0 or interval == 0 or head["columns"] % interval != 0:
        return BAD_TILES
    if head["tiles_size"] < SIZES_AT or data[at + VERSION_AT] != 1 or not _in_order(data, head):
        return BAD_TILES
    count = head["rows"] * (head["columns"] // interval)
    width = np.int64(data[at + WIDTH_AT])
    if not 2 <= width <= 3 or head["tiles_size"] != SIZES_AT + count * width:
        return BAD_TILES
    rest = uint16(data, at + REST_AT) << 16 | uint16(data, at + REST_AT + 2)
    total = head["entropy"] + 2 * (count - 1) + rest
    for i in range(count):
        total += tile_size(data, at + SIZES_AT + i * width, width)
    return OK if rest >= 2 and total == head["size"] else BAD_TILES


@helper
def _in_order(data: Array, head: Record) -> Any:
    """Whether the tile index is followed by at most one DHT segment, then DRI, then SOS."""
    at = head["tiles"] + head["tiles_size"]
    if at < head["dri"] and data[at + 1] == 0xC4:
        at += 2 + uint16(data, at + 2)
    return at == head["dri"] and at + 6 == head["sos"]


@helper
def tile_size(data: Array, at: Any, width: Any) -> Any:
    """Read the size of a tile, in two or three bytes."""
    size = uint16(data, at)
    return size if width == 2 else size << 8 | np.int64(data[at + 2])


@kernel(INT, BYTES, record(HEAD), INT, INT, INT, INT, record(TILES))
def tiles_for(data: Array, head: Record, left: int, top: int, right: int, bottom: int, out: Record) -> int:
    """Find the smallest rectangle of tiles that covers some pixels; return a status. `data` has at least the head."""
    status = check_tiles(data, head)
    if status != OK:
        return status
    if not (0 <= left < right <= head["width"] and 0 <= top < bottom <= head["height"]):
        return BAD_TILES
    interval = head["restart_interval"]
    across = interval * head["mcu_width"]
    down = head["mcu_height"]
    columns = head["columns"] // interval
    column_begin, column_end = left // across, (right + across - 1) // across
    row_begin, row_end = top // down, (bottom + down - 1) // down
    out["column_begin"], out["column_end"] = column_begin, column_end
    out["row_begin"], out["row_end"] = row_begin, row_end
    out["left"], out["top"] = column_begin * across, row_begin * down
    out["width"] = min(column_end * across, head["width"]) - column_begin * across
    out["height"] = min(row_end * down, head["height"]) - row_begin * down
    first = row_begin * columns + column_begin
    last = (row_end - 1) * columns + column_end - 1
    out["begin"] = head["entropy"] + _bytes_of(data, head, 0, first)
    out["end"] = out["begin"] + _bytes_of(data, head, first, last + 1) - 2
    return OK


@helper
def _bytes_of(data: Array, head: Record, start: Any, stop: Any) -> Any:
    """The size of tiles [start, stop) in bytes, each with the marker that follows it."""
    width = np.int64(data[head["tiles"] + WIDTH_AT])
    at = head["tiles"] + SIZES_AT
    total = 2 * (stop - start)
    for i in range(start, stop):
        total += tile_size(data, at + i * width, width)
    return total


@kernel(INT, BYTES, record(HEAD), BYTES, INT, record(TILES), MEMORY)
def splice(data: Array, head: Record, payload: Array, payload_begin: int, tiles: Record, out: Array) -> Any:
    """Write a JPEG of some tiles to `out`; return its size, or a negative status.

    `tiles` is the result of `tiles_for`; `payload` has the bytes of the file from `payload_begin` to `tiles["end"]` at
    least, `data` at least the head. The file may have changed since `check_tiles`, so everything is checked again.
    """
    size = _splice_head(data, head, tiles, out)
    if size < 0:
        return size
    columns = head["columns"] // max(head["restart_interval"], 1)
    first = tiles["row_begin"] * columns + tiles["column_begin"]
    last = (tiles["row_end"] - 1) * columns + tiles["column_end"] - 1
    width = np.int64(data[head["tiles"] + WIDTH_AT])
    sizes = head["tiles"] + SIZES_AT
    if not (2 <= width <= 3 and 0 <= first <= last < head["rows"] * columns):
        return -BAD_TILES
    if sizes + (last + 1) * width > len(data):
        return -BAD_TILES
    at = tiles["begin"] - payload_begin
    number = 0
    for i in range(first, last + 1):
        end = at + tile_size(data, sizes + i * width, width)
        if at < 0 or end + (2 if i < last else 0) > len(payload):
            return -BAD_TILES
        if i < last and not (payload[end] == 0xFF and payload[end + 1] == 0xD0 + i % 8):
            return -BAD_TILES
        if tiles["column_begin"] <= i % columns < tiles["column_end"]:
            if size + (end - at) + 2 > len(out):
                return -NO_ROOM
            copy(payload, at, end, out, size)
            size += end - at
            out[size] = 0xFF
            out[size + 1] = 0xD9 if i == last else 0xD0 + number % 8
            size += 2
            number += 1
        at = end + 2
    return size


@helper
def _splice_head(data: Array, head: Record, tiles: Record, out: Array) -> Any:
    """Copy the segments that affect decoding, with the tiles' size as frame size; their size, or a negative status."""
    if len(out) < 2:
        return -NO_ROOM
    out[0] = 0xFF
    out[1] = 0xD8
    size = 2
    at = 2
    while True:
        at = skip_fill(data, at)
        if at + 4 > len(data) or at > head["sos"]:
            return -BAD_TILES
        marker = data[at + 1]
        end = at + 2 + uint16(data, at + 2)
        if end > len(data) or end < at + 4:
            return -BAD_TILES
        if _affects_decoding(data, at):
            if size + end - at > len(out):
                return -NO_ROOM
            copy(data, at, end, out, size)
            if is_frame(marker) and end >= at + 9:
                out[size + 5] = tiles["height"] >> 8
                out[size + 6] = tiles["height"] & 255
                out[size + 7] = tiles["width"] >> 8
                out[size + 8] = tiles["width"] & 255
            size += end - at
        if marker == 0xDA:
            return size
        at = end


@helper
def _affects_decoding(data: Array, at: int) -> bool:
    """Whether a decoder needs this segment. Of APPn and comments, only JFIF and Adobe affect colours."""
    marker = data[at + 1]
    if marker < 0xE0:
        return True
    return is_jfif(data, at) or is_adobe(data, at)
