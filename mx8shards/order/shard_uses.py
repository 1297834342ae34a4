"""When does an epoch use each shard? Intervals of order positions, for a cache that evicts by next use."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mx8shards.order.blocks import BlockOrder
from mx8shards.order.orders import PADDING, Order, Sequential
from mx8shards.order.permutation import Ids
from mx8shards.order.shard_lookup import ShardLookup

_CHUNKS = 1 << 14  # the resolution for orders whose structure is not known
_LEAST_CHUNK = 1 << 4
_RUN = 1 << 16


class ShardUses(NamedTuple):
    """Shard `shard[k]` is used at some order positions from `begin[k]` to before `end[k]`, and at no others."""

    shard: Ids
    begin: Ids
    end: Ids

    def within(self, first: int, stop: int) -> ShardUses:
        """The uses of the shards from `first` to before `stop`, which are numbered from 0."""
        mine = (self.shard >= first) & (self.shard < stop)
        return ShardUses(self.shard[mine] - first, self.begin[mine], self.end[mine])

    def then(self, later: ShardUses, length: int) -> ShardUses:
        """These uses, in an epoch of this length, and those of the next epoch."""
        return ShardUses(
            np.concatenate([self.shard, later.shard]),
            np.concatenate([self.begin, later.begin + length]),
            np.concatenate([self.end, later.end + length]),
        )

    def peak(self, sizes: Ids, step: int) -> int:
        """The most bytes of shards, of these sizes, that are in use within `step` positions."""
        times = np.concatenate([self.begin, self.end + step])
        changes = np.concatenate([sizes[self.shard], -sizes[self.shard]])
        by_time = np.lexsort((changes, times))  # at one position, the shards that end come first
        return int(np.cumsum(changes[by_time]).max(initial=0))


def shard_uses(order: Order, lookup: ShardLookup, epoch: int, *, varies: bool = False) -> ShardUses:
    """The uses of all shards in an epoch. `varies`: whether the view may move positions to other shards.

    For our sequential orders and block shuffles they follow from the structure; other orders are read once.
    """
    if not follow_from_structure(order, lookup, varies=varies):
        return _by_reading(order, lookup, epoch)
    if isinstance(order, BlockOrder):
        return ShardUses(*order.shard_uses(epoch))
    shards = np.flatnonzero(np.diff(lookup.starts))
    return ShardUses(shards, lookup.starts[shards], lookup.starts[shards + 1])


def follow_from_structure(order: Order, lookup: ShardLookup, *, varies: bool) -> bool:
    """Whether `shard_uses` need not read the order. Then each shard is used in a part of the epoch."""
    if isinstance(order, Sequential):
        return lookup.resolve is None
    return isinstance(order, BlockOrder) and not varies


def _by_reading(order: Order, lookup: ShardLookup, epoch: int) -> ShardUses:
    """The uses in chunks of positions: consecutive chunks with a shard are one interval."""
    length = len(order)
    chunk = max(_LEAST_CHUNK, -(-length // _CHUNKS))
    chunks = -(-length // chunk)
    pairs = [np.zeros(0, np.int64)]  # of shard and chunk, as one number
    for start in range(0, length, _RUN):
        ids = order.ids(epoch, start, min(start + _RUN, length))
        there = np.flatnonzero(ids != PADDING)
        pairs.append(np.unique(lookup.shards_of(ids[there], epoch) * chunks + (start + there) // chunk))
    shards, numbers = np.divmod(np.unique(np.concatenate(pairs)), max(1, chunks))
    first = np.ones(len(shards), bool)
    first[1:] = (shards[1:] != shards[:-1]) | (numbers[1:] != numbers[:-1] + 1)
    last = np.append(first[1:], True) if len(first) else first
    return ShardUses(shards[first], numbers[first] * chunk, np.minimum((numbers[last] + 1) * chunk, length))
