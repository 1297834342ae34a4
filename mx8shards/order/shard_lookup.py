"""Which shard contains each position of a view?

Orders work on view positions, but shards are the unit that is fetched and mapped. ShardLookup is the only link between
the two that orders know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mx8shards.errors import SettingError
from mx8shards.order.permutation import Ids

Resolve = Callable[[Ids, int], Ids]

_RUN = 1 << 16


@dataclass(frozen=True, eq=False)
class PositionsByShard:
    """The positions of a view, sorted by shard: those of shard i are positions[bounds[i]:bounds[i + 1]].

    `positions` None stands for range(count): the view goes through its shards in order.
    """

    bounds: Ids
    positions: Ids | None = None


@dataclass(frozen=True, eq=False)
class ShardLookup:
    """Maps the `count` positions of a view to shards: shard i has the samples from starts[i] to before starts[i + 1].

    `resolve(positions, epoch)` returns their sample_ids; None means that each position is its own sample_id.
    """

    count: int
    starts: Ids
    resolve: Resolve | None = None

    def __post_init__(self) -> None:
        if self.resolve is None and self.count != self.starts[-1]:
            raise SettingError(
                subject="count", expected=f"{self.starts[-1]}, as a position is a sample_id", found=f"{self.count}"
            )

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.starts) - 1

    def shards_of(self, positions: Ids, epoch: int) -> Ids:
        """The shard of each position."""
        sample_ids = positions if self.resolve is None else self.resolve(positions, epoch)
        return np.searchsorted(self.starts, sample_ids, side="right") - 1

    def by_shard(self, epoch: int = 0) -> PositionsByShard:
        """The positions sorted by shard, in ascending order within each shard.

        A view that goes through its shards in order (all samples, a sorted selection, clips, joined datasets) is
        detected, and needs memory per shard only; any other needs eight bytes per position.
        """
        if self.resolve is None:
            return PositionsByShard(self.starts)
        counts = np.zeros(self.shards, np.int64)
        last, in_order = 0, True
        for _, shards in self._runs(epoch):
            counts += np.bincount(shards, minlength=self.shards)
            in_order = in_order and last <= shards[0] and not (shards[1:] < shards[:-1]).any()
            last = shards[-1]
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return PositionsByShard(bounds, None if in_order else self._sorted(bounds, epoch))

    def _sorted(self, bounds: Ids, epoch: int) -> Ids:
        """All positions, stably sorted by shard, without a second array of their size."""
        out = np.empty(self.count, np.int64)
        free = bounds[:-1].copy()
        for start, shards in self._runs(epoch):
            by_shard = np.argsort(shards, kind="stable")
            found, first, counts = np.unique(shards[by_shard], return_index=True, return_counts=True)
            within = np.arange(len(shards)) - np.repeat(first, counts)
            out[np.repeat(free[found], counts) + within] = start + by_shard
            free[found] += counts
        return out

    def _runs(self, epoch: int) -> Iterator[tuple[int, Ids]]:
        for start in range(0, self.count, _RUN):
            positions = np.arange(start, min(start + _RUN, self.count), dtype=np.int64)
            yield start, self.shards_of(positions, epoch)
