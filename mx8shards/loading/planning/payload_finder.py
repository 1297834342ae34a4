"""Which payloads does a group of batches need, where do they lie, and how many bytes will their outputs have?

For most columns, the index or the lengths of the samples bound the size of the outputs. If only a few columns are
wanted, or a stage's output sizes are in no table, the payloads are measured: their headers are read.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from mx8shards.errors import LoaderError, SettingError
from mx8shards.format.columns import MAX_BYTES
from mx8shards.kernels.records import NOT_OPENED, OK, SPAN
from mx8shards.loading.planning.groups import Array, Group, Ids, Measured
from mx8shards.loading.planning.partial_shards import Fetch, Lease, Spans
from mx8shards.loading.planning.shard_table import Provide, ShardTable
from mx8shards.loading.planning.work import IN_PARTS, Work
from mx8shards.loading.reporting.times import clock
from mx8shards.stages import Output, Stage

_LEASES = "leases"  # the key of notes
_MOST_AHEAD = 1 << 16  # bytes of a sample that are fetched with its size headers

# How well the lengths of samples bound the bytes of their ragged outputs.
Bound = Literal["tight", "loose", "none"]


class SpanFinder(Protocol):
    """Finds the payloads of rows in shards of one format. Nothing after this step depends on the format."""

    @property
    def header_bytes(self) -> int:
        """The maximum number of leading bytes of a sample that are read to find its payloads."""

    @property
    def takes_all(self) -> bool:
        """Whether all columns are wanted."""

    def are_all_variable(self, ragged: Container[str]) -> bool:
        """Whether no other columns vary in size."""

    def overhead(self, ragged: Container[str]) -> int:
        """A lower bound of the bytes of a sample outside of these columns."""

    def find_payloads(self, shards: Array, rows: Array, spans: Array, totals: Array) -> None:
        """Find the span of each row's wanted columns, and the bytes of each column in all rows."""


class PayloadFinder:
    """Finds the payloads that a loader's stages need, and measures them where no table has their sizes.

    shard_table  the shards
    wanted       the names of the columns to load
    stages       the stages that make rows of payloads
    span_finder  finds the payloads of rows in these shards
    """

    def __init__(
        self, shard_table: ShardTable, wanted: Sequence[str], stages: Sequence[Stage], span_finder: SpanFinder
    ) -> None:
        self.stages = tuple(stages)
        self.wanted = tuple(wanted)
        self.outputs = _merged_outputs(self.stages)
        self.decodes = any(stage.kind == "decode" for stage in self.stages)
        self.shard_table = shard_table
        self._span_finder = span_finder
        self._measuring = [stage for stage in self.stages if stage.measures]
        measured = {key for stage in self._measuring for key in stage.outputs}
        ragged = [key for key, output in self.outputs.items() if output.shape is None and key not in measured]
        self._ragged = {key: _column_of(key, wanted) for key in ragged}
        self._narrows = any(stage.narrows for stage in self.stages)
        self.overhead = self._span_finder.overhead(self._ragged)
        self.bound = self._bound()
        self._ahead_bytes = _MOST_AHEAD // 2  # of a sample, fetched with its size headers: what earlier samples needed
        self._fetched_s = 0.0  # time that the planner spent in `fetch`
        self._shrinks = True  # whether the last `narrow` shrank spans: a hint that threads write without a lock
        self.takes_all = not self._narrows and self._span_finder.takes_all
        narrowed = {name for stage in self.stages if stage.narrows for name in stage.columns}
        self._read_whole = [number for number, name in enumerate(wanted) if name not in narrowed]

    def _bound(self) -> Bound:
        if self._measuring:
            return "none"
        exact = self._span_finder.are_all_variable(self._ragged) and not self._narrows
        return "tight" if exact or not self._ragged else "loose"

    @property
    def _advised_bytes(self) -> int:
        """The bytes of a sample to read ahead at first. If stages narrow spans, the rest is read ahead after that."""
        head_bytes = max(stage.head_bytes for stage in self.stages)
        if self.takes_all or (head_bytes and not self._shrinks):
            return MAX_BYTES
        return min(MAX_BYTES, max(self._span_finder.header_bytes + head_bytes, 1))

    def prepare(self, group: Group, provide: Provide | None = None) -> list[object]:
        """Choose mmap or pread for each row, and start reading cold rows; the files to hold until rows are filled.

        `provide` makes evicted shards local again; None: this thread does that.
        """
        return self.shard_table.prepare(group.rows, self._advised_bytes, provide)

    def find(self, group: Group, reads: bool, fetch: Fetch | None = None) -> Work:
        """The spans of these rows' payloads, narrowed by the stages, and the output sizes that stages measure.

        In shards that are read in parts, `fetch` fetches the size headers and indices that say which parts of payloads
        are needed. None: there are no such shards.
        """
        work = Work(group, self.shard_table.records, len(self.wanted), reads)
        if group.measured is None:
            self._fetch_headers(work, fetch)
            self._span_finder.find_payloads(work.shards, work.rows, work.spans, work.totals)
            self._fetch_spans(work, fetch, [(_every(work), work.spans[:, number]) for number in self._read_whole])
            if fetch is not None:
                self._look_ahead(work)
            narrowed = [stage.narrow(work) for stage in self.stages if stage.narrows]
            if self._narrows and reads:
                self._shrinks = any(narrowed)
            if self._narrows:
                work.totals = work.spans["size"].sum(axis=0)
            work.measured = {key: sizes for stage in self._measuring for key, sizes in stage.measure(work).items()}
        return work

    def _fetch_headers(self, work: Work, fetch: Fetch | None) -> None:
        """Fetch the size headers of samples in shards that are read in parts, and with them what is read next."""
        heads = np.empty(len(work.rows), SPAN)
        heads["begin"] = work.rows["begin"]
        size_bytes = max(self._span_finder.header_bytes, self._ahead_bytes)
        heads["size"] = np.minimum(work.rows["end"] - work.rows["begin"], size_bytes)
        self._fetch_spans(work, fetch, [(_every(work), heads)])

    def _look_ahead(self, work: Work) -> None:
        """Note where the whole payloads of these samples end, if near: the next samples then cost a request less."""
        rows = work.rows["status"] == OK
        whole = work.spans[rows][:, self._read_whole]
        ends = whole["begin"] + whole["size"] - work.rows["begin"][rows, None]
        self._ahead_bytes = int(ends[ends <= _MOST_AHEAD].max(initial=0))

    def _fetch_spans(self, work: Work, fetch: Fetch | None, parts: Sequence[tuple[Array, Array]]) -> None:
        """Fetch these spans of rows in shards that are read in parts. They stay in memory as long as the work lives."""
        spans = None if fetch is None else self._spans_in_parts(work.rows, parts)
        if fetch is None or spans is None:
            return
        work.notes.setdefault(IN_PARTS, set()).update(np.unique(spans.shards).tolist())
        begun = clock()
        lease, errors = fetch(spans)
        self._fetched_s += clock() - begun
        work.notes.setdefault(_LEASES, []).append(lease)
        self.lose(work.rows, errors)

    def _spans_in_parts(self, rows: Array, parts: Sequence[tuple[Array, Array]]) -> Spans | None:
        """Those of these spans of rows that are in shards which are read in parts; None if there are none."""
        numbers = np.concatenate([np.zeros(0, np.int64), *(each for each, _ in parts)])
        spans = np.concatenate([np.zeros(0, SPAN), *(each for _, each in parts)])
        wanted = self.shard_table.parts.among(rows["shard"][numbers]) & (rows["status"][numbers] == OK)
        if not wanted.any():
            return None
        begins = spans["begin"][wanted]
        return Spans(rows["shard"][numbers[wanted]], begins, begins + spans["size"][wanted])

    def with_parts(self, group: Group, reads: bool, fetch: Fetch) -> tuple[Group, Spans | None]:
        """The group with what `find` found, and the parts that it needs of shards that are read in parts.

        None, and the group as it is, if none of its rows is in such a shard.
        """
        if not self.shard_table.parts.among(group.rows["shard"]).any():
            return group, None
        if group.measured is None:
            group = group._replace(measured=_measured(self.find(group, reads, fetch)))
        assert group.measured is not None
        return group, self._spans_in_parts(group.rows, group.measured.parts)

    def keep(self, group: Group, lease: Lease) -> None:
        """Keep leased blocks in memory until the group is filled."""
        assert group.measured is not None
        group.measured.notes.setdefault(_LEASES, []).append(lease)

    def lose(self, rows: Array, errors: Mapping[int, Exception]) -> None:
        """Blocks of some shards could not be fetched: raise the error, or mark the rows in these shards as bad."""
        for i, error in errors.items():
            self.shard_table.record_failure(i, error)
            rows["status"][rows["shard"] == i] = NOT_OPENED

    def ragged_bytes(self, work: Work) -> dict[str, int]:
        """The bytes of each ragged output in all rows."""
        gathered = {key: int(work.totals[number]) for key, number in self._ragged.items()}
        return gathered | {key: int(sizes.sum()) for key, sizes in work.measured.items()}

    def measure(self, group: Group, bounds: Ids, fetch: Fetch | None = None) -> tuple[Ids, Measured]:
        """The bytes of the ragged outputs in each part of these rows, and the measurements.

        Rows that turn out bad keep that status.
        """
        files = self.prepare(group)
        begun = clock() - self._fetched_s  # `fetch` counts what it waits
        work = self.find(group, bool(files), fetch)
        sizes = [work.spans["size"][:, number] for number in self._ragged.values()]
        sizes += work.measured.values()
        ends = np.concatenate([[0], np.cumsum(np.sum(sizes, axis=0, dtype=np.int64))])
        if files:
            self.shard_table.files_s += clock() - self._fetched_s - begun
        return np.diff(ends[bounds]), _measured(work)


def _measured(work: Work) -> Measured:
    return Measured(work.spans, work.totals, work.measured, work.notes, work.parts)


def _every(work: Work) -> Ids:
    return np.arange(len(work.rows))


def _merged_outputs(stages: Sequence[Stage]) -> dict[str, Output]:
    """The outputs of all stages; SettingError if two stages declare the same name."""
    outputs: dict[str, Output] = {}
    for stage in stages:
        for key, output in stage.outputs.items():
            if key in outputs:
                raise SettingError(subject="decode", expected="a unique name for each output", found=f"{key!r} twice")
            outputs[key] = output
    return outputs


def _column_of(key: str, wanted: Sequence[str]) -> int:
    """The number of the column whose payloads a ragged output holds."""
    if key not in wanted:
        raise LoaderError(
            subject=f"output {key!r}", expected="a fixed shape, or the name of a column of payloads", found="neither"
        )
    return wanted.index(key)
