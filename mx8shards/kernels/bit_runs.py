"""How are the bits of a JPEG's entropy-coded data copied: byte unstuffing, runs of bits, byte stuffing?

JPEG stuffs a zero byte after each 0xFF of entropy-coded data. The stuffed zeros of one restart interval are removed,
runs of its bits are appended to an output buffer, 56 bits at a time, and zeros are stuffed into the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import helper
from mx8shards.kernels.jpeg import NO_ROOM, copy

Array = npt.NDArray[Any]


@helper
def load_word(bits: Array, at: Any) -> Any:
    """Read eight bytes as a big-endian integer. LLVM turns this form into a single instruction."""
    return (
        np.uint64(bits[at]) << np.uint64(56)
        | np.uint64(bits[at + np.uint64(1)]) << np.uint64(48)
        | np.uint64(bits[at + np.uint64(2)]) << np.uint64(40)
        | np.uint64(bits[at + np.uint64(3)]) << np.uint64(32)
        | np.uint64(bits[at + np.uint64(4)]) << np.uint64(24)
        | np.uint64(bits[at + np.uint64(5)]) << np.uint64(16)
        | np.uint64(bits[at + np.uint64(6)]) << np.uint64(8)
        | np.uint64(bits[at + np.uint64(7)])
    )


@helper
def store_word(out: Array, at: Any, word: Any) -> None:
    """Write an integer as eight big-endian bytes."""
    for i in range(8):
        out[at + np.uint64(i)] = word >> np.uint64(56 - 8 * i) & np.uint64(255)


@helper
def _has_ff(word: Any) -> Any:
    """Whether at least one of the eight bytes is 0xFF."""
    return (~word - np.uint64(0x0101010101010101)) & word & np.uint64(0x8080808080808080) != 0


@helper
def append_bits(out: Array, filled: Any, bits: Any) -> None:
    """Write the 56 most significant of 64 `bits` to `out`, at bit position `filled`. Later bits are overwritten."""
    at = np.uint64(filled >> 3)
    shift = np.uint64(filled & 7)
    kept = np.uint64(out[at]) & (np.uint64(0xFF00) >> shift)
    store_word(out, at, kept << np.uint64(56) | bits >> shift)


@helper
def append_run(bits: Array, begin: Any, end: Any, out: Array, filled: Any) -> Any:
    """Append bits [begin, end) to `out`; return the new number of bits, or -NO_ROOM if fewer than 64 more would fit."""
    if filled + end - begin + 128 > 8 * len(out):
        return -NO_ROOM
    for at in range(begin, end, 56):
        append_bits(out, filled, load_word(bits, np.uint64(at >> 3)) << np.uint64(at & 7))
        filled += min(56, end - at)
    return filled


@helper
def _find_ff(data: Array, at: Any, end: Any) -> Any:
    """The offset of the next 0xFF, or `end`."""
    while at + np.uint64(8) <= end and not _has_ff(load_word(data, at)):
        at += np.uint64(8)
    while at < end and data[at] != 0xFF:
        at += np.uint64(1)
    return at


@helper
def unstuff(data: Array, at: Any, bits: Array) -> tuple[Any, Any]:
    """Copy the bytes up to the next marker without stuffed zeros; return the marker's offset and the bytes copied."""
    count = np.uint64(0)
    position = np.uint64(at)
    size = np.uint64(len(data))
    while True:
        start = position
        position = _find_ff(data, start, size)
        copy(data, start, position, bits, count)
        count += position - start
        if position + np.uint64(1) >= size or data[position + np.uint64(1)] != 0:
            return np.int64(position), np.int64(count)
        bits[count] = 0xFF
        count += np.uint64(1)
        position += np.uint64(2)


@helper
def _stuff(bits: Array, count: Any, out: Array, size: Any) -> Any:
    """Append `count` bytes to `out`, which holds `size`, with a zero after each 0xFF; return the new size."""
    to = np.uint64(size)
    position = np.uint64(0)
    end = np.uint64(count)
    while True:
        start = position
        position = _find_ff(bits, start, end)
        copy(bits, start, position, out, to)
        to += position - start
        if position == end:
            return np.int64(to)
        out[to] = 0xFF
        out[to + np.uint64(1)] = 0
        to += np.uint64(2)
        position += np.uint64(1)


@helper
def append_stuffed(bits: Array, filled: Any, padding: Any, out: Array, size: Any) -> Any:
    """Pad `filled` bits to whole bytes and append these, stuffed; return the new size of `out`, or -NO_ROOM."""
    missing = -filled & 7
    if missing > 0:
        append_bits(bits, filled, np.uint64(padding & ((1 << missing) - 1)) << np.uint64(64 - missing))
    count = (filled + missing) >> 3
    if size + 2 * count + 2 > len(out):
        return -NO_ROOM
    return _stuff(bits, count, out, size)
