"""How does a cache with a limit learn what a run needs, and when does the run release shards?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mx8shards.loading.planning.batch_plan import Plan
from mx8shards.loading.planning.groups import Group
from mx8shards.order.shard_uses import ShardUses
from mx8shards.shards.providers import Follower

_MOST_AHEAD = 8
_AHEAD_PART = 5  # simulated: with more than a fifth of the cache ahead, later epochs fetch noticeably more


class Following:
    """Tells the limited caches of a dataset's shards where a run is, and closes the shards that it is done with.

    Only the planner uses this.

    Args:
        plan: the run's plan.
        epoch: the run's epoch. The caches learn the uses of the next epoch, too.
        position: the order position where the run begins.
        in_flight: the groups that are being filled.
    """

    def __init__(self, plan: Plan, epoch: int, position: int, in_flight: Callable[[], Sequence[Group]]) -> None:
        self._plan = plan
        self._in_flight = in_flight
        self._planned = position, position
        self._limited = [each for each in plan.shards.limited if each[1].limit_bytes < each[1].total_bytes]
        self._followers: list[Follower] = []
        self._uses: ShardUses | None = None
        if self._limited:
            self._uses = plan.uses(epoch)
            self._by_end = np.argsort(self._uses.end, kind="stable")
            self._begins = self._uses.begin
            self._most_ahead = self._shards_ahead()
            self._looked_at = 0  # upcoming intervals
            self._ended = 0  # how many of these intervals have ended
            self._to_release: set[int] = set()
            self._follow(self._uses.then(plan.uses(epoch + 1), len(plan.order)))
        elif plan.shards.evictions and plan.uses_are_quick:
            # Nothing is evicted for this run, but other jobs on its caches must know what it needs. Where that takes
            # as many intervals as samples, as in a whole shuffle, they are not told, and it may have to fetch again.
            self._follow(plan.uses(epoch).then(plan.uses(epoch + 1), len(plan.order)))

    def _follow(self, uses: ShardUses) -> None:
        try:
            for first, eviction in self._plan.shards.evictions:
                follower = eviction.follow(*uses.within(first, first + len(eviction.sizes)))
                if follower is not None:
                    self._followers.append(follower)
            self.look()
        except BaseException:
            self.close()
            raise

    def upcoming(self, otherwise: Iterator[int]) -> Iterator[int]:
        """The shards that the run needs, in order, each once per interval; without a limit, those of `otherwise`."""
        if self._uses is None:
            return otherwise
        coming = self._uses.end > self._planned[0]
        by_begin = np.argsort(self._uses.begin[coming], kind="stable")
        self._begins = self._uses.begin[coming][by_begin]
        return self._counted(self._uses.shard[coming][by_begin].tolist())

    def _shards_ahead(self) -> int:
        """How many shards to look at before they are needed: few beside the rest of the smallest cache."""
        assert self._uses is not None
        rests = []
        for first, eviction in self._limited:
            count = len(eviction.sizes)
            held = count * eviction.limit_bytes // max(1, eviction.total_bytes)
            window = self._uses.within(first, first + count).peak(np.ones(count, np.int64), 1)
            rests.append(held - window)
        return max(1, min([_MOST_AHEAD, *(rest // _AHEAD_PART for rest in rests)]))

    def _counted(self, shards: Sequence[int]) -> Iterator[int]:
        for shard in shards:
            self._looked_at += 1
            yield shard

    @property
    def looks_ahead(self) -> bool:
        """Whether to look at another upcoming shard now.

        A limited cache gets only shards that are needed soon: fetching one early evicts another one early, which may
        then be fetched twice. So few shards beyond the ones in use are looked at, whether they are local or not.
        """
        if self._uses is None:
            return True
        return self._looked_at < int(np.searchsorted(self._begins, self._planned[1])) + self._most_ahead

    def at(self, begin: int, end: int) -> list[int]:
        """The planner plans the step between these order positions. Returns the shards that were released.

        No group is between being planned and being filled now, so a shard that no group in flight uses may be closed.
        """
        self._planned = begin, end
        oldest = self.look()
        if self._uses is None:
            return []
        stop = int(np.searchsorted(self._uses.end, oldest, side="right", sorter=self._by_end))
        self._to_release.update(self._uses.shard[self._by_end[self._ended : stop]].tolist())
        self._ended = max(self._ended, stop)
        return self._release() if self._to_release else []

    def _release(self) -> list[int]:
        busy = {i for group in self._in_flight() for i in np.unique(group.rows["shard"]).tolist()}
        done = [i for i in self._to_release - busy if self._keeps_a_part(i)]
        self._to_release &= busy
        self._plan.shard_table.release(done)
        return done

    def look(self) -> int:
        """Tell the caches which batches are in flight now; the order position of the oldest."""
        begin, end = self._planned
        if self._followers:
            begin = min([begin, *(group.position for group in self._in_flight())])
        for follower in self._followers:
            follower.at(begin, end)
        return begin

    def _keeps_a_part(self, i: int) -> bool:
        """Whether shard `i` is in a cache that cannot keep all of its dataset."""
        return any(first <= i < first + len(eviction.sizes) for first, eviction in self._limited)

    def close(self) -> None:
        """The run has ended."""
        for follower in self._followers:
            follower.close()
