"""How are the bits of entropy-coded data read and written: unpacked from bytes, moved in runs, and packed again?

Unpacked bits are those of one restart interval without the zero that is stuffed behind each 0xFF. Bits are written 56
at a time behind those that are there.
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
    """Eight bytes as a big-endian number: written like this, it is one instruction."""
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
    """Write eight bytes as a big-endian number."""
    for i in range(8):
        out[at + np.uint64(i)] = word >> np.uint64(56 - 8 * i) & np.uint64(255)


@helper
def _has_ones(word: Any) -> Any:
    """Whether one of eight bytes is 0xFF."""
    return (~word - np.uint64(0x0101010101010101)) & word & np.uint64(0x8080808080808080) != 0


@helper
def append_bits(out: Array, filled: Any, window: Any) -> None:
    """Write the highest 56 of 64 bits behind so many bits that are there. What stood there is lost."""
    at = np.uint64(filled >> 3)
    shift = np.uint64(filled & 7)
    kept = np.uint64(out[at]) & (np.uint64(0xFF00) >> shift)
    store_word(out, at, kept << np.uint64(56) | window >> shift)


@helper
def append_run(bits: Array, begin: Any, end: Any, out: Array, filled: Any) -> Any:
    """Append the bits from `begin` to before `end`; how many are there then, or -NO_ROOM: 64 more must fit as well."""
    if filled + end - begin + 128 > 8 * len(out):
        return -NO_ROOM
    for at in range(begin, end, 56):
        append_bits(out, filled, load_word(bits, np.uint64(at >> 3)) << np.uint64(at & 7))
        filled += min(56, end - at)
    return filled


@helper
def _next_ones(data: Array, at: Any, end: Any) -> Any:
    """Where the next 0xFF is, or the end."""
    while at + np.uint64(8) <= end and not _has_ones(load_word(data, at)):
        at += np.uint64(8)
    while at < end and data[at] != 0xFF:
        at += np.uint64(1)
    return at


@helper
def unpack(data: Array, at: Any, bits: Array) -> tuple[Any, Any]:
    """The bytes up to the next marker without what is stuffed between them: where that is, and how many they are."""
    count = np.uint64(0)
    place = np.uint64(at)
    size = np.uint64(len(data))
    while True:
        start = place
        place = _next_ones(data, start, size)
        copy(data, start, place, bits, count)
        count += place - start
        if place + np.uint64(1) >= size or data[place + np.uint64(1)] != 0:
            return np.int64(place), np.int64(count)
        bits[count] = 0xFF
        count += np.uint64(1)
        place += np.uint64(2)


@helper
def _pack(bits: Array, count: Any, out: Array, size: Any) -> Any:
    """Append so many bytes, with a zero behind each 0xFF; the size of `out` then."""
    to = np.uint64(size)
    place = np.uint64(0)
    end = np.uint64(count)
    while True:
        start = place
        place = _next_ones(bits, start, end)
        copy(bits, start, place, out, to)
        to += place - start
        if place == end:
            return np.int64(to)
        out[to] = 0xFF
        out[to + np.uint64(1)] = 0
        to += np.uint64(2)
        place += np.uint64(1)


@helper
def append_packed(bits: Array, filled: Any, padding: Any, out: Array, size: Any) -> Any:
    """Pad bits to whole bytes and append them; the size of `out` then, or -NO_ROOM if there is no room."""
    missing = -filled & 7
    if missing > 0:
        append_bits(bits, filled, np.uint64(padding & ((1 << missing) - 1)) << np.uint64(64 - missing))
    count = (filled + missing) >> 3
    if size + 2 * count + 2 > len(out):
        return -NO_ROOM
    return _pack(bits, count, out, size)
