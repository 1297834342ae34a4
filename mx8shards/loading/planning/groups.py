"""What is a group? The records of consecutive batches that share a bank and a task (`batch_plan` chooses them)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.views import Extras

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class Step(NamedTuple):
    """One rank's batch of one step: its rows in its group, and where the step begins in the order of the epoch."""

    position: int
    start: int
    stop: int


class Measured(NamedTuple):
    """The spans and sizes found while a group was measured, so that filling it does not find them again."""

    spans: Array
    totals: Ids
    measured: Mapping[str, Ids]
    notes: dict[Any, Any]
    parts: list[tuple[Array, Array]]


class Group(NamedTuple):
    """Consecutive batches of one rank that share a bank: their rows, and an upper bound of the bank's size.

    Small batches are grouped, as the overhead of a bank and a task does not depend on their size. `absent` are the rows
    without a sample, where the order has padding; None if there are none.
    """

    epoch: int
    steps: tuple[Step, ...]
    rows: Array  # of records, ROW
    padding: npt.NDArray[np.bool_]
    extras: Extras
    reserve_bytes: int
    absent: Ids | None = None
    measured: Measured | None = None

    @property
    def position(self) -> int:
        """The order position at which the first batch begins."""
        return self.steps[0].position

    def step_of(self, row: int) -> Step:
        """The batch that a row belongs to."""
        return next(step for step in self.steps if row < step.stop)


def part_of(every: Group, positions: Sequence[int], bounds: Sequence[int], reserve_bytes: int) -> Group:
    """The group of the steps at these positions; step k has the rows bounds[k]:bounds[k + 1] of `every`."""
    first, last = bounds[0], bounds[-1]
    rows = slice(first, last)
    steps = tuple(
        Step(position, start - first, stop - first)
        for position, (start, stop) in zip(positions, pairwise(bounds), strict=True)
        if start < stop
    )
    extras = {name: values[rows] for name, values in every.extras.items()}
    absent = None if every.absent is None else _within(every.absent, first, last)
    measured = every.measured if last - first == len(every.rows) else None
    return Group(every.epoch, steps, every.rows[rows], every.padding[rows], extras, reserve_bytes, absent, measured)


def _within(rows: Ids, start: int, stop: int) -> Ids | None:
    """The row numbers within start:stop, relative to start; None if there are none."""
    found = rows[(rows >= start) & (rows < stop)] - start
    return found if len(found) else None
