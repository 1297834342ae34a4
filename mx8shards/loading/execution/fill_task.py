"""How do the pool's threads fill a group of batches? One begins, others may help, and the last one hands them over."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from mx8shards.errors import LoaderError, without_locals
from mx8shards.kernels.records import OK
from mx8shards.loading.execution import bad_samples
from mx8shards.loading.execution.crew import Scratch
from mx8shards.loading.execution.filling import Range
from mx8shards.loading.execution.results import Failed, Ready, Result
from mx8shards.loading.execution.run_state import Message, Restart, RunState
from mx8shards.loading.memory.banks import Reservation
from mx8shards.loading.planning.groups import Group, Step
from mx8shards.loading.planning.work import Work
from mx8shards.loading.reporting.lost_samples import LostSample
from mx8shards.loading.reporting.times import Times, clock


class FillTask:
    """The batches of one group on their way from a plan to the consumer."""

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
        self._ended: Iterator[int] = itertools.count()  # `next` of it is one step under the GIL
        self._error: BaseException | None = None
        self._results: tuple[Result, ...] = ()

    def at_work(self, act: Callable[[Scratch], None], scratch: Scratch) -> None:
        """Act, so that the watchdog sees for which loader this thread works."""
        working = self._state.assembly.pool.working
        before = working.begin(self._state.assembly)
        try:
            act(scratch)
        finally:
            working.end(before)

    def begin(self, scratch: Scratch) -> None:
        """Find the payloads, and share the copying of them with other threads if it is worth it."""
        state, filler = self._state, self._state.assembly.filler
        try:
            if self._is_void:
                raise _stopped()
            self._work = self._begun()
            starving = state.starving
            # one range costs least, but a run that is stopped is left between two of them
            shared = starving or filler.decodes
            ranges = filler.ranges(self._work) if shared else [(0, len(self._work.rows))]
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for the batch
            self._results = (Failed(without_locals(error)),)
            self._end()
            return
        self._ranges, self._count = iter(ranges), len(ranges)
        # While batches are ready, one thread is enough for the next: the consumer may need the other cores.
        helpers = min(len(ranges), state.assembly.pool.threads) - 1 if starving else 0
        with suppress(LoaderError):  # the pool was closed meanwhile: this thread fills it alone
            for _ in range(helpers):
                state.assembly.pool.submit(partial(self.at_work, self._fill), "first")
        self._fill(scratch)

    def _begun(self) -> Work:
        assert self.reservation is not None
        return self._state.assembly.filler.begin(self.group, self.reservation, bool(self.held), self._times)

    def _fill(self, scratch: Scratch) -> None:
        """Take ranges until there are none; whoever ends the last one finishes the batches."""
        for start, stop in self._ranges:
            try:
                if self._error is None and not self._is_void and self._work is not None:
                    self._state.assembly.filler.fill(self._work, start, stop, scratch, self._times)
            except BaseException as error:  # noqa: BLE001
                self._error = without_locals(error)  # all batches that are made ahead may fail, and keep payloads
            if next(self._ended) + 1 == self._count:
                self._results = self._finished(scratch)
                self._end()

    @property
    def _is_void(self) -> bool:
        return self._state.is_void(self.number, self._generation)

    def _finished(self, scratch: Scratch) -> tuple[Result, ...]:
        """The results of all batches, up to the first that failed; none if the run has to restart for them."""
        if self._error is not None or self._work is None or self._is_void:
            return (Failed(self._error or _stopped()),)
        try:
            if not self._work.conclude():
                return self._delivered(self._work)
            return self._mended(self._work, scratch)
        except BaseException as error:  # noqa: BLE001
            return (Failed(error),)

    def _delivered(self, work: Work) -> tuple[Result, ...]:
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
        working = self._state.assembly.pool.working
        before = working.begin("transform")  # files that it reads are not the loader's
        begun = clock()
        try:
            batch = transform(batch)
        finally:
            working.end(before)
        if batch is None:
            raise LoaderError("expected a batch from transform=, got None", hint="return the batch that it changed")
        self._times.add("transform", clock() - begun)
        return batch

    def _mended(self, work: Work, scratch: Scratch) -> tuple[Result, ...]:
        """The batches with their bad rows left out or replaced, if the user wants that; else those before the first."""
        assembly = self._state.assembly
        bad = np.flatnonzero(work.rows["status"] != OK)
        if assembly.on_error == "raise":
            good = [step for step in work.steps if step.stop <= bad[0]]
            error = assembly.filler.why(work.rows[bad[0]])
            return (*(self._ready(work, step) for step in good), Failed(error))
        why = bad_samples.reasons(assembly.filler, work.rows[bad])
        lost = work.rows["sample_id"][bad]
        if assembly.on_error == "skip":
            self._entries += bad_samples.entries(self.group, bad, lost, why, None)
            assembly.filler.without(work, bad)
            return self._delivered(work)
        positions = bad_samples.substitutes(assembly.plan, self.group, bad, lost, why, self._tried)
        work.release()
        self._work = None
        again = assembly.plan.again(self.group, bad, positions)
        instead = again.rows["sample_id"][bad]
        self._entries = bad_samples.with_substitutes(self._entries, self.group, bad, lost, why, instead, self._tried)
        self.group = again
        self.reservation = assembly.budget.reserve(again.reserve_bytes)
        if self.reservation is None:
            self._state.restarts.put(Restart(self.number, self._generation, again, self._entries, self._tried))
            return ()
        self.held = assembly.filler.finder.prepare(again)
        self._work = self._begun()
        assembly.filler.fill(self._work, 0, len(again.rows), scratch, self._times)
        return self._finished(scratch)

    def _end(self) -> None:
        """Hand over the results. The memory of batches that failed goes back before anyone hears of it.

        When the task is no longer among those that are filled, no frame of this thread refers to a batch: whoever waits
        for that finds all memory given back.
        """
        state = self._state
        results, self._results = self._results, ()
        if self._work is not None and not all(isinstance(result, Ready) for result in results):
            self._work.release()  # a traceback may hold on to the rest
        self._work = None
        self.held = []
        if self.reservation is not None:
            self.reservation.cancel()
        wanted = bool(results) and not self._is_void
        if wanted:  # else nobody takes them, and an error would keep this run, and the run the error
            state.results.put(Message(self.number, self._generation, results))
        del results
        state.filling.discard(self)
        if state.drains or state.waits_for_files or not wanted:
            state.wake()


def _stopped() -> LoaderError:
    return LoaderError("the run was stopped")


def _described(work: Work, step: Step) -> str:
    """The step of a batch and the samples in it, in a few words."""
    ids = work.rows["sample_id"][step.start : step.stop].tolist()
    some = ", ".join(map(str, ids[:8])) + (", …" if len(ids) > 8 else "")
    return f"transform of the batch at position {step.position}, sample_ids {some}"
