"""Which position of a view comes when?

An order counts from 0 to before its length in every epoch, and says which position of the view stands at each count.
It is a pure function: whoever remembers the epoch and the count can go on from there. It knows nothing of ranks and
batches, which `steps` cuts, nor of shards: `shards_ahead` finds those that it needs next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from mx8shards.order.keys import Key
from mx8shards.order.per_epoch import PerEpoch
from mx8shards.order.permutation import Ids, Permutation, Walk, checked_count
from mx8shards.order.places import Places

Description = dict[str, Any]

PADDING = -1

_FIRST_RUN, _LAST_RUN = 1 << 10, 1 << 16


class Order(Protocol):
    """Positions of a view, in an order of each epoch's own. Some may repeat; PADDING stands where there is none.

    An order may depend on the number of nodes it is made for. It keeps that number in its description: so a state that
    holds it goes on with that order on any number of nodes.
    """

    def __len__(self) -> int:
        """How many there are in an epoch: `len` of the order, not of the view."""

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The positions of the view that stand at these counts, each from 0 to before len."""

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """Those from start to before stop."""

    @property
    def description(self) -> Description:
        """What a state keeps of the order, as JSON: a name, which keeps its meaning for ever, and all it depends on."""


class Sequential:
    """The view as it is, in every epoch."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The counts themselves."""
        return counts

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """The range itself."""
        return np.arange(start, stop, dtype=np.int64)

    @property
    def description(self) -> Description:
        """Its name."""
        return {"name": "sequential"}


class Shuffle:
    """Every position once, any order of them as likely as any other, and nothing held in memory (spec §12.4)."""

    def __init__(self, count: int, key: Key, walk: Walk | None = None) -> None:
        self._count = checked_count(count)
        self._key = key
        self._walk = walk
        self._permutations = PerEpoch[Permutation]()

    def __len__(self) -> int:
        return self._count

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The positions of the view that stand at these counts."""
        return self._permutations.get(epoch, self._permutation).of(counts)

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """Those from start to before stop."""
        return self.at(epoch, np.arange(start, stop, dtype=np.int64))

    @property
    def description(self) -> Description:
        """Its name."""
        return {"name": "shuffle"}

    def _permutation(self, epoch: int) -> Permutation:
        return Permutation(len(self), self._key.words("shuffle", epoch), self._walk)


def shards_ahead(order: Order, places: Places, epoch: int, position: int, n: int) -> Iterator[int]:
    """The shards that the next n of an epoch need, each once, in the order of first need.

    They are found lazily, in runs of positions that grow, until every shard was seen.
    """
    seen = np.zeros(places.shards, bool)
    missing = int(np.count_nonzero(np.diff(places.starts)))
    stop, run = min(position + n, len(order)), _FIRST_RUN
    while position < stop and missing:
        ids = order.ids(epoch, position, min(position + run, stop))
        shards, first = np.unique(places.shards_of(ids[ids != PADDING], epoch), return_index=True)
        new = ~seen[shards]
        seen[shards] = True
        missing -= int(np.count_nonzero(new))
        yield from shards[new][np.argsort(first[new])].tolist()
        position, run = position + run, min(2 * run, _LAST_RUN)
