"""How does an iteration get the shards that it needs next, before it needs them, and how does a cache stay small?"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import chain
from threading import Event
from typing import NamedTuple

import numpy as np

from mx8shards.errors import ShardsError
from mx8shards.loading.execution.crew import Crew, ResourceOf
from mx8shards.order.orders import PADDING, first_needed
from mx8shards.order.permutation import Ids
from mx8shards.shards.providers import NoRoomYetError
from mx8shards.streaming.all_samples import AllSamples
from mx8shards.streaming.cache_following import CacheFollowing, Coming

_THREADS = 8


class _Looked(NamedTuple):
    """Samples that were looked at: from which position on, the shard and the position of each, and their shards."""

    start: int
    shards: Ids
    positions: Ids
    needed: list[int]  # in the order of their first use


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
        self._coming: deque[_Looked] = deque()  # the samples that were looked at, if shards may be evicted
        self._begun: set[int] = set()  # shards that threads provide, or will
        self._wanted = [True]  # an item as long as the iteration goes on
        self._crew: Crew | None = None  # threads, from the first shard that is not here

    def advance(self, position: int) -> None:
        """The iteration is at this sample: provide what the next ones need."""
        self._following.at(position)
        needed = list(self._newly_needed(position))
        if self._following.evicts:  # a shard that was here before may have left
            needed = list(dict.fromkeys(chain.from_iterable(each.needed for each in self._coming)))
        awaited = [shard for shard in needed if shard not in self._begun and self._samples.awaits(shard)]
        if awaited and self._following.evicts:
            self._following.tell(position, self._coming_from(position), awaited)
        without_room = Event()
        for shard in awaited:
            self._begin(shard, without_room)

    def _newly_needed(self, position: int) -> Iterator[int]:
        """The shards of the samples that are looked at now. Those that cannot be evicted come once."""
        while len(self._coming) > 1 and self._coming[1].start <= position:
            self._coming.popleft()
        while self._looked_at < position + self._predownload:
            ids = next(self._runs, None)
            if ids is None:
                return
            there = np.flatnonzero(ids != PADDING)
            shards = self._samples.locate(ids[there])
            needed = first_needed(shards, self._seen)
            if self._following.evicts:
                self._coming.append(_Looked(self._looked_at, shards, self._looked_at + there, needed))
                self._seen[shards] = False
            self._looked_at += len(ids)
            yield from needed

    def _coming_from(self, position: int) -> Coming:
        """What comes from this position on."""
        shards = np.concatenate([each.shards for each in self._coming])
        positions = np.concatenate([each.positions for each in self._coming])
        coming = positions >= position
        return Coming(shards[coming], positions[coming], self._looked_at)

    def _begin(self, shard: int, without_room: Event) -> None:
        if self._crew is None:
            self._crew = Crew(_THREADS, "shards-ahead-")
            weakref.finalize(self, _end, self._crew, self._wanted)
        self._begun.add(shard)
        self._crew.put(partial(_provide, self._samples, shard, self._wanted, self._begun, without_room))

    def close(self) -> None:
        """Let the threads end, and begin no further shard."""
        if self._crew is not None:
            _end(self._crew, self._wanted)
        self._following.close()


def _end(crew: Crew, wanted: list[bool]) -> None:
    wanted.clear()
    crew.stop()


def _provide(
    samples: AllSamples, shard: int, wanted: list[bool], begun: set[int], without_room: Event, _: ResourceOf
) -> None:
    try:
        if wanted and not without_room.is_set():  # or else there is no room for a shard that is needed sooner
            samples.provide(shard, ahead=True)
    except NoRoomYetError:
        without_room.set()  # the next look tries again
    except (ShardsError, OSError, ValueError):
        pass  # its reader gets the error
    finally:
        begun.discard(shard)
