"""Which number stands where in a shuffle? The order room's Feistel network, one number after the other (spec §12.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import kernel

Array = npt.NDArray[Any]

_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
_ONE = np.uint64(1)


@kernel
def walk(cells: Array, count: Any, rows: Any, bits: Any, words: Array, out: Array) -> None:
    """Where each of these cells goes, again and again until that is below `count`. All of it is uint64."""
    mask = (_ONE << bits) - _ONE
    drop = _HALF - bits
    for i in range(len(cells)):
        cell = cells[i]
        while True:
            row = cell >> bits
            column = cell & mask
            for k in range(len(words) // 2):
                h = (column ^ words[2 * k]) * _FIRST
                h = ((h ^ (h >> _HALF)) * _SECOND) >> _HALF
                row += (h * rows) >> _HALF
                row = min(row, row - rows)  # below zero it wraps and is the larger one
                h = (row ^ words[2 * k + 1]) * _FIRST
                h = ((h ^ (h >> _HALF)) * _SECOND) >> _HALF
                column = (column + (h >> drop)) & mask
            cell = row << bits | column
            if cell < count:
                break
        out[i] = cell
