"""How do the pool's threads fill a group of batches? One begins, others help, and the last one sends the results."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from mx8shards.errors import LoaderError, without_locals
from mx8shards.kernels.records import OK
from mx8shards.loading.budget.banks import Reservation
from mx8shards.loading.execution import bad_samples
from mx8shards.loading.execution.crew import ResourceOf
from mx8shards.loading.execution.filling import Range
from mx8shards.loading.execution.results import Failed, Ready, Result
from mx8shards.loading.execution.run_state import Message, Restart, RunState
from mx8shards.loading.planning.groups import Group, Ids, Step
from mx8shards.loading.planning.work import Work
from mx8shards.loading.reporting.lost_samples import LostSample
from mx8shards.loading.reporting.times import Times, clock
from mx8shards.stages import NeedsWholeError


class FillTask:
    """The task of one group of batches: fill the bank, handle bad samples, and send the results to the consumer."""

    def __init__(
        self,
        state: RunState,
        number: int,
        group: Group,
        entries: tuple[LostSample, ...] = (),
        tried: dict[int, tuple[int, int, int]] | None = None,
    ) -> None:
        self.number = number  # of the first batch
        self.group = group
        self.reservation: Reservation | None = None
        self.held: list[object] = []  # files that must stay open
        self._state = state
        self._generation = state.generation
        self._entries = entries
        self._tried = {} if tried is None else tried
        self._times = Times()
        self._work: Work | None = None
        self._ranges: Iterator[Range] = iter(())
        self._count = 1
        self._ended: Iterator[int] = itertools.count()  # `next` of it is atomic under the GIL
        self.waits = False  # for parts of shards
        self._claims: Iterator[int] = itertools.count()  # atomic, too
        self._error: BaseException | None = None
        self._results: tuple[Result, ...] = ()

    def run_as_busy(self, act: Callable[[ResourceOf], None], resource_of: ResourceOf) -> None:
        """Call `act`; meanwhile the watchdog sees that this thread works for this loader."""
        busy = self._state.assembly.pool.busy_threads
        before = busy.begin(self._state.assembly)
        try:
            act(resource_of)
        finally:
            busy.end(before)

    def claim(self) -> bool:
        """Whether the caller may submit or fail a task that waits for parts of shards. True once."""
        self.waits = False
        return next(self._claims) == 0

    def blocks_have_come(self) -> None:
        """Note, for `stats`, when the parts of shards were there that the task waited for."""
        self._times.blocks_at = time.perf_counter()

    def fail(self, error: BaseException) -> None:
        """End the task with an error, before it has begun."""
        self._results = (Failed(without_locals(error)),)
        self._end()

    def begin(self, resource_of: ResourceOf) -> None:
        """Find the payloads, take a bank and fill ranges of rows; other threads help if the consumer waits."""
        state, filler = self._state, self._state.assembly.filler
        try:
            if self._is_void:
                raise _stopped()
            self._work = self._begin_work()
            starving = state.starving
            # One range has the least overhead. Several let a stopped run end sooner, and other threads help.
            shared = starving or filler.decodes
            ranges = filler.ranges(self._work) if shared else [(0, len(self._work.rows))]
        except BaseException as error:  # noqa: BLE001 - the consumer raises it
            self._results = (Failed(without_locals(error)),)
            self._end()
            return
        self._ranges, self._count = iter(ranges), len(ranges)
        # While batches are ready, one thread is enough for the next: the consumer may need the other cores.
        helpers = min(len(ranges), state.assembly.pool.threads) - 1 if starving else 0
        with suppress(LoaderError):  # the pool was closed: this thread fills all ranges
            for _ in range(helpers):
                state.assembly.pool.submit(partial(self.run_as_busy, self._fill), "first")
        self._fill(resource_of)

    def _begin_work(self) -> Work:
        assert self.reservation is not None
        is_void = partial(self._state.is_void, self.number, self._generation)
        filler = self._state.assembly.filler
        return filler.begin(self.group, self.reservation, bool(self.held), self._times, is_void)

    def _fill(self, resource_of: ResourceOf) -> None:
        """Fill ranges until none is left. The thread that completes the last range finishes the batches."""
        for start, stop in self._ranges:
            try:
                if self._error is None and not self._is_void and self._work is not None:
                    self._state.assembly.filler.fill(self._work, start, stop, resource_of, self._times)
            except BaseException as error:  # noqa: BLE001
                self._error = without_locals(error)  # locals hold payloads, and all batches ahead may fail
            if next(self._ended) + 1 == self._count:
                self._results = self._finished(resource_of)
                self._end()

    @property
    def _is_void(self) -> bool:
        return self._state.is_void(self.number, self._generation)

    def _finished(self, resource_of: ResourceOf) -> tuple[Result, ...]:
        """The results of all batches up to the first that failed; none if the run must restart for them."""
        if isinstance(self._error, NeedsWholeError) and not self._is_void:
            return self._again_whole(self._error.shard)
        if self._error is not None or self._work is None or self._is_void:
            return (Failed(self._error or _stopped()),)
        try:
            if not self._work.conclude():
                return self._make_results(self._work)
            return self._apply_on_error(self._work, resource_of)
        except BaseException as error:  # noqa: BLE001
            return (Failed(error),)

    def _again_whole(self, shard: int) -> tuple[Result, ...]:
        """Let the run restart here, with a whole shard instead of parts of it."""
        self._state.assembly.plan.shard_table.read_whole([shard])
        none = np.zeros(0, np.int64)
        self._restart(none, none)
        return ()

    def _restart(self, bad: Ids, positions: Ids) -> None:
        """Let the planner make this group again, with the samples at these view positions in the bad rows."""
        group = self.group._replace(measured=None)
        self._state.restarts.put(
            Restart(self.number, self._generation, group, bad, positions, self._entries, self._tried)
        )

    def _make_results(self, work: Work) -> tuple[Result, ...]:
        results: list[Result] = []
        for step in work.steps:
            try:
                results.append(self._ready(work, step))
            except BaseException as error:  # noqa: BLE001
                transformed = _described(work, step) if self._state.assembly.transform is not None else ""
                return (*results, Failed(error, transformed))
        return tuple(results)

    def _ready(self, work: Work, step: Step) -> Ready:
        assembly = self._state.assembly
        batch = assembly.filler.batch(work, step)
        if assembly.transform is not None:
            batch = self._transformed(batch, assembly.transform)
        entries = tuple(entry for entry in self._entries if entry.position == step.position)
        rows = step.stop - step.start
        size_bytes = work.layout.size_bytes * rows // max(1, len(work.rows))
        times, self._times = self._times, Times()
        return Ready(batch, self.group.epoch, step.position, rows, size_bytes, entries, times)

    def _transformed(self, batch: Any, transform: Callable[[Any], Any]) -> Any:
        self.held = []
        busy = self._state.assembly.pool.busy_threads
        before = busy.begin("transform")  # the watchdog ignores files that a transform reads
        begun = clock()
        try:
            batch = transform(batch)
        finally:
            busy.end(before)
        if batch is None:
            raise LoaderError("expected a batch from transform=, got None", hint="return the batch that it changed")
        self._times.add("transform", clock() - begun)
        return batch

    def _apply_on_error(self, work: Work, resource_of: ResourceOf) -> tuple[Result, ...]:
        """Apply `on_error`: skip or substitute bad rows, or return the batches before a bad row and its error."""
        assembly = self._state.assembly
        bad = np.flatnonzero(work.rows["status"] != OK)
        if assembly.on_error == "raise":
            good = [step for step in work.steps if step.stop <= bad[0]]
            error = assembly.filler.error_of(work, int(bad[0]))
            return (*(self._ready(work, step) for step in good), Failed(error))
        why = bad_samples.reasons(assembly.filler, work, bad)
        lost = work.rows["sample_id"][bad]
        if assembly.on_error == "skip":
            self._entries += bad_samples.entries(self.group, bad, lost, why, None)
            assembly.filler.remove_rows(work, bad)
            return self._make_results(work)
        positions = bad_samples.substitutes(assembly.plan, self.group, bad, lost, why, self._tried)
        work.release()
        self._work = None
        instead, _ = assembly.plan.resolve(positions, self.group.epoch)
        self._entries = bad_samples.with_substitutes(self._entries, self.group, bad, lost, why, instead, self._tried)
        again, self.reservation = None, None
        is_part = assembly.plan.shard_table.parts.among(self.group.rows["shard"]).any()
        if not is_part and assembly.plan.shard_table.are_here(instead):
            again = assembly.plan.replanned(self.group, bad, positions)
            self.reservation = assembly.budget.reserve(again.reserve_bytes)
        if again is None or self.reservation is None:
            self._restart(bad, positions)
            return ()
        self.group = again
        self.held = assembly.filler.finder.prepare(again)
        self._work = self._begin_work()
        assembly.filler.fill(self._work, 0, len(again.rows), resource_of, self._times)
        return self._finished(resource_of)

    def _end(self) -> None:
        """Send the results. The bank of batches that failed goes back first, so that the next step finds it free.

        Once the task is no longer in `filling`, no frame of this thread refers to a batch. So a thread waiting for an
        empty `filling` finds all memory returned.
        """
        state = self._state
        results, self._results = self._results, ()
        if self._work is not None and not all(isinstance(result, Ready) for result in results):
            self._work.release()  # a traceback may still refer to the work
        self._work = None
        self.group = self.group._replace(measured=None)  # its leases end before the planner sees that nothing is filled
        self.held = []
        if self.reservation is not None:
            self.reservation.cancel()
        wanted = bool(results) and not self._is_void
        if wanted:  # void results are dropped: an error in the queue and its run would keep each other alive
            state.results.put(Message(self.number, self._generation, results))
        del results
        state.filling.discard(self)
        if state.draining or state.waits_for_files or not wanted:
            state.wake()


def _stopped() -> LoaderError:
    return LoaderError("the run was stopped")


def _described(work: Work, step: Step) -> str:
    """The position and the sample_ids of a batch, for an error of the transform."""
    ids = work.rows["sample_id"][step.start : step.stop].tolist()
    some = ", ".join(map(str, ids[:8])) + (", …" if len(ids) > 8 else "")
    return f"transform of the batch at position {step.position}, sample_ids {some}"
