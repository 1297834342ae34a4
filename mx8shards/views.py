"""Which sample stands at which position?

A view is a pure mapping `resolve(position, epoch, seed) → (sample_id, extras)`; positions may come one by one or as an
array. It holds no data: several views share the shards of one dataset. `extras` is what a position knows beyond its
sample (a clip's first frame, say); the views here know nothing more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Extras = Mapping[str, Any]
_P = TypeVar("_P", int, Ids)

NO_EXTRAS: Extras = {}


class View(Protocol):
    """A pure mapping from positions to samples."""

    def __len__(self) -> int:
        """How many positions there are."""

    @property
    def digest(self) -> str:
        """A hash of the mapping: equal for equal views, whatever data they are of."""

    @overload
    def resolve(self, position: int, epoch: int = 0, seed: int = 0) -> tuple[int, Extras]: ...
    @overload
    def resolve(self, position: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]: ...
    def resolve(self, position: Any, epoch: int = 0, seed: int = 0) -> tuple[Any, Extras]:
        """The sample_id at a position from 0 to before len, and what else is known of it."""


@dataclass(frozen=True)
class Whole:
    """Every sample once, in order."""

    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def digest(self) -> str:
        """A hash of the count."""
        return _digest("whole", self.count)

    def resolve(self, position: _P, epoch: int = 0, seed: int = 0) -> tuple[_P, Extras]:
        """The position itself."""
        return position, NO_EXTRAS


class Select:
    """The positions of another view that were picked, in the order they were picked, repeats included."""

    def __init__(self, base: View, positions: Sequence[int] | npt.NDArray[Any]) -> None:
        self._base = base
        self._positions = checked_positions(positions, len(base))

    def __len__(self) -> int:
        return len(self._positions)

    @cached_property
    def digest(self) -> str:
        """A hash of the positions, and of the view they are of."""
        return _digest("select", self._base.digest, hashlib.sha256(self._positions.astype("<i8").data).hexdigest())

    @overload
    def resolve(self, position: int, epoch: int = 0, seed: int = 0) -> tuple[int, Extras]: ...
    @overload
    def resolve(self, position: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]: ...
    def resolve(self, position: Any, epoch: int = 0, seed: int = 0) -> tuple[Any, Extras]:
        """What the base view has at the picked position."""
        picked = self._positions[position]
        return self._base.resolve(picked if isinstance(position, np.ndarray) else int(picked), epoch, seed)


class Join:
    """Several views one after the other, each over samples that start where those of the one before end."""

    def __init__(self, views: Sequence[tuple[View, int]]) -> None:
        self._views = tuple(views)  # with the sample_id at which the samples of each start
        self._starts = np.cumsum([0, *(len(view) for view, _ in self._views)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def digest(self) -> str:
        """A hash of the views and of where their samples start."""
        return _digest("join", *([view.digest, int(start)] for view, start in self._views))

    @overload
    def resolve(self, position: int, epoch: int = 0, seed: int = 0) -> tuple[int, Extras]: ...
    @overload
    def resolve(self, position: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]: ...
    def resolve(self, position: Any, epoch: int = 0, seed: int = 0) -> tuple[Any, Extras]:
        """What the view that covers the position has there."""
        which = np.searchsorted(self._starts, position, side="right") - 1
        if not isinstance(position, np.ndarray):
            view, start = self._views[which]
            sample_id, extras = view.resolve(position - int(self._starts[which]), epoch, seed)
            return start + sample_id, extras
        found = np.empty(len(position), np.int64)
        for number, (view, start) in enumerate(self._views):
            here = which == number
            found[here] = start + view.resolve(position[here] - self._starts[number], epoch, seed)[0]
        return found, NO_EXTRAS


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def checked_positions(positions: Any, count: int) -> Ids:
    """Positions as int64, negative ones counted from the end; IndexError for one that is out of range."""
    array = np.asarray(positions)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        if array.dtype == bool:
            raise TypeError("expected positions, got a mask of bools: numpy.flatnonzero(mask) gives positions")
        raise TypeError(f"expected a list of positions, got {array.ndim}-dimensional {array.dtype}")
    bad = np.flatnonzero((array < -count) | (array >= count))  # before uint64 becomes int64 and wraps
    if bad.size:
        raise IndexError(f"position {array[bad[0]]} of {count} samples")
    array = array.astype(np.int64)
    return np.where(array < 0, array + count, array)
