"""BlockShuffle: how is an epoch shuffled with a bounded number of shards in use at a time? (spec §12.5)

The shards are permuted, and an epoch has one *slot* per shard. Each shard is split at random into k parts, which go to
k consecutive slots, wrapping from the last slot to the first. So a slot is a shuffled mix of parts of k shards, and the
next slot drops one of these shards and adds another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mx8shards.errors import whole_number
from mx8shards.order.keys import Key
from mx8shards.order.orders import Description, Shuffle
from mx8shards.order.per_epoch import PerEpoch
from mx8shards.order.permutation import Ids, Permutation, Permutations, checked_count
from mx8shards.order.shard_lookup import PositionsByShard, ShardLookup

_MOST_PARTS = 1 << 20  # parts of slots that are listed in memory at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockShuffle:
    """Shuffle with about `shards` shards in use at any time: for data that are larger than memory, or not yet local.

    A batch is drawn evenly from that many shards. How much this reduces randomness depends on the order in which the
    dataset was written. The worst case is a dataset sorted by class: with 1000 classes of two shards each, a batch of
    256 samples has 226 classes after a whole shuffle, 172 with 256 shards, 63 with 64, and 16 with 16. A dataset
    written in random order loses nothing.

    Args:
        shards: The number of shards in use at a time, from 1. More shards come closer to a whole shuffle. `shards` - 1
            of them are read twice: at the beginning and at the end of an epoch.
    """

    shards: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", whole_number("shards", self.shards, 1))


class BlockOrder:
    """Every position of the view once, from at most `shards` shards in any slot.

    Needs eight bytes per position if the view does not go through its shards in order. The shard of each position is
    looked up once, for epoch 0: if a view moves positions to other shards in later epochs, the bound does not hold.
    """

    def __init__(self, lookup: ShardLookup, key: Key, settings: BlockShuffle) -> None:
        checked_count(lookup.count)
        self._lookup = lookup
        self._key = key
        self._settings = settings
        self._whole = Shuffle(lookup.count, key)
        self._groups: PositionsByShard | None = None
        self._plans = PerEpoch[_Slots | None]()

    def __len__(self) -> int:
        return self._lookup.count

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The view positions at these order positions (`counts`)."""
        slots = self._plans.get(epoch, self._slots)
        return self._whole.at(epoch, counts) if slots is None else slots.at(counts)

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """The view positions at the order positions from start to before stop."""
        return self.at(epoch, np.arange(start, stop, dtype=np.int64))

    @property
    def description(self) -> Description:
        """The order's name and its number of shards in use at a time."""
        return {"name": "block_shuffle", "shards": self._settings.shards}

    def shard_uses(self, epoch: int) -> tuple[Ids, Ids, Ids]:
        """Shards, and the order positions from which and to before which each is in use; some are in use twice."""
        slots = self._plans.get(epoch, self._slots)
        if slots is not None:
            return slots.shard_uses()
        assert self._groups is not None  # found for the slots
        shards = np.flatnonzero(np.diff(self._groups.bounds))
        return shards, np.zeros(len(shards), np.int64), np.full(len(shards), len(self))

    def _slots(self, epoch: int) -> _Slots | None:
        """The slots of an epoch; None if all shards may be in use at once."""
        if self._groups is None:
            self._groups = self._lookup.by_shard()
        nonempty = np.flatnonzero(np.diff(self._groups.bounds))
        if len(nonempty) <= self._settings.shards:
            return None
        return _Slots(self._groups, nonempty, self._settings.shards, self._key, epoch)


class _Slots:
    """The slots of one epoch. Shards are numbered c = 0, 1, … in the epoch's order. Takes a few words per shard."""

    def __init__(self, groups: PositionsByShard, nonempty: Ids, parts: int, key: Key, epoch: int) -> None:
        ranked = nonempty[
            Permutation(len(nonempty), key.words("block_shuffle shards", epoch)).of(np.arange(len(nonempty)))
        ]
        self._ranked = ranked
        self._positions = groups.positions
        self._begins = groups.bounds[ranked]
        self._sizes = groups.bounds[ranked + 1] - self._begins
        self._parts = parts
        sizes = np.zeros(len(nonempty), np.int64)
        for j in range(parts):
            sizes += np.roll(part_begin(self._sizes, j + 1, parts) - part_begin(self._sizes, j, parts), j)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        self._in_slot = Permutations(sizes, key.words("block_shuffle slots", epoch))
        self._in_shard = Permutations(self._sizes, key.words("block_shuffle parts", epoch))

    def at(self, counts: Ids) -> Ids:
        run = min(max(_MOST_PARTS // self._parts, 64), 1 << 15)
        out = np.empty(len(counts), np.int64)
        for start in range(0, len(counts), run):
            out[start : start + run] = self._run(counts[start : start + run])
        return out

    def shard_uses(self) -> tuple[Ids, Ids, Ids]:
        """The shard of rank c is in use in the slots c to c + parts - 1, which wrap from the last slot to the first."""
        count = len(self._ranked)
        stops = np.arange(count) + self._parts
        wraps = np.flatnonzero(stops > count)
        return (
            np.concatenate([self._ranked, self._ranked[wraps]]),
            np.concatenate([self._starts[:-1], np.zeros(len(wraps), np.int64)]),
            self._starts[np.concatenate([np.minimum(stops, count), stops[wraps] - count])],
        )

    def _run(self, counts: Ids) -> Ids:
        slots = np.searchsorted(self._starts, counts, side="right") - 1
        shards, within = self._parted(slots, self._in_slot.of(slots, counts - self._starts[slots]))
        numbers: Ids = self._begins[shards] + self._in_shard.of(shards, within)
        return numbers if self._positions is None else self._positions[numbers]

    def _parted(self, slots: Ids, within: Ids) -> tuple[Ids, Ids]:
        """For the index of a position within its slot: the shard that it comes from, and its index in that shard.

        The parts of all slots in question are concatenated, so that one binary search finds the part of each index.
        """
        asked, which = np.unique(slots, return_inverse=True)
        j = np.arange(self._parts)
        shards = (asked[:, None] - j) % len(self._sizes)
        begins = part_begin(self._sizes[shards], j, self._parts).ravel()
        ends = np.cumsum(part_begin(self._sizes[shards], j + 1, self._parts).ravel() - begins)
        row_starts = np.concatenate([np.zeros(1, np.int64), ends[self._parts - 1 :: self._parts]])
        numbers = row_starts[which] + within
        part = np.searchsorted(ends, numbers, side="right")
        ends_before = np.concatenate([np.zeros(1, np.int64), ends])[part]
        return shards.ravel()[part], begins[part] + numbers - ends_before


def part_begin(sizes: Ids, j: Ids | int, parts: int) -> Ids:
    """The index at which part j begins, in shards of these sizes that are split into `parts` parts."""
    begin: Ids = sizes * j // parts
    return begin
