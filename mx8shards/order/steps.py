"""How is an epoch's order divided into global steps and the slices of ranks?

Each epoch has one order, which is cut into global steps of batch_size · world_size positions; each rank takes one slice
of a step. Everything is computed from the number of positions that completed steps have consumed. This number is equal
on all ranks, so a run can be resumed with another world size and batch size.
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

MOST_SAMPLES, MOST_RANKS = 1 << 40, 1 << 20  # per batch, and per world: all positions then fit into int64


class StepSlice(NamedTuple):
    """One rank's slice of one step: order positions, and which of them are padding (repeats)."""

    positions: Ids
    padding: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """Divides an order of `length` positions among `world_size` ranks with `batch_size` samples each.

    `uneven` selects how the rest of an epoch that is smaller than a step is handled:

    "split"  The ranks divide it evenly, to within one sample. If there are fewer samples than ranks, each rank without
             a sample gets one repeat.
    "pad"    Repeats fill it up, so that every batch has its full size.
    "drop"   It is left out of this epoch.
    "exact"  It is delivered without repeats: the last ranks may get a short batch, or none.

    Repeats are taken from the beginning of the order and marked as padding.

    `turns` is the number of loaders that take turns, such as the workers of a DataLoader: starting at a position, this
    one gets the first step and then every `turns`-th. Together they deliver the steps of a single loader.
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
        """The number of positions in a full step, over all ranks."""
        return self.batch_size * self.world_size

    @property
    def stride(self) -> int:
        """The number of positions from the beginning of one of this loader's steps to that of its next."""
        return min(self.size * self.turns, 2**62)  # no order is longer, and it fits into int64

    def left(self, position: int = 0) -> int:
        """The number of this loader's steps in the epoch from this position on."""
        rest = self._rest(position)
        steps = rest // self.size if self.uneven == "drop" else -(-rest // self.size)
        return -(-steps // self.turns)

    def batches(self, rank: int, position: int = 0) -> int:
        """The number of batches of this rank from this position on: one per step, except in the last one of "exact"."""
        steps = self.left(position)
        if self.uneven == "exact" and steps:
            begin, end = self._slice(rank, position + (steps - 1) * self.stride)
            return steps if begin < end else steps - 1
        return steps

    def slice_of(self, rank: int, position: int) -> StepSlice:
        """This rank's slice of the step that begins at this position; it is empty if the rank gets no batch."""
        begin, end = self._slice(rank, position)
        counts = np.arange(begin, end, dtype=np.int64)
        padding = counts >= self.length
        return StepSlice(counts % self.length if self.length else counts, padding)

    def slices_of(self, ranks: range, position: int, count: int) -> tuple[Ids, npt.NDArray[np.bool_], list[int]]:
        """The slices of these ranks in the next `count` steps: positions, padding, and the bounds of each slice.

        They are concatenated by step and, within a step, by rank.
        """
        whole = min(count, -(-(self._rest(position) // self.size) // self.turns))
        begins = position + np.arange(whole)[:, None] * self.stride
        begins = begins + np.arange(ranks.start, ranks.stop) * self.batch_size
        rest = [self.slice_of(rank, position + whole * self.stride) for rank in ranks] if whole < count else []
        counts = (begins.reshape(-1, 1) + np.arange(self.batch_size if whole else 0)).ravel()
        sizes = [self.batch_size] * begins.size + [len(each.positions) for each in rest]
        positions = np.concatenate([counts, *(each.positions for each in rest)])
        padding = np.concatenate([np.zeros(len(counts), bool), *(each.padding for each in rest)])
        return positions, padding, [0, *itertools.accumulate(sizes)]

    def after(self, epoch: int, position: int) -> tuple[int, int]:
        """The epoch and position after the step that begins here; after the last step of an epoch, (epoch + 1, 0)."""
        done = position + self.stride
        return (epoch, done) if self.left(position) and self.left(min(done, self.length)) else (epoch + 1, 0)

    def at(self, step: int) -> int:
        """The position at which this step of an epoch begins, if the whole epoch uses this division."""
        if not 0 <= step < self.left():
            raise IndexError(f"step {step} of {self.left()}")
        return step * self.stride

    def _slice(self, rank: int, position: int) -> tuple[int, int]:
        """Begin and end of this rank's slice of the order; positions beyond the order's end are repeats."""
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
