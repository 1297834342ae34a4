"""How is a planned group of batches filled: which steps, in which threads?

prepare   choose mmap or pread for each row, start reading cold rows    (planner)
begin     read size headers, take a bank of the exact size              (first thread)
fill      run every stage for a range of rows                           (several threads)
batch     wrap each step's part of the bank in a Batch                  (last thread)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from mx8shards.errors import FormatError, ShardsError, without_traceback
from mx8shards.format.columns import MAX_BYTES
from mx8shards.kernels.records import NOT_OPENED, REFUSED
from mx8shards.kernels.residency import advise_spans
from mx8shards.loading.batch import Batch
from mx8shards.loading.budget.banks import Reservation
from mx8shards.loading.budget.batch_layout import lay_out, offsets_of
from mx8shards.loading.execution.thread_resources import Resource
from mx8shards.loading.planning.groups import Group, Ids, Step
from mx8shards.loading.planning.payload_finder import PayloadFinder
from mx8shards.loading.planning.work import Work
from mx8shards.loading.ragged import Ragged
from mx8shards.loading.reporting.times import Times, clock
from mx8shards.shards.shard import Shard
from mx8shards.stages import Output, Stage

Range = tuple[int, int]

_PIECE_BYTES = 1 << 20  # a bad payload is read again in pieces of this size, to find the error
_RANGE_BYTES = 4 << 20  # of payloads that are only copied: for each range, threads wait for the GIL


class Filler:
    """Fills banks with the payloads of groups, and makes batches from them.

    finder       finds the payloads that the batches need
    convert      turns an array over the bank into the user's tensor or array
    seed         the loader's seed
    max_ranges   the maximal number of ranges into which the rows of a group are cut
    """

    def __init__(self, finder: PayloadFinder, *, convert: Callable[[Any], Any], seed: int, max_ranges: int) -> None:
        self.finder = finder
        self.stages = finder.stages
        self.outputs = finder.outputs
        self.decodes = finder.decodes
        self.pixels = {stage.columns[0]: stage.path for stage in self.stages if stage.path}
        self._shard_table = finder.shard_table
        self._wanted = finder.wanted
        self._decoders = {key: decode for stage in self.stages for key, decode in stage.decoders.items()}
        self._pictures = {key: output for key, output in self.outputs.items() if output.layout}
        self._convert = convert
        self._seed = seed
        self._max_ranges = max_ranges
        self._range_bytes = 1 if self.decodes else _RANGE_BYTES

    def begin(
        self, group: Group, reservation: Reservation, reads: bool, times: Times, is_stopped: Callable[[], bool]
    ) -> Work:
        """Find the payloads, and take a bank of their size from the reservation."""
        begun = clock()
        work = self.finder.find(group, reads)
        work.is_stopped = is_stopped
        if reads and not self.finder.takes_all:
            advise_spans(work.rows, work.spans)
            for rows, spans in work.parts:
                advise_spans(work.rows[rows], spans[:, None])
        work.layout = lay_out(self.outputs, len(work.rows), self.finder.ragged_bytes(work))
        work.whole = np.asarray(reservation.take(work.layout.size_bytes))
        try:
            for key, sizes in work.measured.items():
                offsets = offsets_of(work.whole, work.layout.regions[key], len(work.rows))
                offsets[0], offsets[1:] = 0, np.cumsum(sizes)
            if group.absent is not None:
                self._blank(work, group.absent)
            for stage in self.stages:
                stage.begin(work)
        except BaseException:
            work.release()  # a traceback may keep the rest alive
            raise
        times.add("read" if work.reads else "gather", clock() - begun)
        return work

    def _blank(self, work: Work, absent: Ids) -> None:
        """Write zeros into rows without a sample, which no stage fills. In ragged outputs these rows are empty."""
        for key, output in self.outputs.items():
            if output.shape is not None:
                work.array(key, output)[absent] = 0

    def ranges(self, work: Work) -> list[Range]:
        """Ranges of rows of about equal cost, the most expensive first."""
        rows = work.rows
        count = min(len(rows), self._max_ranges, work.layout.size_bytes // self._range_bytes)
        if count <= 1:
            return [(0, len(rows))]
        costs = rows["end"] - rows["begin"]  # of copying: quicker to compute than the sum of the payload sizes
        for stage in self.stages:
            more = stage.costs(work)
            costs = costs if more is None else costs + more
        ends = np.cumsum(costs)
        total = int(ends[-1])
        cuts = np.searchsorted(ends, total * np.arange(1, count) // count, side="right")
        bounds = np.unique(np.concatenate([[0], cuts, [len(rows)]]))
        before = np.concatenate([[0], ends])
        of_ranges = before[bounds[1:]] - before[bounds[:-1]]
        return [(int(bounds[i]), int(bounds[i + 1])) for i in np.argsort(-of_ranges, kind="stable")]

    def fill(self, work: Work, start: int, stop: int, resource: Callable[[Stage], Resource], times: Times) -> None:
        """Run every stage for these rows, with this thread's resource for the stage."""
        for stage in self.stages:
            begun = clock()
            if stage.opens_thread:
                with resource(stage) as mine:
                    stage.fill(work, start, stop, mine)
            else:
                stage.fill(work, start, stop, None)
            kind = "read" if work.reads and stage.kind == "gather" else stage.kind
            times.add(kind, clock() - begun)

    def batch(self, work: Work, step: Step) -> Batch:
        """The batch of one step, whose columns are views of the bank."""
        mine = slice(step.start, step.stop)
        columns = {key: self._values(work, key, output, mine) for key, output in self.outputs.items()}
        sample_ids, padding = self._convert(work.sample_ids[mine]), self._convert(work.padding[mine].copy())
        extras = {name: self._convert(values[mine].copy()) for name, values in work.extras.items()}
        return Batch(columns, sample_ids, padding, work.epoch, self._seed, self._pictures, extras)

    def _values(self, work: Work, key: str, output: Output, rows: slice) -> Any:
        """These rows of an output, as a view of the bank."""
        values, region = work.array(key, output), work.layout.regions[key]
        if region.offsets is None:
            return self._convert(values[rows])
        offsets = offsets_of(work.whole, region, len(work.rows))[rows.start : rows.stop + 1]
        if rows.start:  # another batch precedes it in the bank
            values, offsets = values[offsets[0] : offsets[-1]], offsets - offsets[0]
        elif rows.stop < len(work.rows):
            values = values[: offsets[-1]]
        return Ragged(self._convert(values), self._convert(offsets), self._decoders[key])

    def error_of(self, work: Work, index: int) -> Exception:
        """Read a bad row again through the plain path, and return the error that this raises.

        Stages that keep the errors of rows are asked first. Payloads are read in pieces; only a stage that has memory
        for a whole payload reads one at once.
        """
        row = work.rows[index]
        failure = self._shard_table.failure(int(row["shard"]))
        if failure is not None and row["status"] == NOT_OPENED:
            return failure
        try:
            name, number = self._shard_table.place_of(int(row["sample_id"]))
            for stage in self.stages:
                reason = stage.reason(work, index)
                if reason is not None and row["status"] == REFUSED:
                    return _placed(copy.copy(reason), name, number, stage.columns[0])
            shard, number = self._shard_table.locate(int(row["sample_id"]))
            spans = shard.payload_spans(number, [shard.columns.names.index(name) for name in self._wanted])
            for begin, size in spans:
                for _ in _pieces(shard, begin, size):
                    pass  # an I/O error takes precedence over the stages' errors
            for column, (begin, size) in zip(self._wanted, spans, strict=True):
                for stage in self.stages:
                    if column in stage.columns:
                        reason = stage.why(size, partial(_head, shard, begin, size))
                        if reason is not None:
                            return without_traceback(_placed(reason, name, number, column))
        except Exception as error:  # noqa: BLE001 - any error is the reason
            return without_traceback(error)
        return FormatError(
            subject=name,
            place=f"sample {number} of this shard",
            expected="the bytes that were there when the shard was opened",
            found=f"other bytes while the batch was filled (status {int(row['status'])})",
        )

    def remove_rows(self, work: Work, bad: Ids) -> None:
        """Remove bad rows: move the good rows to the front of each output."""
        is_good = np.ones(len(work.rows), bool)
        is_good[bad] = False
        good = np.flatnonzero(is_good)
        for key, output in self.outputs.items():
            region = work.layout.regions[key]
            if region.offsets is None:
                array = work.array(key, output)
                for to, i in enumerate(good.tolist()):
                    array[to] = array[i]
                size = len(good) * (output.row_bytes or 0)
            else:
                offsets = offsets_of(work.whole, region, len(work.rows))
                values = work.array(key, output)
                size = 0
                for to, i in enumerate(good.tolist()):
                    begin, end = int(offsets[i]), int(offsets[i + 1])
                    values[size : size + end - begin] = values[begin:end].copy()
                    offsets[to] = size
                    size += end - begin
                offsets[len(good)] = size
            work.layout.regions[key] = region._replace(value_bytes=size)
        work.rows, work.padding, work.sample_ids = work.rows[good], work.padding[good], work.sample_ids[good]
        work.extras = {name: values[good] for name, values in work.extras.items()}
        before = np.concatenate([[0], np.cumsum(is_good)]).tolist()
        work.steps = tuple(Step(step.position, before[step.start], before[step.stop]) for step in work.steps)


def _head(shard: Shard, begin: int, size: int, most: int = MAX_BYTES) -> bytes:
    """The first bytes of a payload, or all of it."""
    return shard.read_payload(begin, min(size, most))


def _pieces(shard: Shard, begin: int, size: int) -> Iterator[bytes]:
    """A payload, read piece by piece."""
    for at in range(begin, begin + size, _PIECE_BYTES):
        yield shard.read_payload(at, min(_PIECE_BYTES, begin + size - at))


def _placed(reason: Exception, name: str, number: int, column: str) -> Exception:
    """The error with the shard, sample and column that it is about."""
    if isinstance(reason, ShardsError):
        reason.at(subject=name, place=f"sample {number} of this shard, column {column!r}")
    return reason
