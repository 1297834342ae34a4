"""Which position comes when, if only so many shards may be in use at a time? (spec §12.5)

The shards are put in an order, and an epoch has as many *slots* as there are shards. Each shard is cut at random into
k parts, of which one goes to each of k consecutive slots, the last ones going on at the first slot. So every slot holds
a part of k shards, shuffled, and from one slot to the next one shard leaves and one comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mx8shards.errors import whole_number
from mx8shards.order.keys import Key
from mx8shards.order.orders import Description, Shuffle
from mx8shards.order.per_epoch import PerEpoch
from mx8shards.order.permutation import Ids, Permutation, Permutations, checked_count
from mx8shards.order.places import Groups, Places

_MOST_PARTS = 1 << 20  # looked through at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockShuffle:
    """Shuffle with about `shards` shards in use at any time: for data that are larger than memory, or not yet local.

    A batch comes from that many shards, in equal shares. The order in which the dataset was written decides how much
    the choice matters. The worst case is a dataset sorted by class: of 1000 classes, two shards each, a batch of 256
    sees 226 after a whole shuffle, 172 with 256 shards, 63 with 64, and 16 with 16. A dataset written in random order
    loses nothing.

    Args:
        shards: The number of shards in use at a time, from 1. More shards come closer to a whole shuffle. `shards` - 1
            of them are read twice: when an epoch begins and when it ends.
    """

    shards: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", whole_number("shards", self.shards, 1))


class BlockOrder:
    """Every position of the view once, from at most `shards` shards in any slot.

    A view that does not go through its shards in order costs eight bytes per position here, and only here. Where a
    position lies is asked once, for epoch 0: in a view that moves it to another shard later, no bound holds.
    """

    def __init__(self, places: Places, key: Key, settings: BlockShuffle) -> None:
        checked_count(places.count)
        self._places = places
        self._key = key
        self._settings = settings
        self._whole = Shuffle(places.count, key)
        self._groups: Groups | None = None
        self._plans = PerEpoch[_Slots | None]()

    def __len__(self) -> int:
        return self._places.count

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The positions of the view that stand at these counts."""
        slots = self._plans.get(epoch, self._slots)
        return self._whole.at(epoch, counts) if slots is None else slots.at(counts)

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """Those from start to before stop."""
        return self.at(epoch, np.arange(start, stop, dtype=np.int64))

    @property
    def description(self) -> Description:
        """Its name and how many shards are in use at a time."""
        return {"name": "block_shuffle", "shards": self._settings.shards}

    def _slots(self, epoch: int) -> _Slots | None:
        """None if all shards may be in use at once."""
        if self._groups is None:
            self._groups = self._places.grouped()
        full = np.flatnonzero(np.diff(self._groups.bounds))
        if len(full) <= self._settings.shards:
            return None
        return _Slots(self._groups, full, self._settings.shards, self._key, epoch)


class _Slots:
    """One epoch's slots. Shards go by their rank in it: c = 0, 1, …; memory is some words per shard."""

    def __init__(self, groups: Groups, full: Ids, parts: int, key: Key, epoch: int) -> None:
        ranked = full[Permutation(len(full), key.words("block_shuffle shards", epoch)).of(np.arange(len(full)))]
        self._positions = groups.positions
        self._begins = groups.bounds[ranked]
        self._sizes = groups.bounds[ranked + 1] - self._begins
        self._parts = parts
        sizes = np.zeros(len(full), np.int64)
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

    def _run(self, counts: Ids) -> Ids:
        slots = np.searchsorted(self._starts, counts, side="right") - 1
        shards, within = self._parted(slots, self._in_slot.of(slots, counts - self._starts[slots]))
        numbers: Ids = self._begins[shards] + self._in_shard.of(shards, within)
        return numbers if self._positions is None else self._positions[numbers]

    def _parted(self, slots: Ids, within: Ids) -> tuple[Ids, Ids]:
        """The shard on whose part each place in a slot falls, and the place in that shard.

        The parts of all slots asked for stand in one row, so that one search finds the part of each.
        """
        asked, which = np.unique(slots, return_inverse=True)
        j = np.arange(self._parts)
        shards = (asked[:, None] - j) % len(self._sizes)
        begins = part_begin(self._sizes[shards], j, self._parts).ravel()
        ends = np.cumsum(part_begin(self._sizes[shards], j + 1, self._parts).ravel() - begins)
        row_starts = np.concatenate([np.zeros(1, np.int64), ends[self._parts - 1 :: self._parts]])
        places = row_starts[which] + within
        part = np.searchsorted(ends, places, side="right")
        ends_before = np.concatenate([np.zeros(1, np.int64), ends])[part]
        return shards.ravel()[part], begins[part] + places - ends_before


def part_begin(sizes: Ids, j: Ids | int, parts: int) -> Ids:
    """Where part j begins in shards of these sizes that are cut into so many parts."""
    begin: Ids = sizes * j // parts
    return begin
