"""How are the batches of an epoch planned and started? The planner thread of a run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from mx8shards.errors import LoaderError, without_locals
from mx8shards.loading.execution.admission import Admission
from mx8shards.loading.execution.block_fetch import BlockFetch
from mx8shards.loading.execution.calls import Errors
from mx8shards.loading.execution.fill_task import FillTask
from mx8shards.loading.execution.following import Following
from mx8shards.loading.execution.provisions import Provisions
from mx8shards.loading.execution.results import Done, Failed, Result
from mx8shards.loading.execution.run_state import Cut, Message, Restart, RunState
from mx8shards.loading.planning.groups import Group
from mx8shards.loading.planning.partial_shards import Needed, PartsTooLargeError
from mx8shards.loading.reporting.times import clock


class Planner:
    """Plans groups of batches, waits for the admission of each group, and submits it to the pool."""

    def __init__(self, state: RunState, admission: Admission) -> None:
        self._state = state
        self._admission = admission
        self._planning_since = 0.0  # by `_clock`
        self.planned_s = 0.0
        self._wanted: Restart | None = None
        self._fetch: BlockFetch | None = None

    def run(self) -> None:
        """Start all batches of the epoch, and wait until their tasks have ended or the run is stopped."""
        state, plan = self._state, self._state.assembly.plan
        busy = state.assembly.pool.busy_threads
        state.began.set()
        busy.begin(state.assembly)
        self._planning_since = self._clock()
        try:
            self._start_all(None, state.position)
            while self._is_interrupted() and self._wanted is not None and not state.stopped:
                restart, self._wanted = self._wanted, None
                self._cut(restart)
                self._start_all(restart, plan.after(restart.group))
        finally:
            busy.end(None)
            self._cancel_provisions()
            if state.stopped:
                self._end_waiting_tasks()
            state.ended.set()

    def _start_all(self, restart: Restart | None, position: int) -> None:
        """Start the batches of a restart, if there is one, then all from a position on, until an interruption."""
        try:
            for task in self._tasks(restart, position):
                if not self._start(task):
                    break
        except BaseException as error:  # noqa: BLE001 - the consumer raises it
            self._conclude(Failed(without_locals(error)))
        else:
            self._conclude(Done())

    def _conclude(self, last: Result) -> None:
        """Hand over the end or the error of the epoch, and wait for the tasks, as one of them may ask for a restart.

        No frame in an error's traceback may refer to the error: such a cycle would keep the run alive until a garbage
        collection.
        """
        if not self._is_interrupted():
            self._state.results.put(Message(self._state.started, self._state.generation, (last,)))
            self._drain()

    def _tasks(self, restart: Restart | None, position: int) -> Iterator[FillTask]:
        state, plan = self._state, self._state.assembly.plan
        if restart is None:
            plan.begin_epoch()  # in this thread, as it may wait for files
        self._cancel_provisions()  # of the plan before a restart
        begin = position if restart is None else restart.group.position
        following = Following(plan, state.epoch, begin, self._in_flight)
        provisions = state.provisions = Provisions(
            plan.shard_table.parts,
            state.assembly.provider_threads.submit,
            self._is_interrupted,
            following.upcoming(plan.upcoming_shards(state.epoch, position)),
            state.provided_s,
            following,
        )
        self._fetch = BlockFetch(plan.shard_table.parts, provisions, lambda: bool(state.filling), self._is_interrupted)
        provisions.fetch = self._fetch
        if restart is not None:
            group = plan.replanned(restart.group, restart.bad, restart.positions, provisions)
            yield FillTask(state, restart.number, group, restart.entries, restart.tried)
        for group in plan.batches(state.epoch, position, provisions):
            yield FillTask(state, state.started, group)

    def _cancel_provisions(self) -> None:
        provisions, self._state.provisions = self._state.provisions, None  # they refer to this planner
        self._fetch = None
        if provisions is not None:
            provisions.end()

    def _in_flight(self) -> list[Group]:
        """The groups that are being filled."""
        return [task.group for task in self._state.filling.copy()]

    def _clock(self) -> float:
        """A clock that stops while this thread compiles, opens files or waits for shards."""
        state = self._state
        return clock() - state.assembly.plan.shard_table.files_s - sum(state.provided_s.values())

    def _start(self, task: FillTask) -> bool:
        """Wait for memory and submit a task; False if the planner is interrupted meanwhile."""
        state = self._state
        self.planned_s += max(0.0, self._clock() - self._planning_since)
        reservation = self._admission.admit(task.group, self._is_interrupted)
        if reservation is None:
            return False
        self._planning_since = self._clock()
        task.reservation = reservation
        try:
            needed = self._prepare(task)
            state.filling.add(task)
            state.started += len(task.group.steps)
            if needed is None:
                self._submit(task)
            elif self._fetch is not None:
                task.waits = True
                self._fetch.begin(needed, partial(self._arrived, task))
        except BaseException:  # a shard is gone or the pool is closed: no thread will fill these batches
            task.claim()
            if task in state.filling:
                state.filling.discard(task)
                state.started -= len(task.group.steps)
            reservation.cancel()
            task.held = []  # the error's traceback refers to the task
            raise
        return True

    def _submit(self, task: FillTask) -> None:
        self._state.assembly.pool.submit(partial(task.run_as_busy, task.begin))

    def _prepare(self, task: FillTask) -> Needed | None:
        """Prepare a task. If it needs parts of shards that are not local: a lease of them, and what is to be fetched.

        If the parts do not fit into memory, the shards are made local.
        """
        plan, finder, provisions = self._state.assembly.plan, self._state.assembly.filler.finder, self._state.provisions
        task.held = finder.prepare(task.group, None if provisions is None else provisions.need)
        if provisions is None or self._fetch is None:
            return None
        try:
            task.group, spans = finder.with_parts(task.group, bool(task.held), self._fetch)
            if spans is None:
                return None
            self._fetch.wait_for_turn()
            needed = self._fetch.lease(spans)
        except PartsTooLargeError as error:
            plan.shard_table.read_whole(error.shards)
            none = np.zeros(0, np.int64)
            task.group = plan.replanned(task.group, none, none, provisions)
            task.held = finder.prepare(task.group, provisions.need)
            return None
        finder.keep(task.group, needed.lease)
        return needed

    def _arrived(self, task: FillTask, errors: Errors) -> None:
        """The parts that a task needs have come, or not. Called in any thread."""
        if not task.claim():
            return
        task.blocks_have_come()
        try:
            self._state.assembly.filler.finder.lose(task.group.rows, errors)
            self._submit(task)
        except BaseException as error:  # noqa: BLE001 - the consumer raises it
            task.fail(error)

    def _end_waiting_tasks(self) -> None:
        """End the tasks of a stopped run whose parts have not come, so that nobody waits for the network."""
        for task in self._state.filling.copy():
            if task.waits and task.claim():
                task.fail(LoaderError("the run was stopped"))

    def _is_interrupted(self) -> bool:
        """Whether the run was stopped or must restart. Of several restarts, the one at the earliest batch counts."""
        state = self._state
        while not state.restarts.empty():
            found = state.restarts.get()
            if not state.is_void(found.number, found.generation) and (
                self._wanted is None or found.number < self._wanted.number
            ):
                self._wanted = found
        return state.stopped or self._wanted is not None

    def _drain(self) -> None:
        """Wait until all tasks have ended or one asks for a restart."""
        state = self._state
        state.draining = True
        while state.filling and not self._is_interrupted():
            self._admission.wait()
        state.draining = False

    def _cut(self, restart: Restart) -> None:
        """Make all results from this batch on void."""
        state = self._state
        state.generation += 1
        cut = Cut(restart.number, state.generation)
        state.cuts = (*(old for old in state.cuts if old.number < cut.number), cut)
        state.results.put(cut)
        state.started = restart.number
