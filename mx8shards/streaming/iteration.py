"""How are the samples of one iteration read? In runs, with their shards fetched ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from mx8shards.errors import ShardsError
from mx8shards.order.mosaicml.epoch_plan import EpochPlan
from mx8shards.order.orders import PADDING
from mx8shards.order.permutation import Ids
from mx8shards.streaming.all_samples import AllSamples
from mx8shards.streaming.reading_ahead import AHEAD_BYTES, with_next_read_ahead
from mx8shards.streaming.worker_samples import worker_runs
from mx8shards.streaming.world import World

_LEAST = 8  # reading one sample takes as long as what is done once for all samples of a shard
_LEAST_RUN, _MOST_RUN = 1 << 5, 1 << 10  # samples between two looks at the shards that are needed next
_LOOKS = 4  # looks while `predownload` samples are read, so that little more is fetched than was asked for
# A cache with a limit learns at each look where the iteration is. If a worker read a large part of what the cache holds
# between two looks, it would not know which shards are needed next, and evict these: five times as many were fetched.
# At each look, all shards of the samples ahead are looked at, as they may have been evicted.
_PARTS = 4


def samples_of(
    samples: AllSamples, plan: EpochPlan, world: World, predownload: int, get: Callable[[int], Any] | None
) -> Iterator[Any]:
    """The samples of one worker in an epoch.

    Args:
        samples: The samples of all streams.
        plan: The epoch's plan.
        world: The world of the plan, and the worker.
        predownload: For how many samples beyond the current one to fetch shards.
        get: A function that returns a sample, as a subclass of the dataset defines it; None reads it from its shard.
    """
    if samples.all_here:
        run = max(_LEAST_RUN, min(AHEAD_BYTES // samples.mean_bytes, _MOST_RUN))
        for ids in with_next_read_ahead(samples, worker_runs(plan, world, run)):
            yield from read_samples(samples, ids[ids != PADDING], get)
        return
    from mx8shards.streaming.cache_following import CacheFollowing  # here, as a spawned worker is to import little
    from mx8shards.streaming.shards_ahead import ShardsAhead

    following = CacheFollowing(samples, worker_runs(plan, world))
    run = max(_LEAST_RUN, min(predownload // _LOOKS, _MOST_RUN))
    distance = predownload + run
    if following.evicts:  # what is fetched ahead takes the room of shards that could stay
        room = following.samples_in_cache // world.workers_per_node
        run = max(1, min(run, room // _PARTS))
        distance = max(1, min(predownload, room))
    ahead = ShardsAhead(samples, worker_runs(plan, world, run), distance, following)
    try:
        position = 0
        for ids in worker_runs(plan, world, run):
            ahead.advance(position)
            yield from read_samples(samples, ids[ids != PADDING], get)
            position += len(ids)
    finally:
        ahead.close()


def read_samples(samples: AllSamples, ids: Ids, get: Callable[[int], Any] | None) -> Iterator[Any]:
    """These samples, many at once if that is quicker.

    Args:
        samples: The samples of all streams.
        ids: Their numbers.
        get: A function that returns a sample, as a subclass of the dataset defines it; None reads it from its shard.
    """
    if get is not None:
        yield from map(get, ids.tolist())
        return
    if not len(ids):
        return
    shards = samples.locate(ids)
    rows = ids - samples.starts[shards]
    read = 0
    if _LEAST * len(np.unique(shards)) <= len(ids):
        for sample in _read_together(samples, shards, rows):
            read += 1
            yield sample  # within no `try`: what is thrown into this generator is not a damaged sample
    for shard, row in zip(shards[read:].tolist(), rows[read:].tolist(), strict=True):
        yield (samples.opened[shard] or samples.open(shard))(row)


def _read_together(samples: AllSamples, shards: Ids, rows: Ids) -> Iterator[Any]:
    """These samples, up to a damaged one. Reading that one by itself raises an error that names it."""
    with suppress(ShardsError, ValueError):
        yield from samples.read(shards, rows) or ()
