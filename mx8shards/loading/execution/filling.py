"""How does a planned group of batches become batches?

prepare   choose the way to each row, and have cold ones fetched        (planner)
begin     read size headers, take a bank of the size that is needed     (a thread)
fill      every stage, for a range of rows                              (threads side by side)
batch     a part of the bank as a batch, if each row's status is good   (the thread that is last)
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from mx8shards.errors import FormatError, LoaderError, SettingError, ShardsError, without_traceback
from mx8shards.format.columns import MAX_BYTES, Columns
from mx8shards.kernels import gather
from mx8shards.kernels.records import NOT_OPENED
from mx8shards.kernels.residency import advise_spans
from mx8shards.loading.batch import Batch
from mx8shards.loading.execution.gather_stage import Work
from mx8shards.loading.execution.thread_resources import Resource
from mx8shards.loading.memory.banks import Reservation
from mx8shards.loading.memory.batch_layout import lay_out, offsets_of
from mx8shards.loading.planning.batch_plan import Bound, Group, Step
from mx8shards.loading.planning.shard_table import Ids, Reach
from mx8shards.loading.ragged import Ragged
from mx8shards.loading.reporting.times import Times, clock
from mx8shards.shards.shard import Shard
from mx8shards.stages import Output, Stage

Range = tuple[int, int]

_MOST_BRIEF = 16_384  # so many spans are found in the time that it takes to give up the GIL and get it back
_PIECE_BYTES = 1 << 20  # of a payload that is read again to find out what is wrong with it
_RANGE_BYTES = 2 << 20  # of what is only copied: smaller ranges would cost more in Python than they gain


class Filler:
    """What all batches of a loader have in common: columns, stages, and the way to the bytes."""

    def __init__(
        self,
        *,
        reach: Reach,
        wanted: Sequence[str],
        stages: Sequence[Stage],
        convert: Callable[[Any], Any],
        seed: int,
        most_ranges: int,
    ) -> None:
        self.stages = tuple(stages)
        self.outputs = _together(self.stages)
        self.pixels = {stage.columns[0]: stage.path for stage in stages if stage.path}
        self._reach = reach
        self._wanted = wanted
        kinds = reach.kinds
        self._kinds = np.array([(kind.variable, kind.fixed_bytes) for kind in kinds], np.int64)
        self._layouts = np.array([[_fields(kind, name) for name in wanted] for kind in kinds], np.int64)
        self._layouts = self._layouts.reshape(len(kinds), len(wanted), gather.LAYOUT_FIELDS)
        self._header_bytes = max((kind.header_bytes for kind in kinds), default=0)
        self._measuring = [stage for stage in self.stages if type(stage).measure is not Stage.measure]
        measured = {key for stage in self._measuring for key in stage.outputs}
        ragged = [key for key, output in self.outputs.items() if output.shape is None and key not in measured]
        self._ragged = {key: _column_of(key, wanted) for key in ragged}
        self._narrows = any(type(stage).narrow is not Stage.narrow for stage in self.stages)
        self.overhead = min((_overhead(kind, self._ragged) for kind in kinds), default=0)
        self.bound = self._bound()
        self._shrinks = True  # whether narrowing did so, the last time. Threads write it, and none waits for it
        self._takes_all = not self._narrows and all(len(kind.names) == len(wanted) for kind in kinds)
        self._decoders = {key: decode for stage in self.stages for key, decode in stage.decoders.items()}
        self._pictures = {key: output for key, output in self.outputs.items() if output.layout}
        self._convert = convert
        self._seed = seed
        self._most_ranges = most_ranges
        self.decodes = any(stage.kind == "decode" for stage in self.stages)
        self._range_bytes = 1 if self.decodes else _RANGE_BYTES

    @property
    def _most_advised(self) -> int:
        """How much of a sample is asked for at once: of narrowed ones, the rest is asked for when that is done."""
        head_bytes = max(stage.head_bytes for stage in self.stages)
        if self._takes_all or (head_bytes and not self._shrinks):
            return MAX_BYTES
        return min(MAX_BYTES, max(self._header_bytes + head_bytes, 1))

    def _bound(self) -> Bound:
        """What samples' lengths tell of the ragged outputs: a lot if these are all there is of variable size."""
        if self._measuring:
            return "none"
        kinds = [zip(kind.names, kind.sizes, strict=True) for kind in self._reach.kinds]
        same = all(name in self._ragged or size is not None for kind in kinds for name, size in kind)
        return "tight" if not self._ragged or (same and not self._narrows) else "loose"

    def measure(self, group: Group, bounds: Ids) -> Ids:
        """How many bytes the ragged outputs have in each part of these rows, by size headers, and heads of payloads.

        What is found bad on the way stays bad.
        """
        files = self._reach.prepare(group.rows, self._most_advised)
        begun = clock()
        work, _ = self._found(group, bool(files))
        sizes = [work.spans["size"][:, number] for number in self._ragged.values()]
        for stage in self._measuring:
            sizes += stage.measure(work).values()
        ends = np.concatenate([[0], np.cumsum(np.sum(sizes, axis=0, dtype=np.int64))])
        if files:
            self._reach.files_s += clock() - begun
        return np.diff(ends[bounds])

    def _found(self, group: Group, reads: bool) -> tuple[Work, Ids]:
        """These rows with the spans of their payloads, and how many bytes those of each column have."""
        work = Work(group, self._reach.table, len(self._wanted), reads)
        totals = np.empty(len(self._wanted), np.int64)
        if self._header_bytes or work.spans.size > _MOST_BRIEF:
            header = np.empty(self._header_bytes, np.uint8)
            gather.payload_spans(work.shards, self._kinds, self._layouts, header, work.rows, work.spans, totals)
        else:
            gather.fixed_spans(work.shards, self._kinds, self._layouts, work.rows, work.spans, totals)
        narrowed = [stage.narrow(work) for stage in self.stages]
        if self._narrows and reads:
            self._shrinks = any(narrowed)
        return work, work.spans["size"].sum(axis=0) if self._narrows else totals

    def prepare(self, group: Group) -> list[object]:
        """Choose how each row is reached; what must be held until it is filled."""
        return self._reach.prepare(group.rows, self._most_advised)

    def begin(self, group: Group, reservation: Reservation, reads: bool, times: Times) -> Work:
        """Find the payloads, and take a bank for them out of what was reserved."""
        begun = clock()
        work, totals = self._found(group, reads)
        if reads and not self._takes_all:
            advise_spans(work.rows, work.spans)
        ragged = {key: int(totals[number]) for key, number in self._ragged.items()}
        measured = {key: sizes for stage in self._measuring for key, sizes in stage.measure(work).items()}
        ragged |= {key: int(sizes.sum()) for key, sizes in measured.items()}
        work.layout = lay_out(self.outputs, len(work.rows), ragged)
        work.whole = np.asarray(reservation.take(work.layout.size_bytes))
        try:
            for key, sizes in measured.items():
                offsets = offsets_of(work.whole, work.layout.places[key], len(work.rows))
                offsets[0], offsets[1:] = 0, np.cumsum(sizes)
            if group.absent is not None:
                self._blank(work, group.absent)
            for stage in self.stages:
                stage.begin(work)
        except BaseException:
            work.release()  # a traceback may hold on to the rest
            raise
        times.add("read" if work.reads else "gather", clock() - begun)
        return work

    def _blank(self, work: Work, absent: Ids) -> None:
        """Zeros for rows that have no sample, which no stage fills. In ragged outputs they have no bytes."""
        for key, output in self.outputs.items():
            if output.shape is not None:
                work.array(key, output)[absent] = 0

    def ranges(self, work: Work) -> list[Range]:
        """Parts of the rows that take about as long as one another: those that cost most come first."""
        rows = work.rows
        count = min(len(rows), self._most_ranges, work.layout.size_bytes // self._range_bytes)
        if count <= 1:
            return [(0, len(rows))]
        ends = np.cumsum(np.sum([stage.costs(work) for stage in self.stages], axis=0))
        total = int(ends[-1])
        cuts = np.searchsorted(ends, total * np.arange(1, count) // count, side="right")
        bounds = np.unique(np.concatenate([[0], cuts, [len(rows)]]))
        before = np.concatenate([[0], ends])
        costs = before[bounds[1:]] - before[bounds[:-1]]
        return [(int(bounds[i]), int(bounds[i + 1])) for i in np.argsort(-costs, kind="stable")]

    def fill(self, work: Work, start: int, stop: int, resource: Callable[[Stage], Resource], times: Times) -> None:
        """Every stage, for these rows."""
        for stage in self.stages:
            begun = clock()
            with resource(stage) as mine:
                stage.fill(work, start, stop, mine)
            kind = "read" if work.reads and stage.kind == "gather" else stage.kind
            times.add(kind, clock() - begun)

    def batch(self, work: Work, step: Step) -> Batch:
        """One of the batches that lie in the bank."""
        mine = slice(step.start, step.stop)
        columns = {key: self._values(work, key, output, mine) for key, output in self.outputs.items()}
        sample_ids, padding = self._convert(work.sample_ids[mine]), self._convert(work.padding[mine].copy())
        extras = {name: self._convert(values[mine].copy()) for name, values in work.extras.items()}
        return Batch(columns, sample_ids, padding, work.epoch, self._seed, self._pictures, extras)

    def _values(self, work: Work, key: str, output: Output, rows: slice) -> Any:
        """What these rows have of an output, as a view of the bank."""
        values, place = work.array(key, output), work.layout.places[key]
        if place.offsets is None:
            return self._convert(values[rows])
        offsets = offsets_of(work.whole, place, len(work.rows))[rows.start : rows.stop + 1]
        if rows.start:  # another batch lies before it
            values, offsets = values[offsets[0] : offsets[-1]], offsets - offsets[0]
        elif rows.stop < len(work.rows):
            values = values[: offsets[-1]]
        return Ragged(self._convert(values), self._convert(offsets), self._decoders[key])

    def why(self, row: Any) -> Exception:
        """Why a row is bad: read it again, plainly, and give the error that comes of it.

        A payload is read in pieces, and whole only by a stage that has memory for it.
        """
        failure = self._reach.failure(int(row["shard"]))
        if failure is not None and row["status"] == NOT_OPENED:
            return failure
        try:
            shard, number = self._reach.locate(int(row["sample_id"]))
            spans = shard.payload_spans(number, [shard.columns.names.index(name) for name in self._wanted])
            for begin, size in spans:
                for _ in _pieces(shard, begin, size):
                    pass  # an error of reading comes first
            for column, (begin, size) in zip(self._wanted, spans, strict=True):
                for stage in self.stages:
                    if column in stage.columns:
                        reason = stage.why(size, partial(_head, shard, begin, size))
                        if reason is not None:
                            return without_traceback(_placed(reason, shard, number, column))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
            return without_traceback(error)
        return FormatError(
            subject=shard.name,
            place=f"sample {number}",
            expected="the bytes that were there when the shard was opened",
            found=f"others for a moment (status {int(row['status'])})",
        )

    def without(self, work: Work, bad: Ids) -> None:
        """Move the good rows to the front, and forget the bad ones."""
        is_good = np.ones(len(work.rows), bool)
        is_good[bad] = False
        good = np.flatnonzero(is_good)
        for key, output in self.outputs.items():
            place = work.layout.places[key]
            if place.offsets is None:
                array = work.array(key, output)
                for to, i in enumerate(good.tolist()):
                    array[to] = array[i]
                size = len(good) * (output.row_bytes or 0)
            else:
                offsets = offsets_of(work.whole, place, len(work.rows))
                values = work.array(key, output)
                size = 0
                for to, i in enumerate(good.tolist()):
                    begin, end = int(offsets[i]), int(offsets[i + 1])
                    values[size : size + end - begin] = values[begin:end].copy()
                    offsets[to] = size
                    size += end - begin
                offsets[len(good)] = size
            work.layout.places[key] = place._replace(value_bytes=size)
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


def _placed(reason: Exception, shard: Shard, number: int, column: str) -> Exception:
    """The error, which knows what is wrong with a payload, with the place where that lies."""
    if isinstance(reason, ShardsError):
        reason.at(subject=shard.name, place=f"sample {number}, column {column!r}")
    return reason


def _column_of(key: str, wanted: Sequence[str]) -> int:
    """The column whose payloads a ragged output holds."""
    if key not in wanted:
        raise LoaderError(
            subject=f"output {key!r}", expected="rows of one shape, or a column's payloads", found="neither"
        )
    return wanted.index(key)


def _overhead(columns: Columns, ragged: Container[str]) -> int:
    """How many bytes of each sample are in no ragged output, whatever is in its columns."""
    sizes = zip(columns.names, columns.sizes, strict=True)
    return columns.header_bytes + sum(size for name, size in sizes if size is not None and name not in ragged)


def _fields(columns: Columns, name: str) -> tuple[int, int, int]:
    """A line of the layouts that `payload_spans` and `fixed_spans` want."""
    number = columns.names.index(name)
    before = columns.sizes[:number]
    size = columns.sizes[number]
    return sum(s for s in before if s is not None), sum(s is None for s in before), -1 if size is None else size
