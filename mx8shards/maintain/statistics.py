"""How are the numbers of a column distributed: range, mean, histogram?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_VALUES = 64
BINS = 20

_STEP = 1 << 20  # numbers handled at a time

Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The distribution of a column of numbers. NaN and infinities are counted only in `not_finite`."""

    minimum: Number | None
    maximum: Number | None
    mean: float | None
    not_finite: int
    values: dict[Number, int] | None  # count of each value; None if there are too many
    bins: tuple[tuple[float, float, int], ...] | None  # (begin, end, count) of 20 equal ranges if `values` is None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: `values` becomes a list of [value, count]."""
        values = None if self.values is None else [list(pair) for pair in self.values.items()]
        return dataclasses.asdict(self) | {"values": values}


def describe(numbers: npt.NDArray[Any], most_values: int = MAX_VALUES) -> Numbers:
    """The distribution of an array of numbers. Counts each value if at most `most_values` different ones occur."""
    least, most, total, count = _bounds(numbers)
    if least is None or most is None:
        return Numbers(minimum=None, maximum=None, mean=None, not_finite=len(numbers), values={}, bins=None)
    values = _values(numbers, most_values)
    return Numbers(
        minimum=least,
        maximum=most,
        mean=total / count,
        not_finite=len(numbers) - count,
        values=values,
        bins=_bins(numbers, least, most) if values is None else None,
    )


def _finite_pieces(numbers: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(numbers), _STEP):
        piece = numbers[start : start + _STEP]
        yield piece[np.isfinite(piece)] if piece.dtype.kind == "f" else piece


def _bounds(numbers: npt.NDArray[Any]) -> tuple[Number | None, Number | None, float, int]:
    pieces = [
        (piece.min().item(), piece.max().item(), float(piece.sum(dtype=np.float64)), len(piece))
        for piece in _finite_pieces(numbers)
        if len(piece)
    ]
    if not pieces:
        return None, None, 0.0, 0
    least, most, sums, counts = zip(*pieces, strict=True)
    return min(least), max(most), sum(sums), sum(counts)


def _values(numbers: npt.NDArray[Any], most_values: int) -> dict[Number, int] | None:
    found: Counter[Number] = Counter()
    for piece in _finite_pieces(numbers):
        values, counts = np.unique(piece, return_counts=True)
        if len(values) > most_values:
            return None
        found.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if len(found) > most_values:
            return None
    return dict(sorted(found.items()))


def _bins(numbers: npt.NDArray[Any], least: Number, most: Number) -> tuple[tuple[float, float, int], ...]:
    # NumPy's histogram converts integers to floats before it subtracts: neighbours beyond 2**53 would coincide
    scale = 0.25 if most - least == np.inf else 1  # keeps the difference of the largest floats finite
    least, most = least * scale, most * scale
    span = most - least
    counts = np.zeros(BINS, np.int64)
    for piece in _finite_pieces(numbers):
        share = _above(piece, scale, least).astype(np.float64) / float(span)
        counts += np.bincount(np.minimum((share * BINS).astype(np.int64), BINS - 1), minlength=BINS)
    edges = [(least + span * (i / BINS)) / scale for i in range(BINS + 1)]
    return tuple((begin, end, count) for begin, end, count in zip(edges, edges[1:], counts.tolist(), strict=False))


def _above(piece: npt.NDArray[Any], scale: float, least: Number) -> npt.NDArray[Any]:
    """The difference of each number from the minimum; exact for integers."""
    if piece.dtype.kind == "f":
        return np.asarray(piece.astype(np.float64) * scale - least)
    wide = piece.astype(np.uint64 if piece.dtype.kind == "u" else np.int64).view(np.uint64)
    return np.asarray(wide - np.uint64(int(least) % (1 << 64)))  # modulo 2**64: exact, as no difference is negative
