"""How are the batches of an epoch started, one group after the other? The thread of its own that each run has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mx8shards.errors import without_locals
from mx8shards.loading.execution.admission import Admission
from mx8shards.loading.execution.fill_task import FillTask
from mx8shards.loading.execution.provisions import Provisions
from mx8shards.loading.execution.results import Done, Failed, Result
from mx8shards.loading.execution.run_state import Cut, Message, Restart, RunState
from mx8shards.loading.reporting.times import clock


class Planner:
    """Plans groups of batches, waits until each is admitted, and gives it to the pool's threads."""

    def __init__(self, state: RunState, admission: Admission) -> None:
        self._state = state
        self._admission = admission
        self._planning_since = 0.0  # by a clock that stands still while this thread compiles
        self.planned_s = 0.0
        self._wanted: Restart | None = None

    def run(self) -> None:
        """Start all batches of the epoch and wait until they are made, or the run is stopped."""
        state, plan = self._state, self._state.assembly.plan
        working = state.assembly.pool.working
        state.began.set()
        working.begin(state.assembly)
        self._planning_since = clock()
        try:
            self._start_all(None, state.position)
            while self._is_interrupted() and self._wanted is not None and not state.stopped:
                restart, self._wanted = self._wanted, None
                self._start_all(self._cut(restart), plan.after(restart.group))
        finally:
            working.end(None)
            self._cancel_provisions()
            state.ended.set()

    def _start_all(self, first: FillTask | None, position: int) -> None:
        """Start the first task, and then all batches from a position on; until the planner is interrupted."""
        try:
            for task in self._tasks(first, position):
                if not self._start(task):
                    break
        except BaseException as error:  # noqa: BLE001 - the consumer raises it
            self._conclude(Failed(without_locals(error)))
        else:
            self._conclude(Done())

    def _conclude(self, last: Result) -> None:
        """Hand over what comes after the last batch, and wait until all batches are made.

        No frame that the traceback of an error refers to may refer to the error: such a cycle would keep the run alive
        until a garbage collection.
        """
        if not self._is_interrupted():
            self._state.results.put(Message(self._state.started, self._state.generation, (last,)))
            self._drain()

    def _tasks(self, first: FillTask | None, position: int) -> Iterator[FillTask]:
        state, plan = self._state, self._state.assembly.plan
        if first is not None:
            yield first
        else:
            plan.begin_epoch()  # in this thread: it may have to wait for files
        self._cancel_provisions()  # those of the planning that a restart ends
        upcoming = plan.shards_ahead(state.epoch, position, plan.steps.length)
        provisions = state.provisions = Provisions(
            plan.shards, state.assembly.providing.submit, self._is_interrupted, upcoming, state.provided_s
        )
        for group in plan.batches(state.epoch, position, provisions):
            yield FillTask(state, state.started, group)

    def _cancel_provisions(self) -> None:
        provisions, self._state.provisions = self._state.provisions, None  # they refer to this planner
        if provisions is not None:
            provisions.cancel_queued()

    def _start(self, task: FillTask) -> bool:
        """Start the batches of a task when there is room for them; False if the planner is interrupted meanwhile."""
        state = self._state
        self.planned_s += clock() - self._planning_since
        reservation = self._admission.admit(task.group, self._is_interrupted)
        if reservation is None:
            return False
        self._planning_since = clock()
        task.reservation = reservation
        try:
            task.held = state.assembly.filler.finder.prepare(task.group)
            state.filling.add(task)
            state.started += len(task.group.steps)
            state.assembly.pool.submit(partial(task.at_work, task.begin))
        except BaseException:  # a shard is gone, or the pool was closed: nobody will have these batches
            if task in state.filling:
                state.filling.discard(task)
                state.started -= len(task.group.steps)
            reservation.cancel()
            task.held = []  # the error's traceback refers to the task
            raise
        return True

    def _is_interrupted(self) -> bool:
        """Whether the run was stopped, or has to restart. Of several restarts, that of the earliest batch is wanted."""
        state = self._state
        while not state.restarts.empty():
            found = state.restarts.get()
            if not state.is_void(found.number, found.generation) and (
                self._wanted is None or found.number < self._wanted.number
            ):
                self._wanted = found
        return state.stopped or self._wanted is not None

    def _drain(self) -> None:
        """Wait until all that was started is made: until then, a restart may be wanted."""
        state = self._state
        state.drains = True
        while state.filling and not self._is_interrupted():
            self._admission.wait()
        state.drains = False

    def _cut(self, restart: Restart) -> FillTask:
        """Give up all batches from the one that restarts on; the task that makes this one again."""
        state = self._state
        state.generation += 1
        cut = Cut(restart.number, state.generation)
        state.cuts = (*(old for old in state.cuts if old.number < cut.number), cut)
        state.results.put(cut)
        state.started = restart.number
        return FillTask(state, restart.number, restart.group, restart.entries, restart.tried)
