"""How does an iteration get the shards that it needs next, before it needs them, and how does a cache stay small?"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np

from mx8shards.errors import ShardsError
from mx8shards.loading.execution.crew import Crew, ResourceOf
from mx8shards.order.orders import PADDING, first_needed
from mx8shards.order.permutation import Ids
from mx8shards.shards.providers import NoRoomYetError
from mx8shards.streaming.all_samples import AllSamples
from mx8shards.streaming.cache_following import CacheFollowing, Coming

_THREADS = 8


class ShardsAhead:
    """Fetches and decompresses shards in threads, up to `predownload` samples before they are needed.

    An error is left to the reader of the shard: it provides the shard again, and gets the error.

    Args:
        samples: The samples of all streams.
        runs: The ids of the iteration in order, in arrays. They are read as far as necessary.
        predownload: For how many samples beyond the current one to provide shards.
        following: What tells caches with a limit about the iteration.
    """

    def __init__(self, samples: AllSamples, runs: Iterator[Ids], predownload: int, following: CacheFollowing) -> None:
        self._samples = samples
        self._runs = runs
        self._predownload = predownload
        self._following = following
        self._looked_at = 0
        self._seen = np.zeros(len(samples.samples_per_shard), bool)
        self._coming: deque[tuple[Ids, Ids]] = deque()  # shards and positions of samples that were looked at
        self._without_room: deque[int] = deque()  # shards to be tried again
        self._wanted = [True]  # an item as long as the iteration goes on
        self._crew: Crew | None = None  # threads, from the first shard that is not here

    def advance(self, position: int) -> None:
        """The iteration is at this sample: provide what the next ones need."""
        self._following.at(position)
        tried = (self._without_room.popleft() for _ in range(len(self._without_room)))
        tried = (shard for shard in tried if self._following.needs(shard, position))
        awaited = [shard for shard in (*tried, *self._newly_needed(position)) if self._samples.awaits(shard)]
        if awaited and self._following.evicts:
            self._following.tell(position, self._coming_from(position), awaited)
        without_room = self._without_room = deque()
        for shard in dict.fromkeys(awaited):
            self._begin(shard, without_room)

    def _newly_needed(self, position: int) -> Iterator[int]:
        """The shards of the samples that are looked at now. Those that cannot be evicted come once."""
        while self._looked_at < position + self._predownload:
            ids = next(self._runs, None)
            if ids is None:
                return
            there = np.flatnonzero(ids != PADDING)
            shards = self._samples.locate(ids[there])
            if self._following.evicts:
                self._coming.append((shards, self._looked_at + there))
                self._seen[shards] = False
            self._looked_at += len(ids)
            yield from first_needed(shards, self._seen)

    def _coming_from(self, position: int) -> Coming:
        """What comes from this position on."""
        while len(self._coming) > 1 and not (self._coming[0][1] >= position).any():
            self._coming.popleft()
        shards, positions = (np.concatenate([each[k] for each in self._coming]) for k in (0, 1))
        coming = positions >= position
        return Coming(shards[coming], positions[coming], self._looked_at)

    def _begin(self, shard: int, without_room: deque[int]) -> None:
        if self._crew is None:
            self._crew = Crew(_THREADS, "shards-ahead-")
            weakref.finalize(self, _end, self._crew, self._wanted)
        self._crew.put(partial(_provide, self._samples, shard, self._wanted, without_room))

    def close(self) -> None:
        """Let the threads end, and begin no further shard."""
        if self._crew is not None:
            _end(self._crew, self._wanted)
        self._following.close()


def _end(crew: Crew, wanted: list[bool]) -> None:
    wanted.clear()
    crew.stop()


def _provide(samples: AllSamples, shard: int, wanted: list[bool], without_room: deque[int], _: ResourceOf) -> None:
    if without_room:  # the cache had none for a shard that is needed sooner
        without_room.append(shard)
    elif wanted:
        with suppress(ShardsError, OSError, ValueError):
            try:
                samples.provide(shard, ahead=True)
            except NoRoomYetError:
                without_room.append(shard)
