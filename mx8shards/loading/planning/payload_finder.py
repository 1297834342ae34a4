"""Which payloads does a group of batches need, where do they lie, and how many bytes will their outputs have?

For most columns, the index or the lengths of samples tell the size of outputs. Where only few columns are wanted, or
where a stage gives rows of sizes that no table tells, payloads are measured: their heads are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mx8shards.errors import LoaderError, SettingError
from mx8shards.format.columns import MAX_BYTES
from mx8shards.loading.planning.groups import Group, Ids, Measured
from mx8shards.loading.planning.mds_rows import MdsRows
from mx8shards.loading.planning.shard_table import Reach
from mx8shards.loading.planning.work import Work
from mx8shards.loading.reporting.times import clock
from mx8shards.stages import Output, Stage

# What the lengths of samples tell of the bytes that their ragged outputs need.
Bound = Literal["tight", "loose", "none"]


class PayloadFinder:
    """The columns and stages of a loader, and the way to the payloads they need.

    reach   the shards
    wanted  the names of the columns to load
    stages  what makes rows of their payloads
    """

    def __init__(self, reach: Reach, wanted: Sequence[str], stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self.wanted = tuple(wanted)
        self.outputs = _together(self.stages)
        self.decodes = any(stage.kind == "decode" for stage in self.stages)
        self.reach = reach
        self._mds = MdsRows(reach.kinds, wanted)
        self._measuring = [stage for stage in self.stages if stage.measures]
        measured = {key for stage in self._measuring for key in stage.outputs}
        ragged = [key for key, output in self.outputs.items() if output.shape is None and key not in measured]
        self._ragged = {key: _column_of(key, wanted) for key in ragged}
        self._narrows = any(stage.narrows for stage in self.stages)
        self.overhead = self._mds.overhead(self._ragged)
        self.bound = self._bound()
        self._shrinks = True  # whether narrowing did so, the last time. Threads write it, and none waits for it
        self.takes_all = not self._narrows and self._mds.takes_all

    def _bound(self) -> Bound:
        if self._measuring:
            return "none"
        exact = self._mds.are_all_variable(self._ragged) and not self._narrows
        return "tight" if exact or not self._ragged else "loose"

    @property
    def _most_advised(self) -> int:
        """How much of a sample is asked for at once: of narrowed ones, the rest is asked for when that is done."""
        head_bytes = max(stage.head_bytes for stage in self.stages)
        if self.takes_all or (head_bytes and not self._shrinks):
            return MAX_BYTES
        return min(MAX_BYTES, max(self._mds.header_bytes + head_bytes, 1))

    def prepare(self, group: Group) -> list[object]:
        """Choose how each row is reached, and have cold ones fetched; what must be held until they are filled."""
        return self.reach.prepare(group.rows, self._most_advised)

    def find(self, group: Group, reads: bool) -> Work:
        """These rows with the spans of their payloads, narrowed to what stages need, and with what stages measure."""
        work = Work(group, self.reach.table, len(self.wanted), reads)
        if group.measured is None:
            self._mds.find_payloads(work.shards, work.rows, work.spans, work.totals)
            narrowed = [stage.narrow(work) for stage in self.stages if stage.narrows]
            if self._narrows and reads:
                self._shrinks = any(narrowed)
            if self._narrows:
                work.totals = work.spans["size"].sum(axis=0)
            work.measured = {key: sizes for stage in self._measuring for key, sizes in stage.measure(work).items()}
        return work

    def ragged_bytes(self, work: Work) -> dict[str, int]:
        """How many bytes the ragged outputs of all rows have, by key."""
        gathered = {key: int(work.totals[number]) for key, number in self._ragged.items()}
        return gathered | {key: int(sizes.sum()) for key, sizes in work.measured.items()}

    def measure(self, group: Group, bounds: Ids) -> tuple[Ids, Measured]:
        """How many bytes the ragged outputs have in each part of these rows, and what was found on the way.

        Rows that are found bad stay bad.
        """
        files = self.prepare(group)
        begun = clock()
        work = self.find(group, bool(files))
        sizes = [work.spans["size"][:, number] for number in self._ragged.values()]
        sizes += work.measured.values()
        ends = np.concatenate([[0], np.cumsum(np.sum(sizes, axis=0, dtype=np.int64))])
        if files:
            self.reach.files_s += clock() - begun
        return np.diff(ends[bounds]), Measured(work.spans, work.totals, work.measured, work.notes)


def _together(stages: Sequence[Stage]) -> dict[str, Output]:
    """The outputs of all stages; SettingError if two would give the same name to what they make."""
    outputs: dict[str, Output] = {}
    for stage in stages:
        for key, output in stage.outputs.items():
            if key in outputs:
                raise SettingError(
                    subject="decode", expected="a name of its own for everything in a batch", found=f"{key!r} twice"
                )
            outputs[key] = output
    return outputs


def _column_of(key: str, wanted: Sequence[str]) -> int:
    """The column whose payloads a ragged output holds."""
    if key not in wanted:
        raise LoaderError(
            subject=f"output {key!r}", expected="rows of one shape, or a column's payloads", found="neither"
        )
    return wanted.index(key)
