"""How is a JPEG divided into tiles (restart intervals with an index), and how are its original bytes restored?

    tile      insert restart markers, so that tiles of about 64 pixels x 1 MCU row can be decoded alone
    untile    restore the original bytes

Tiling keeps the coefficients, so every decoder gives equal pixels, and makes files about one per cent larger. Some
JPEGs are left unchanged: progressive, arithmetic-coded or CMYK files, several scans, and all files that untiling would
not restore exactly.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError
from mx8shards.kernels import huffman_tables, recoding
from mx8shards.kernels.jpeg import HEAD, OK, SEQUENTIAL, TILES_MAGIC, TILES_MARKER, read_head
from mx8shards.kernels.jpeg_tiles import PADDING_AT, REST_AT, check_tiles

_TILE_PIXELS = 64
_LEAST_PIXELS = 32
_MOST_BLOCKS = 10  # per MCU
_SEGMENT_BYTES = 65_535
_FIXED_BYTES = 17  # of the tile index, without its marker and the sizes of tiles
_EOI = b"\xff\xd9"
_KEPT_BYTES = 16 << 20  # of scratch that a thread keeps for reuse
_ONES = 127  # padding of the intervals that are written: one bits


def tile(jpeg: bytes) -> bytes:
    """Tile a JPEG; return it unchanged if it cannot be tiled and restored."""
    # Untiling decodes the coefficients of the tiled JPEG and encodes them again. If the result equals the source, the
    # tiled JPEG has the coefficients of the source, because different coefficients have different encodings.
    tiled = _tiled(jpeg)
    try:
        return tiled if tiled is not None and untile(tiled) == jpeg else jpeg
    except DecodeError:
        return jpeg


def is_whole(jpeg: bytes) -> bool:
    """Whether a JPEG is undamaged, by decoding all its coefficients; also False for a JPEG that cannot be tiled."""
    data, head, status = _head(jpeg)
    if status != OK or not _can_be_tiled(head):
        return False
    recoded = _recode(data, head, int(head["restart_interval"]), _ONES)
    return recoded is not None and jpeg[recoded.end : recoded.end + 2] == _EOI


def is_tiled(jpeg: bytes) -> bool:
    """Whether a JPEG has a tile index that matches it."""
    data, head, status = _head(jpeg)
    return status == OK and check_tiles(data, head) == OK


def untile(jpeg: bytes) -> bytes:
    """Restore the JPEG from before tiling; a JPEG without tiles is returned unchanged. DecodeError if it is damaged."""
    data, head, status = _head(jpeg)
    if status != OK or check_tiles(data, head) != OK:
        return jpeg
    before = jpeg[: head["tiles"]] + jpeg[head["sos"] : head["entropy"]]
    _, source, status = _head(before)
    at = int(head["tiles"])
    recoded = _recode(data, head, int(source["restart_interval"]), jpeg[at + PADDING_AT])
    ours = recoded is not None and recoded.padding == _ONES & ((1 << recoded.padded) - 1)
    rest = int.from_bytes(jpeg[at + REST_AT : at + REST_AT + 4], "big")
    if status != OK or recoded is None or not ours or recoded.end + rest != len(jpeg):
        raise DecodeError("a tiled JPEG whose data is damaged")
    return b"".join((before, recoded.entropy, jpeg[recoded.end :]))


def _head(jpeg: bytes) -> tuple[npt.NDArray[np.uint8], Any, int]:
    data = np.frombuffer(jpeg, np.uint8)
    head: Any = np.zeros(1, HEAD)[0]
    return data, head, read_head(data, head)


class _Scratch(threading.local):
    """Scratch of each thread, which is reused: allocating pages for each picture would cost more than the tables."""

    def __init__(self) -> None:
        self.tables = np.zeros(8, huffman_tables.HUFFMAN)
        self.lookups = np.empty((12, 1 << huffman_tables.PEEK), np.uint32)
        self._bytes = np.empty(0, np.uint8)

    def buffers(self, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Two buffers of `size` bytes, and one of twice that size."""
        block = self._bytes if len(self._bytes) >= 4 * size else np.empty(4 * size, np.uint8)
        self._bytes = block if len(block) <= _KEPT_BYTES else self._bytes
        return block[:size], block[size : 2 * size], block[2 * size : 4 * size]


_scratch = _Scratch()


class _Recoded(NamedTuple):
    """Entropy-coded data with another restart interval."""

    entropy: memoryview  # over scratch: valid until this thread recodes the next JPEG
    sizes: npt.NDArray[np.int64]  # of the intervals
    end: int  # of the entropy-coded data in the source
    padding: int  # of the intervals in the source
    padded: int  # number of bits of `padding` that are known
    tables: bytes  # a DHT segment with the tables to which codes were added, or b""


def _recode(data: npt.NDArray[np.uint8], head: Any, interval: int, padding: int) -> _Recoded | None:
    """Change the restart interval of the entropy-coded data; None if that is impossible."""
    tables, lookups = _scratch.tables, _scratch.lookups
    if head["columns"] * head["rows"] > 4 * len(data):  # a block takes at least two bits
        return None
    if huffman_tables.prepare(data, head, tables, lookups) != OK:
        return None
    count = _intervals(head, interval)
    sizes, found = np.zeros(count, np.int64), np.zeros(recoding.FOUND, np.int64)
    most = max(count, _intervals(head, int(head["restart_interval"])))  # each may have three longer DC coefficients
    buffers = _scratch.buffers(len(data) + 16 * most + recoding.SPARE)
    size = recoding.recode(data, head, (tables, lookups), interval, padding, buffers, sizes, found)
    if size < 0:
        return None
    end, seen, known = (int(found[i]) for i in (recoding.END, recoding.PADDING, recoding.PADDED))
    extended = _table_segment(tables[:4]) if found[recoding.USED] else b""
    return _Recoded(buffers[2][:size].data, sizes, end, seen, known, extended)


def _intervals(head: Any, interval: int) -> int:
    """The number of restart intervals in a picture."""
    return -(-int(head["columns"] * head["rows"]) // interval) if interval else 1


def _tiled(jpeg: bytes) -> bytes | None:
    """The tiled JPEG, without the check that it can be restored; None if it cannot be tiled."""
    data, head, status = _head(jpeg)
    if status != OK or not _can_be_tiled(head):
        return None
    interval = _interval(head)
    if interval is None:
        return None
    recoded = _recode(data, head, interval, _ONES)
    if recoded is None or jpeg[recoded.end : recoded.end + 2] != _EOI:
        return None
    width = 2 if recoded.sizes.max() < 1 << 16 else 3
    length = _FIXED_BYTES + width * len(recoded.sizes)
    if length > _SEGMENT_BYTES or recoded.sizes.max() >= 1 << 24:
        return None
    segment = [
        bytes((0xFF, TILES_MARKER)) + length.to_bytes(2, "big") + TILES_MAGIC + bytes((1, width, recoded.padding)),
        (len(jpeg) - recoded.end).to_bytes(4, "big"),
        recoded.sizes.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 4 - width :].tobytes(),
    ]
    restart = b"\xff\xdd\0\4" + interval.to_bytes(2, "big")
    sos, entropy = head["sos"], head["entropy"]
    before = [jpeg[:sos], *segment, recoded.tables, restart, jpeg[sos:entropy]]
    return b"".join((*before, recoded.entropy, jpeg[recoded.end :]))


def _can_be_tiled(head: Any) -> bool:
    """Whether a JPEG has the form that tiles require (spec §14): sequential, one scan, one or three components."""
    several = head["components"] == 3 and (head["h"] * head["v"]).sum() <= _MOST_BLOCKS
    usual = head["kind"] == SEQUENTIAL and head["one_scan"] and (several or head["components"] == 1)
    return bool(usual and head["tiles"] == 0 and head["size"] < 1 << 32)


def _interval(head: Any) -> int | None:
    """The MCUs per tile: a divisor of the MCUs per row, large enough that all sizes fit into one segment; or None."""
    columns, rows, across = int(head["columns"]), int(head["rows"]), int(head["mcu_width"])
    fitting = [
        n
        for n in range(1, columns + 1)
        if columns % n == 0
        and (n * across >= _LEAST_PIXELS or n == columns)
        and rows * (columns // n) * 2 + _FIXED_BYTES <= _SEGMENT_BYTES
    ]
    nearest = min(fitting, key=lambda n: max(n * across / _TILE_PIXELS, _TILE_PIXELS / (n * across)), default=None)
    return None if nearest == rows * columns else nearest


def _table_segment(tables: npt.NDArray[Any]) -> bytes:
    """A DHT segment with the tables to which codes were added."""
    text = b""
    for number, table in enumerate(tables):
        if table["added"]:
            text += bytes((number, *table["counts"][1:].tolist(), *table["symbols"][: table["total"]].tolist()))
    return b"\xff\xc4" + (2 + len(text)).to_bytes(2, "big") + text
