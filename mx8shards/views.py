"""Which sample stands at which position of a view: of a selection, of joined datasets, of a weighted mix?

A view is a pure function of arrays: `resolve(positions, epoch, seed) → (sample_ids, extras)`. It holds no data, and
several views share the shards of one dataset. `extras` has what the view knows of the positions beside their samples,
by name: arrays of numbers with a row for each position, or nothing at all where nothing is known.

Where a sample stands at several positions, `extras["occurrence"]` tells these apart, and random draws with them: no two
positions of a view have both the same sample and the same occurrence. A missing array means 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SettingError
from mx8shards.format.randomness import OCCURRENCE
from mx8shards.order.keys import Key
from mx8shards.order.per_epoch import PerEpoch
from mx8shards.order.permutation import Permutations

Ids = npt.NDArray[np.int64]
Extras = Mapping[str, npt.NDArray[Any]]

NO_EXTRAS: Extras = {}


class View(Protocol):
    """A pure mapping from positions to samples."""

    def __len__(self) -> int:
        """How many positions there are."""

    @property
    def digest(self) -> str:
        """A hash of the mapping: equal for equal views, whatever data they are of (spec §12.6)."""

    @property
    def occurrences(self) -> int:
        """A number that every occurrence is below: 1 where no sample stands at two positions."""

    @property
    def moves(self) -> bool:
        """Whether the samples at some positions are others in another epoch, or with another seed."""

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """The sample_ids at positions from 0 to before len, and what else is known of these positions."""


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

    @property
    def occurrences(self) -> int:
        """No sample repeats."""
        return 1

    @property
    def moves(self) -> bool:
        """Never."""
        return False

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """The positions themselves."""
        return positions, NO_EXTRAS


class Select:
    """Positions picked from another view, in the order in which they were picked, repeats included."""

    def __init__(self, base: View, positions: Sequence[int] | npt.NDArray[Any]) -> None:
        self._base = base
        self._positions = checked_positions(positions, len(base))

    def __len__(self) -> int:
        return len(self._positions)

    @cached_property
    def digest(self) -> str:
        """A hash of the positions, and of the view that they were picked from."""
        return _digest("select", self._base.digest, hashlib.sha256(self._positions.astype("<i8").data).hexdigest())

    @cached_property
    def occurrences(self) -> int:
        """As many as the base view has, for each time that a position was picked."""
        most = 0 if self._repeats is None else int(self._repeats.max())
        return self._base.occurrences * (1 + most)

    @property
    def moves(self) -> bool:
        """Where the base view does."""
        return self._base.moves

    @cached_property
    def _repeats(self) -> Ids | None:
        """How many times each position was picked before. None, and no memory, where none was picked twice."""
        return _repeats_among(self._positions, len(self._base))

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """What the base view has at the picked positions, with occurrences of their own for repeats."""
        found, extras = self._base.resolve(self._positions[positions], epoch, seed)
        if self._repeats is None:
            return found, extras
        return found, told_apart(extras, self._repeats[positions], self._base.occurrences)


class Join:
    """Several views one after the other, each over samples that start where those of the one before end."""

    def __init__(self, views: Sequence[tuple[View, int]]) -> None:
        self._views = tuple(views)  # with the sample_id at which the samples of each start
        self._starts = _bounds_of(len(view) for view, _ in self._views)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def digest(self) -> str:
        """A hash of the views and of where their samples start."""
        return _digest("join", *([view.digest, int(start)] for view, start in self._views))

    @property
    def occurrences(self) -> int:
        """As many as the view that has the most: samples of two views are different samples."""
        return max((view.occurrences for view, _ in self._views), default=1)

    @property
    def moves(self) -> bool:
        """Where any of the views does."""
        return any(view.moves for view, _ in self._views)

    @cached_property
    def _known(self) -> Extras:
        """What any of the views knows of positions, without rows: each batch has the same names then."""
        none = np.zeros(0, np.int64)
        return {name: array for view, _ in self._views for name, array in view.resolve(none)[1].items()}

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """What the views have at the positions they cover. What only others know of their positions is 0."""
        which = np.searchsorted(self._starts, positions, side="right") - 1
        found = np.empty(len(positions), np.int64)
        extras = {
            name: np.zeros((len(positions), *array.shape[1:]), array.dtype) for name, array in self._known.items()
        }
        for number in np.flatnonzero(np.bincount(which)).tolist():
            here = np.flatnonzero(which == number)
            view, start = self._views[number]
            sample_ids, more = view.resolve(positions[here] - self._starts[number], epoch, seed)
            found[here] = start + sample_ids
            for name, values in more.items():
                extras[name][here] = values
        return found, extras


class Mix:
    """Parts of another view, each with as many positions in every epoch as its weight asks for (spec §12.9).

    The base view's positions are `sizes[0]` of part 0, then `sizes[1]` of part 1, and so on; this view has `counts[0]`
    of part 0, then `counts[1]` of part 1. Each part is shuffled once, by the seed, and walked through without an end:
    an epoch begins where the one before stopped, so that over the epochs all samples of a part come equally often. A
    part whose count is a multiple of its size is not shuffled: it has all of its samples in any case.
    """

    def __init__(self, base: View, sizes: Sequence[int], counts: Sequence[int]) -> None:
        if len(sizes) != len(counts) or sum(sizes) != len(base):
            raise SettingError(subject="sizes", expected=f"parts of {len(base)} positions", found=f"{list(sizes)}")
        if any(count < 0 or (count and not size) for size, count in zip(sizes, counts, strict=True)):
            expected = "for each part a number from 0, and 0 for a part without samples"
            raise SettingError(subject="counts", expected=expected, found=f"{list(counts)}")
        self._base = base
        self._sizes, self._counts = np.array(sizes, np.int64), np.array(counts, np.int64)
        self._bounds, self._starts = _bounds_of(sizes), _bounds_of(counts)
        self._whole = self._counts % np.maximum(self._sizes, 1) == 0
        self._repeats = bool((self._counts > self._sizes).any())
        self._shuffles = PerEpoch[Permutations]()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def digest(self) -> str:
        """A hash of the sizes and counts, and of the base view."""
        parts = zip(self._sizes.tolist(), self._counts.tolist(), strict=True)
        return _digest("mix", self._base.digest, *map(list, parts))

    @property
    def occurrences(self) -> int:
        """As many as the base view has, for each pass through a part in one epoch."""
        passes = -(-self._counts // np.maximum(self._sizes, 1))
        return self._base.occurrences * int(passes.max(initial=1))

    @property
    def moves(self) -> bool:
        """Where a part is shuffled, or the base view does."""
        return self._base.moves or not self._whole.all()

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """What the base view has where the walks through its parts are in this epoch."""
        part = np.searchsorted(self._starts, positions, side="right") - 1
        number, size = positions - self._starts[part], self._sizes[part]
        parts = zip(self._sizes.tolist(), self._counts.tolist(), strict=True)
        walked = np.array([epoch * count % max(size, 1) for size, count in parts], np.int64)
        within = (walked[part] + number) % size
        moved = np.flatnonzero(~self._whole[part])
        if len(moved):
            shuffles = self._shuffles.get(seed, self._shuffle)
            within[moved] = shuffles.of(part[moved], within[moved])
        found, extras = self._base.resolve(self._bounds[part] + within, epoch, seed)
        return found, told_apart(extras, number // size, self._base.occurrences) if self._repeats else extras

    def _shuffle(self, seed: int) -> Permutations:
        return Permutations(self._sizes, Key("", self.digest, seed).words("mix", 0))


def told_apart(extras: Extras, repeats: Ids, occurrences: int) -> Extras:
    """The extras of positions of a view with so many occurrences, where positions repeat under different numbers."""
    before = extras.get(OCCURRENCE)
    apart = repeats * occurrences
    return {**extras, OCCURRENCE: apart if before is None else apart + before}


def replaced_extras(extras: Extras, rows: Ids, others: Extras, count: int) -> Extras:
    """The extras of `count` rows, with those of others in the place of some rows. What one side does not know is 0."""
    chosen = np.arange(count)
    chosen[rows] = count + np.arange(len(rows))
    found = {}
    for name, known in {**extras, **others}.items():
        sides = [
            side[name] if name in side else np.zeros((length, *known.shape[1:]), known.dtype)
            for side, length in ((extras, count), (others, len(rows)))
        ]
        found[name] = np.concatenate(sides)[chosen]
    return found


def _bounds_of(counts: Iterable[int]) -> Ids:
    return np.cumsum([0, *counts], dtype=np.int64)


def _repeats_among(positions: Ids, count: int) -> Ids | None:
    """How many times each of these positions, which are below `count`, stands before; None if none repeats."""
    if (positions[1:] > positions[:-1]).all():  # as `where` gives them
        return None
    seen = np.zeros(count, bool)
    seen[positions] = True
    if np.count_nonzero(seen) == len(positions):
        return None
    by_position = np.argsort(positions, kind="stable")
    values = positions[by_position]
    firsts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    found = np.empty(len(positions), np.int64)
    found[by_position] = np.arange(len(values)) - np.repeat(firsts, np.diff(np.append(firsts, len(values))))
    return found


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
