"""How is a random permutation of range(n) computed from a key, without an array of n? (spec §12.1, §12.2)

A Feistel network permutes a grid of a·2^k cells, slightly more than n, with cycle walking: a result outside range(n) is
fed back until it is inside. This is a permutation for any round function, and each position is computed on its own. All
arithmetic is on wrapping uint64, so that a kernel computes identical bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SettingError

Ids = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

LARGEST = 1 << 62  # rows and columns then have 31 bits, and no product overflows
WORDS = 25  # key words: one for each round of a small permutation, and the last for the tweaks of a family

# With 5 rounds above 4096 elements and 20 below, the tests in tests/property/test_order_statistics.py cannot
# distinguish the order from numpy.random's; 10 and 24 add a margin. Small grids need more rounds, as each round has few
# bits as input.
_SMALL = 1 << 12
_ROUNDS_SMALL = 24
_ROUNDS = 10

# The constants of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)

_RUN = 1 << 15  # positions per pass: the five arrays then fit into a core's cache


# walk(cells, count, rows, bits, words, out): apply the network to each cell until the result is below count
Walk = Callable[[Words, np.uint64, np.uint64, np.uint64, Words, Words], None]


class Permutation:
    """The permutation of range(count) that `words` select. A compiled `walk` takes a fifth of the time."""

    def __init__(self, count: int, words: Words, walk: Walk | None = None) -> None:
        self._walked = walk or walked
        self._count = checked_count(count)
        rows, bits = _grid(np.array([count], np.int64))
        self._rows, self._bits = rows[0], bits[0]
        # This is number 0 of a family: its tweak is mixed into the words once, which saves an operation per round.
        self._words = words[: WORDS - 1] ^ _tweaks(1, words)[0]

    def __len__(self) -> int:
        return self._count

    def of(self, positions: Ids) -> Ids:
        """The values at these positions, which must be in range(count)."""
        out = np.empty(len(positions), np.int64)
        words = self._words[: _rounds(self._count)]
        for start in range(0, len(positions), _RUN):
            cells = positions[start : start + _RUN].astype(np.uint64)
            found = out[start : start + _RUN].view(np.uint64)
            self._walked(cells, np.uint64(self._count), self._rows, self._bits, words, found)
        return out


def walked(cells: Words, count: np.uint64, rows: np.uint64, bits: np.uint64, words: Words, out: Words) -> None:
    """A `Walk` in NumPy."""
    out[:] = _feistel(cells, rows, bits, None, words)
    outside = np.flatnonzero(out >= count)
    while outside.size:
        out[outside] = _feistel(out[outside], rows, bits, None, words)
        outside = outside[out[outside] >= count]


class Permutations:
    """A family of permutations selected by one set of words: number t permutes range(counts[t])."""

    def __init__(self, counts: Ids, words: Words) -> None:
        self._counts = counts.astype(np.uint64)
        self._rows, self._bits = _grid(counts)
        self._tweaks = _tweaks(len(counts), words)
        self._words = words

    def of(self, numbers: Ids, positions: Ids) -> Ids:
        """For each i, the value at positions[i] of permutation number numbers[i]."""
        out = np.empty(len(positions), np.int64)
        small = self._counts[numbers] <= _SMALL
        for rounds, these in ((_ROUNDS_SMALL, np.flatnonzero(small)), (_ROUNDS, np.flatnonzero(~small))):
            for start in range(0, len(these), _RUN):
                run = these[start : start + _RUN]
                out[run] = self._walk(numbers[run], positions[run].astype(np.uint64), rounds).view(np.int64)
        return out

    def _walk(self, numbers: Ids, cells: Words, rounds: int) -> Words:
        counts = self._counts[numbers]
        found = self._once(numbers, cells, rounds)
        outside = np.flatnonzero(found >= counts)
        while outside.size:
            found[outside] = self._once(numbers[outside], found[outside], rounds)
            outside = outside[found[outside] >= counts[outside]]
        return found

    def _once(self, numbers: Ids, cells: Words, rounds: int) -> Words:
        grid = self._rows[numbers], self._bits[numbers]
        return _feistel(cells, *grid, self._tweaks[numbers], self._words[:rounds])


def checked_count(count: int) -> int:
    """The count, if it is in the range that permutations support; otherwise SettingError."""
    if not 0 <= count <= LARGEST:
        raise SettingError(subject="count", expected="an int from 0 to 2**62", found=f"{count}")
    return count


def _rounds(count: int) -> int:
    return _ROUNDS_SMALL if count <= _SMALL else _ROUNDS


def _grid(counts: Ids) -> tuple[Words, Words]:
    """Rows a and column bits k of the smallest grid with a·2^k >= count, where k is half of the count's bits."""
    left = np.maximum(counts - 1, 0)
    bits = np.zeros(len(counts), np.int64)
    for shift in (32, 16, 8, 4, 2, 1):
        more = left >> shift != 0
        bits += shift * more
        left = np.where(more, left >> shift, left)
    bits = (bits + left + 1) >> 1  # `left` is now the highest set bit: 1, or 0 for a count of at most 1
    return (-(-counts >> bits)).astype(np.uint64), bits.astype(np.uint64)


def _tweaks(count: int, words: Words) -> Words:
    """A tweak for each number of a family: the output of SplitMix64, seeded by the last word."""
    z = np.arange(count, dtype=np.uint64) * _GOLDEN + words[WORDS - 1 : WORDS]
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    mixed: Words = z ^ (z >> np.uint64(31))
    return mixed


def _feistel(cells: Words, rows: Any, bits: Any, tweaks: Words | None, words: Words) -> Words:
    """One pass of the network over the cells. `rows` and `bits` are one word for all cells, or one word per cell."""
    mask = (np.uint64(1) << bits) - np.uint64(1)
    drop = _HALF - bits
    row, column = cells >> bits, cells & mask
    h, other = np.empty_like(cells), np.empty_like(cells)
    for i, word in enumerate(words):
        np.bitwise_xor(column if i % 2 == 0 else row, word, out=h)
        if tweaks is not None:
            h ^= tweaks
        h *= _FIRST
        np.right_shift(h, _HALF, out=other)
        h ^= other
        h *= _SECOND
        h >>= _HALF
        if i % 2 == 0:
            h *= rows
            h >>= _HALF
            row += h
            np.subtract(row, rows, out=other)  # a negative difference wraps and is then the larger of the two
            np.minimum(row, other, out=row)
        else:
            h >>= drop
            column += h
            column &= mask
    found: Words = row << bits | column
    return found
