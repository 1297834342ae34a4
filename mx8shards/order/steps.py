"""Which part of an order is whose, and when is an epoch over?

One order per epoch is cut into global steps of batch_size · world_size positions, and rank r of a step takes a slice of
its own. All arithmetic begins at the number of positions that completed steps have consumed, which is equal on all
ranks: so any world and any batch size can go on where another one stopped.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SettingError, one_of, whole_number
from mx8shards.order.permutation import Ids

Uneven = Literal["split", "pad", "drop", "exact"]
UNEVEN: tuple[Uneven, ...] = ("split", "pad", "drop", "exact")

MOST_SAMPLES, MOST_RANKS = 1 << 40, 1 << 20  # of a batch, of a world: int64 holds every position a step may count to


class Share(NamedTuple):
    """What one rank gets of one step: positions of the order, and which of them are repeats that only fill it up."""

    positions: Ids
    padding: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """How an order of `length` positions is cut for `world_size` ranks with `batch_size` samples each.

    `uneven` says what becomes of the rest that is smaller than a step:

    "split"  all ranks get equal shares of it, to within one sample. If there are fewer samples than ranks, the ranks
             that would get none get one repeat each.
    "pad"    it is filled up with repeats, so that every batch has its full size.
    "drop"   it is left out, in this epoch.
    "exact"  the ranks' slices end where the order ends: the last ranks may get a short batch, or none.

    Repeats are what the order began with, marked as padding.

    `turns` says how many take turns: of the steps from a position on, this one gets the first and every `turns`-th
    after it. So the workers of a DataLoader together give the steps that one loader gives.
    """

    length: int
    batch_size: int
    world_size: int = 1
    uneven: Uneven = "split"
    turns: int = 1

    def __post_init__(self) -> None:
        for name, least, most in (
            ("length", 0, 2**62),
            ("batch_size", 1, MOST_SAMPLES),
            ("world_size", 1, MOST_RANKS),
            ("turns", 1, MOST_RANKS),
        ):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least, most))
        one_of("uneven", self.uneven, UNEVEN)

    @property
    def size(self) -> int:
        """Positions of a whole step, of all ranks together."""
        return self.batch_size * self.world_size

    @property
    def stride(self) -> int:
        """From the beginning of one step to that of the next, if several take turns."""
        return min(self.size * self.turns, 2**62)  # int64 holds it; no order is longer

    def left(self, position: int = 0) -> int:
        """How many steps the epoch has from this position on."""
        rest = self._rest(position)
        steps = rest // self.size if self.uneven == "drop" else -(-rest // self.size)
        return -(-steps // self.turns)

    def batches(self, rank: int, position: int = 0) -> int:
        """How many batches this rank gets from this position on: one per step, but for the last of "exact"."""
        steps = self.left(position)
        if self.uneven == "exact" and steps:
            begin, end = self._slice(rank, position + (steps - 1) * self.stride)
            return steps if begin < end else steps - 1
        return steps

    def share(self, rank: int, position: int) -> Share:
        """What this rank gets of the step that begins at this position. It is empty only where a rank gets no batch."""
        begin, end = self._slice(rank, position)
        counts = np.arange(begin, end, dtype=np.int64)
        padding = counts >= self.length
        return Share(counts % self.length if self.length else counts, padding)

    def shares(self, ranks: range, position: int, count: int) -> tuple[Ids, npt.NDArray[np.bool_], list[int]]:
        """What these ranks get of the next `count` steps, step by step and rank by rank in one row, with its bounds."""
        whole = min(count, -(-(self._rest(position) // self.size) // self.turns))
        begins = position + np.arange(whole)[:, None] * self.stride
        begins = begins + np.arange(ranks.start, ranks.stop) * self.batch_size
        rest = [self.share(rank, position + whole * self.stride) for rank in ranks] if whole < count else []
        counts = (begins.reshape(-1, 1) + np.arange(self.batch_size if whole else 0)).ravel()
        sizes = [self.batch_size] * begins.size + [len(share.positions) for share in rest]
        positions = np.concatenate([counts, *(share.positions for share in rest)])
        padding = np.concatenate([np.zeros(len(counts), bool), *(share.padding for share in rest)])
        return positions, padding, [0, *itertools.accumulate(sizes)]

    def after(self, epoch: int, position: int) -> tuple[int, int]:
        """Epoch and position when the step that begins here is done. At an epoch's end it is (epoch + 1, 0)."""
        done = position + self.stride
        return (epoch, done) if self.left(position) and self.left(min(done, self.length)) else (epoch + 1, 0)

    def at(self, step: int) -> int:
        """The position at which this step of an epoch begins, if the epoch is cut like this from its beginning."""
        if not 0 <= step < self.left():
            raise IndexError(f"step {step} of {self.left()}")
        return step * self.stride

    def _slice(self, rank: int, position: int) -> tuple[int, int]:
        """This rank's slice of the order; what lies beyond the order's end is a repeat."""
        if not 0 <= rank < self.world_size:
            raise SettingError(subject="rank", expected=f"an int from 0 to {self.world_size - 1}", found=f"{rank}")
        rest = self._rest(position)
        if not self.left(position):
            return position, position
        if rest >= self.size or self.uneven == "pad":
            begin, end = rank * self.batch_size, (rank + 1) * self.batch_size
        elif self.uneven == "exact":
            begin, end = min(rank * self.batch_size, rest), min((rank + 1) * self.batch_size, rest)
        else:
            shared = max(rest, self.world_size)
            begin, end = rank * shared // self.world_size, (rank + 1) * shared // self.world_size
        return position + begin, position + end

    def _rest(self, position: int) -> int:
        if not 0 <= position <= self.length:
            raise SettingError(subject="position", expected=f"an int from 0 to {self.length}", found=f"{position}")
        return self.length - position
