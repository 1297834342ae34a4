"""How do stages see the rows of a group of batches: their payloads, and later their bank?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels import gather
from mx8shards.kernels.records import OK, SPAN
from mx8shards.loading.memory.batch_layout import Layout, Place, array_of
from mx8shards.loading.planning.groups import Group, Measured, Step
from mx8shards.stages import Output

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class Work:
    """A group of batches that is being made: all that belongs to these batches and not to their stages.

    `spans` has a line per row and, in it, a span per wanted column, in the order of the columns' names. `totals` has
    the bytes of each column in all rows, and `measured` those of each row of the ragged outputs that stages measure.
    """

    whole: npt.NDArray[np.uint8]
    layout: Layout
    sample_ids: Ids
    measured: Mapping[str, Ids]
    notes: dict[Any, Any]

    def __init__(self, group: Group, shards: Array, columns: int, reads: bool) -> None:
        self.epoch = group.epoch
        self.steps: tuple[Step, ...] = group.steps
        self.reads = reads  # whether some rows are read, and not copied from a map
        self.rows = group.rows
        self.padding = group.padding
        self.extras = group.extras
        self.absent = group.absent
        self.shards = shards
        found = group.measured or Measured(
            np.empty((len(group.rows), columns), SPAN), np.empty(columns, np.int64), {}, {}
        )
        self.spans, self.totals, self.measured, self.notes = found

    def conclude(self) -> int:
        """Note which samples these are. How many of them went wrong?"""
        if self.absent is not None:
            self.rows["status"][self.absent] = OK  # there is nothing that could have gone wrong
        self.sample_ids = np.empty(len(self.rows), np.int64)
        bad = np.empty(1, np.int64)
        gather.count_failed(self.rows, self.sample_ids, bad)
        return int(bad[0])

    def release(self) -> None:
        """Let go of the bank."""
        del self.whole

    def place(self, key: str) -> Place:
        """Where an output lies in the bank."""
        return self.layout.places[key]

    def array(self, key: str, output: Output) -> Array:
        """An output's values, over the bank."""
        return array_of(self.whole, output, self.layout.places[key], len(self.rows))
