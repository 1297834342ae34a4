"""What is an order, and how does it map order positions to view positions (Sequential, Shuffle)?

In every epoch, an order maps its order positions (0 to length - 1; its methods call them counts) to positions of the
view. It is a pure function, so resuming needs only the epoch and the count. `steps` divides an order into the batches
of each rank. `shards_ahead` finds the shards that an order needs next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mx8shards.order.keys import Key
from mx8shards.order.per_epoch import PerEpoch
from mx8shards.order.permutation import Ids, Permutation, Walk, checked_count
from mx8shards.order.shard_lookup import ShardLookup

Description = dict[str, Any]

PADDING = -1

_FIRST_RUN, _LAST_RUN = 1 << 10, 1 << 16


class Order(Protocol):
    """A sequence of view positions for each epoch. Positions may repeat; PADDING marks a row without a sample.

    An order may depend on the number of nodes it is made for. Its description then contains that number, so that a run
    resumed from a state continues with that order on any number of nodes.
    """

    def __len__(self) -> int:
        """The number of positions in an epoch, which may differ from the length of the view."""

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The view positions at these counts (order positions from 0 to before len)."""

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """The view positions at the counts from start to before stop."""

    @property
    def description(self) -> Description:
        """The order's identity in a state, as JSON: a name whose meaning never changes, and all that it depends on."""


class Sequential:
    """The positions of the view in ascending order, in every epoch."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The counts unchanged."""
        return counts

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """The integers from start to before stop."""
        return np.arange(start, stop, dtype=np.int64)

    @property
    def description(self) -> Description:
        """The order's name."""
        return {"name": "sequential"}


class Shuffle:
    """Every position once, in a uniformly random order that takes no memory (spec §12.4)."""

    def __init__(self, count: int, key: Key, walk: Walk | None = None) -> None:
        self._count = checked_count(count)
        self._key = key
        self._walk = walk
        self._permutations = PerEpoch[Permutation]()

    def __len__(self) -> int:
        return self._count

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The view positions at these order positions (`counts`)."""
        return self._permutations.get(epoch, self._permutation).of(counts)

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """The view positions at the order positions from start to before stop."""
        return self.at(epoch, np.arange(start, stop, dtype=np.int64))

    @property
    def description(self) -> Description:
        """The order's name."""
        return {"name": "shuffle"}

    def _permutation(self, epoch: int) -> Permutation:
        return Permutation(len(self), self._key.words("shuffle", epoch), self._walk)


def first_needed(shards: Ids, seen: npt.NDArray[np.bool_]) -> list[int]:
    """Mark these shards as seen, and return those that were not seen before, each once, in the order of first use."""
    found, first = np.unique(shards, return_index=True)
    new = ~seen[found]
    seen[found] = True
    needed: list[int] = found[new][np.argsort(first[new])].tolist()
    return needed


def shards_ahead(order: Order, lookup: ShardLookup, epoch: int, position: int, n: int) -> Iterator[int]:
    """The shards that the next n positions of an epoch need: each once, in the order of first use.

    The order is read lazily, in runs that grow, until every shard was found.
    """
    seen = np.zeros(lookup.shards, bool)
    missing = int(np.count_nonzero(np.diff(lookup.starts)))
    stop, run = min(position + n, len(order)), _FIRST_RUN
    while position < stop and missing:
        ids = order.ids(epoch, position, min(position + run, stop))
        new = first_needed(lookup.shards_of(ids[ids != PADDING], epoch), seen)
        missing -= len(new)
        yield from new
        position, run = position + run, min(2 * run, _LAST_RUN)
