"""How does an iteration get the shards that it needs next, before it needs them, and how does a cache stay small?"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np

from mx8shards.errors import ShardsError
from mx8shards.loading.execution.crew import Crew, ResourceOf
from mx8shards.order.orders import PADDING, first_needed
from mx8shards.order.permutation import Ids
from mx8shards.streaming.all_samples import AllSamples

_THREADS = 8


class ShardsAhead:
    """Fetches and decompresses shards in threads, up to `predownload` samples before they are needed.

    An error is left to the reader of the shard: it provides the shard again, and gets the error.

    Args:
        samples: The samples of all streams.
        runs: The ids of the iteration in order, in arrays. They are read as far as necessary.
        predownload: For how many samples beyond the current one to provide shards.
    """

    def __init__(self, samples: AllSamples, runs: Iterator[Ids], predownload: int) -> None:
        self._samples = samples
        self._runs = runs
        self._predownload = predownload
        self._looked_at = 0
        self._seen = np.zeros(len(samples.samples_per_shard), bool)
        self._wanted = [True]  # an item as long as the iteration goes on
        self._crew: Crew | None = None  # threads, from the first shard that is not here

    def advance(self, position: int) -> None:
        """The iteration is at this sample: provide what the next ones need."""
        while self._looked_at < position + self._predownload:
            ids = next(self._runs, None)
            if ids is None:
                return
            self._looked_at += len(ids)
            for shard in first_needed(self._samples.locate(ids[ids != PADDING]), self._seen):
                if self._samples.awaits(shard):
                    self._begin(shard)

    def _begin(self, shard: int) -> None:
        if self._crew is None:
            self._crew = Crew(_THREADS, "shards-ahead-")
            weakref.finalize(self, _end, self._crew, self._wanted)
        self._crew.put(partial(_provide, self._samples, shard, self._wanted))

    def close(self) -> None:
        """Let the threads end, and begin no further shard."""
        if self._crew is not None:
            _end(self._crew, self._wanted)


def _end(crew: Crew, wanted: list[bool]) -> None:
    wanted.clear()
    crew.stop()


def _provide(samples: AllSamples, shard: int, wanted: list[bool], _: ResourceOf) -> None:
    if wanted:
        with suppress(ShardsError, OSError, ValueError):
            samples.provide(shard)
