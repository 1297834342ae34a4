"""How do views map positions to sample_ids: a selection, joined datasets, a weighted mix?

A view is a pure function on arrays: `resolve(positions, epoch, seed) → (sample_ids, extras)`. It contains no samples;
several views share the shards of one dataset. `extras` are further arrays by name, with one row per position, such as
the occurrence; it may be empty.

If a sample has several positions in a view, `extras["occurrence"]` distinguishes them, so that their random draws
differ: the pair of sample_id and occurrence is unique within a view. A missing array means occurrence 0.
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
from mx8shards.format.clip_times import VideoColumns
from mx8shards.format.joined_videos import Part, joined_videos
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
        """The number of positions."""

    @property
    def digest(self) -> str:
        """A hash of the mapping, independent of the data (spec §12.6)."""

    @property
    def occurrences(self) -> int:
        """An upper bound: all occurrences are less than this. It is 1 if no sample repeats."""

    @property
    def varies_by_epoch(self) -> bool:
        """Whether the samples at some positions depend on the epoch and the seed."""

    @property
    def videos(self) -> VideoColumns | None:
        """The columns of videos of which this view has clips; None if its positions are whole samples."""

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """The sample_ids and the extras of these positions, each from 0 to before len."""


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
    def varies_by_epoch(self) -> bool:
        """False: all epochs are equal."""
        return False

    @property
    def videos(self) -> None:
        """None: whole samples."""
        return None

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """The positions themselves."""
        return positions, NO_EXTRAS


class Select:
    """A selection of another view's positions, in any order and with repeats."""

    def __init__(self, base: View, positions: Sequence[int] | npt.NDArray[Any]) -> None:
        self._base = base
        self._positions = checked_positions(positions, len(base))

    def __len__(self) -> int:
        return len(self._positions)

    @cached_property
    def digest(self) -> str:
        """A hash of the selected positions and of the base view."""
        return _digest("select", self._base.digest, hashlib.sha256(self._positions.astype("<i8").data).hexdigest())

    @cached_property
    def occurrences(self) -> int:
        """The base view's bound, times the largest number of repeats of a position."""
        most = 0 if self._repeats is None else int(self._repeats.max())
        return self._base.occurrences * (1 + most)

    @property
    def varies_by_epoch(self) -> bool:
        """Whether the base view does."""
        return self._base.varies_by_epoch

    @property
    def videos(self) -> VideoColumns | None:
        """Those of the base view."""
        return self._base.videos

    @cached_property
    def _repeats(self) -> Ids | None:
        """For each selected position, how often it was selected before; None if no position repeats."""
        return _repeats_among(self._positions, len(self._base))

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """The base view's result for the selected positions, with a new occurrence for each repeat."""
        found, extras = self._base.resolve(self._positions[positions], epoch, seed)
        if self._repeats is None:
            return found, extras
        return found, with_occurrences(extras, self._repeats[positions], self._base.occurrences)


class Join:
    """Several concatenated views. The sample_ids of each are offset by its start."""

    def __init__(self, views: Sequence[tuple[View, int]]) -> None:
        self._views = tuple(views)  # pairs of a view and the sample_id at which its samples start
        self._starts = _bounds_of(len(view) for view, _ in self._views)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def digest(self) -> str:
        """A hash of the views and of their starts."""
        return _digest("join", *([view.digest, int(start)] for view, start in self._views))

    @property
    def occurrences(self) -> int:
        """The largest bound of the views, which have no samples in common."""
        return max((view.occurrences for view, _ in self._views), default=1)

    @property
    def varies_by_epoch(self) -> bool:
        """Whether any of the views does."""
        return any(view.varies_by_epoch for view, _ in self._views)

    @property
    def videos(self) -> VideoColumns | None:
        """Those that all views with samples have in common."""
        return joined_videos([Part(start, view.videos) for view, start in self._views if len(view)])

    @cached_property
    def _all_extras(self) -> Extras:
        """The extras of all views by name, without rows, so that every batch has the same names."""
        none = np.zeros(0, np.int64)
        return {name: array for view, _ in self._views for name, array in view.resolve(none)[1].items()}

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """The results of the views for their own positions. Extras that a view lacks are 0."""
        which = np.searchsorted(self._starts, positions, side="right") - 1
        found = np.empty(len(positions), np.int64)
        extras = {
            name: np.zeros((len(positions), *array.shape[1:]), array.dtype) for name, array in self._all_extras.items()
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
    """A weighted mix of the parts of another view, with a fixed number of positions per part and epoch (spec §12.9).

    The first `sizes[0]` positions of the base view are part 0, the next `sizes[1]` are part 1, and so on; this view has
    `counts[0]` positions of part 0, then `counts[1]` of part 1. Each part is shuffled once, by the seed, and traversed
    cyclically: an epoch continues where the previous one stopped, so that over the epochs all samples of a part occur
    equally often. A part whose count is a multiple of its size is not shuffled, as each epoch has all of its samples.
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
        """The base view's bound, times the largest number of passes through a part in one epoch."""
        passes = -(-self._counts // np.maximum(self._sizes, 1))
        return self._base.occurrences * int(passes.max(initial=1))

    @property
    def varies_by_epoch(self) -> bool:
        """Whether a part is shuffled, or the base view varies."""
        return self._base.varies_by_epoch or not self._whole.all()

    @property
    def videos(self) -> VideoColumns | None:
        """Those of the base view."""
        return self._base.videos

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """The base view's result for the positions that this epoch's passes through the parts have reached."""
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
        return found, with_occurrences(extras, number // size, self._base.occurrences) if self._repeats else extras

    def _shuffle(self, seed: int) -> Permutations:
        return Permutations(self._sizes, Key("", self.digest, seed).words("mix", 0))


def with_occurrences(extras: Extras, repeats: Ids, occurrences: int) -> Extras:
    """The extras with a distinct occurrence for each repeat of a position, whose numbers are `repeats`.

    `occurrences` is the bound of the view that the extras come from.
    """
    before = extras.get(OCCURRENCE)
    apart = repeats * occurrences
    return {**extras, OCCURRENCE: apart if before is None else apart + before}


def replaced_extras(extras: Extras, rows: Ids, others: Extras, count: int) -> Extras:
    """The extras of `count` rows, with `others` substituted at `rows`. An array that one side lacks counts as 0."""
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
    """For each position (below `count`), how often it occurs earlier in the array; None if none repeats."""
    if (positions[1:] > positions[:-1]).all():  # the quick test, for positions from `where`
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
    """Positions as non-negative int64, with negative ones counted from the end; IndexError if one is out of range."""
    array = np.asarray(positions)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        if array.dtype == bool:
            raise TypeError("expected positions, got a mask of bools: numpy.flatnonzero(mask) gives positions")
        if array.ndim == 0:
            raise TypeError(f"expected a position or a list of them, got {type(positions).__name__}")
        raise TypeError(f"expected a list of positions, got {array.ndim}-dimensional {array.dtype}")
    bad = np.flatnonzero((array < -count) | (array >= count))  # before the conversion to int64, which wraps uint64
    if bad.size:
        raise IndexError(f"position {array[bad[0]]} of {count} samples")
    array = array.astype(np.int64)
    return np.where(array < 0, array + count, array)
