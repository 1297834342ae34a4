"""Which state do the stages of a group of batches share: rows, payload spans, and later the bank?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels import gather
from mx8shards.kernels.records import OK, SPAN
from mx8shards.loading.budget.batch_layout import Layout, Region, array_of
from mx8shards.loading.planning.groups import Group, Measured, Step
from mx8shards.stages import NeedsWholeError, Output

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

IN_PARTS = "shards in parts"  # the key of notes


class Work:
    """The state of a group of batches while stages fill it. Stages themselves are immutable.

    `spans[row, column]` is the payload's (begin, size) in its shard, for the wanted columns. `totals` is the number of
    payload bytes of each column in all rows. `measured` has, for each ragged output that a stage measures, the bytes of
    each row.
    """

    whole: npt.NDArray[np.uint8]
    layout: Layout
    sample_ids: Ids
    measured: Mapping[str, Ids]
    notes: dict[Any, Any]
    parts: list[tuple[Array, Array]]
    is_stopped: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(self, group: Group, shards: Array, columns: int, reads: bool) -> None:
        self.epoch = group.epoch
        self.steps: tuple[Step, ...] = group.steps
        self.reads = reads  # whether some rows are read with system calls, not copied from a map
        self.rows = group.rows
        self.padding = group.padding
        self.extras = group.extras
        self.absent = group.absent
        self.shards = shards
        found = group.measured or Measured(
            np.empty((len(group.rows), columns), SPAN), np.empty(columns, np.int64), {}, {}, []
        )
        self.spans, self.totals, self.measured, self.notes, self.parts = found

    def conclude(self) -> int:
        """Store the sample_ids, and count the bad rows."""
        if self.absent is not None:
            self.rows["status"][self.absent] = OK  # rows without a sample cannot be bad
        self.sample_ids = np.empty(len(self.rows), np.int64)
        bad = np.empty(1, np.int64)
        gather.count_failed(self.rows, self.sample_ids, bad)
        return int(bad[0])

    def release(self) -> None:
        """Drop the reference to the bank."""
        del self.whole

    def require_whole(self, row: int) -> None:
        """NeedsWholeError if the row is in a shard that is read in parts: other bytes of it are not here."""
        shard = int(self.rows["shard"][row])
        if shard in self.notes.get(IN_PARTS, ()):
            raise NeedsWholeError(shard)

    def region(self, key: str) -> Region:
        """The region of an output in the bank."""
        return self.layout.regions[key]

    def array(self, key: str, output: Output) -> Array:
        """An output's values, over the bank."""
        return array_of(self.whole, output, self.layout.regions[key], len(self.rows))
