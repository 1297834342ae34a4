"""How many samples does an epoch take from each shard of a stream that it does not read a whole number of times?"""

from __future__ import annotations

import numpy as np

from mx8shards.order.mosaicml.swaps import id_dtype
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
    ends = np.cumsum(picks)
    last = _last_pick(sizes, picks, granularity)
    picked = np.zeros(len(sizes), np.int64)
    # Generator.permutation makes the same swaps, in an array of 8 bytes per element.
    order = np.arange(int(ends[-1]), dtype=id_dtype(int(ends[-1])))
    np.random.default_rng(seed).shuffle(order)
    for start in range(0, len(order), _RUN):
        pick = order[start : start + _RUN].astype(np.int64)
        shard = np.searchsorted(ends, pick, side="right")
        taken = np.where(pick == ends[shard] - 1, last[shard], granularity)
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
