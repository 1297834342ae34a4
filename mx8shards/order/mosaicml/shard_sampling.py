"""How many samples does an epoch take from each shard of a stream that it does not read a whole number of times?"""

from __future__ import annotations

import numpy as np

from mx8shards.order.mosaicml.id_chunks import AnyIds, id_dtype
from mx8shards.order.permutation import Ids

_RUN = 1 << 20  # picks that are counted at a time


def chosen_per_shard(sizes: Ids, choose: int, granularity: int, seed: int) -> Ids:
    """The number of samples to take from each shard, `choose` in all.

    Every sample is taken `choose // total` times. The rest is made up of *picks*: each shard is cut into picks of
    `granularity` samples, and these are taken in random order.
    """
    times, rest = divmod(choose, int(sizes.sum()))
    chosen = sizes * times
    return chosen + _picked(sizes, rest, granularity, seed) if rest else chosen


def _picked(sizes: Ids, rest: int, granularity: int, seed: int) -> Ids:
    """The samples per shard of the first picks, in random order, that have `rest` samples together."""
    picks = -(-sizes // granularity)
    last = _last_pick(sizes, picks, granularity)
    picked = np.zeros(len(sizes), np.int64)
    order = _shuffled_picks(picks, seed)
    for start in range(0, len(order), _RUN):
        shard, is_last = np.divmod(order[start : start + _RUN].astype(np.int64), 2)
        taken = np.where(is_last, last[shard], granularity)
        before = np.minimum(np.cumsum(taken) - taken, rest)
        taken = np.minimum(taken, rest - before)
        np.add.at(picked, shard, taken)
        rest -= int(taken.sum())
        if not rest:
            break
    return picked


def _last_pick(sizes: Ids, picks: Ids, granularity: int) -> Ids:
    """The size of each shard's last pick. Before an empty shard, Streaming counts it as a whole one."""
    before_empty = np.append(sizes[1:] == 0, False)
    return np.where(before_empty, granularity, sizes - (picks - 1) * granularity)


def _shuffled_picks(picks: Ids, seed: int) -> AnyIds:
    """For each pick in random order, twice its shard, plus one for the last pick of the shard.

    Shuffling these makes the same swaps as `Generator.permutation`, which Streaming indexes its picks with.
    """
    order = np.repeat(np.arange(0, 2 * len(picks), 2, dtype=id_dtype(2 * len(picks))), picks)
    order[np.cumsum(picks)[picks > 0] - 1] += 1
    np.random.default_rng(seed).shuffle(order)
    return order
