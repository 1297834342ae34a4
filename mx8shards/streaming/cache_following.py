"""How does a cache with a limit learn when an iteration needs each shard, and which shards does it close?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mx8shards.order.orders import PADDING
from mx8shards.order.permutation import Ids
from mx8shards.shards.providers import Eviction, Follower
from mx8shards.streaming.all_samples import AllSamples

_UNUSED = -1


class Uses(NamedTuple):
    """The positions of each shard's first and last sample in an iteration; -1 if it has none."""

    first: Ids
    last: Ids


class Coming(NamedTuple):
    """The samples that the iteration looks at ahead: their shards, their positions, and the position after them."""

    shards: Ids
    positions: Ids
    stop: int


def uses_of(samples: AllSamples, runs: Iterable[Ids]) -> Uses:
    """The uses of all shards in an iteration.

    Args:
        samples: The samples of all streams.
        runs: The ids of the iteration in order, in arrays.
    """
    first, last = (np.full(len(samples.samples_per_shard), _UNUSED) for _ in range(2))
    start = 0
    for ids in runs:
        there = np.flatnonzero(ids != PADDING)
        shards = samples.locate(ids[there])
        found, at = np.unique(shards, return_index=True)
        new = first[found] == _UNUSED
        first[found[new]] = start + there[at[new]]
        last[shards] = start + there  # of several positions, the last one is kept
        start += len(ids)
    return Uses(first, last)


def next_uses(uses: Uses, position: int, coming: Coming) -> Ids:
    """The position of each shard's next use after this one, as far as it is known, or a later one.

    A shard that was used before, and is not among those coming, is needed some time after them. No shard is needed at
    the position itself: each may leave the cache, as open files stay readable, so that nobody waits for room.
    """
    begin = np.maximum(uses.first, max(coming.stop, position + 1))
    begin[coming.shards[::-1]] = np.maximum(coming.positions[::-1], position + 1)  # of several ones, the first
    return begin


@dataclass
class _Followed:
    """One cache, and what it was told last."""

    first: int  # the number of its first shard
    eviction: Eviction
    follower: Follower | None = None
    told_at: int = 0  # the position then


class CacheFollowing:
    """Tells caches with a limit when one iteration needs each shard, and closes shards after their last use.

    Args:
        samples: The samples of all streams.
        runs: The ids of the iteration in order, in arrays. They are read once, if a cache cannot keep all shards.
    """

    def __init__(self, samples: AllSamples, runs: Iterable[Ids]) -> None:
        self._samples = samples
        self._caches = [_Followed(*each) for each in samples.limited]
        if self._caches:
            self._uses = uses_of(samples, runs)
            self._by_last = np.argsort(self._uses.last, kind="stable")
            self._ended = int(np.searchsorted(self._uses.last[self._by_last], 0))  # how many shards are closed

    @property
    def evicts(self) -> bool:
        """Whether a shard may have to be fetched again."""
        return bool(self._caches)

    @property
    def samples_in_cache(self) -> int:
        """How many samples the cache with the lowest limit holds; all samples if each cache can keep its shards."""
        parts = [each.eviction.limit_bytes / each.eviction.total_bytes for each in self._caches]
        return int(min(parts, default=1.0) * len(self._samples))

    def at(self, position: int) -> None:
        """The iteration is at this position: shards that it has passed are closed, and may leave first."""
        if not self._caches:
            return
        for cache in self._caches:
            if cache.follower is not None:
                cache.follower.at(position, cache.told_at)
        ended = int(np.searchsorted(self._uses.last, position, sorter=self._by_last))
        for shard in self._by_last[self._ended : ended].tolist():
            self._samples.release(shard)
        self._ended = ended

    def tell(self, position: int, coming: Coming, awaited: Sequence[int]) -> None:
        """Tell the caches of the awaited shards, which are to be fetched now, what is coming."""
        begin = next_uses(self._uses, position, coming)
        for cache in self._caches:
            count = len(cache.eviction.sizes)
            if any(cache.first <= shard < cache.first + count for shard in awaited):
                self._tell(cache, position, begin, count)

    def _tell(self, cache: _Followed, position: int, begin: Ids, count: int) -> None:
        used = cache.first + np.flatnonzero(self._uses.last[cache.first : cache.first + count] != _UNUSED)
        before = cache.follower
        end = self._uses.last[used] + 1
        cache.follower = cache.eviction.follow(used - cache.first, begin[used], end, trims=before is None)
        cache.told_at = position
        if cache.follower is not None:
            cache.follower.at(position, position)
        if before is not None:
            before.close()

    def close(self) -> None:
        """The iteration has ended: it needs nothing more, and closes its shards."""
        for cache in self._caches:
            if cache.follower is not None:
                cache.follower.close()
        self._samples.release_limited()
