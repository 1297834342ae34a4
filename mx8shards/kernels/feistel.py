"""How does a shuffle permute numbers? A vectorised Feistel network with cycle walking (spec §12.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import NOTHING, UINT, array, helper, kernel

Array = npt.NDArray[Any]

_WORDS = array(np.uint64)  # a type

_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
_ONE = np.uint64(1)

_BLOCK = 512  # numbers that go through all rounds together: their halves fit into a core's L1 cache


@kernel(NOTHING, _WORDS, UINT, UINT, UINT, array(np.uint64, readonly=True), _WORDS)
def walk(cells: Array, count: Any, rows: Any, bits: Any, words: Array, out: Array) -> None:
    """Map each number in `cells`, repeatedly until the result is below `count`, and write the results to `out`.

    All numbers are uint64. `cells` is overwritten.
    """
    for start in range(0, len(cells), _BLOCK):
        stop = min(start + _BLOCK, len(cells))
        _pass(cells[start:stop], rows, bits, words, out[start:stop])
        for i in range(start, stop):
            while out[i] >= count:
                cells[i] = out[i]
                _pass(cells[i : i + 1], rows, bits, words, out[i : i + 1])


@helper
def _pass(cells: Array, rows: Any, bits: Any, words: Array, out: Array) -> None:
    """Apply all rounds once. Between rounds, `out` holds the row of each number and `cells` its column."""
    mask = (_ONE << bits) - _ONE
    drop = _HALF - bits
    for i in range(len(cells)):
        out[i] = cells[i] >> bits
        cells[i] &= mask
    for k in range(len(words) // 2):
        for i in range(len(cells)):
            h = (cells[i] ^ words[2 * k]) * _FIRST
            h = ((h ^ (h >> _HALF)) * _SECOND) >> _HALF
            row = out[i] + ((h * rows) >> _HALF)
            out[i] = min(row, row - rows)  # row modulo rows: a negative difference wraps to a large number
        for i in range(len(cells)):
            h = (out[i] ^ words[2 * k + 1]) * _FIRST
            h = ((h ^ (h >> _HALF)) * _SECOND) >> _HALF
            cells[i] = (cells[i] + (h >> drop)) & mask
    for i in range(len(cells)):
        out[i] = out[i] << bits | cells[i]
