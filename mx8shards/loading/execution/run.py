"""How are batches prefetched, ahead of the training loop that consumes them?

A run makes the batches of one epoch, starting at a position. Its planner thread plans groups of batches and starts
each group as soon as memory is reserved for it. The pool's threads fill the groups in any order, and the consumer takes
the batches in order. A failure is a result, too: the consumer gets it in the place of the batch that failed.

    planner  → pool       tasks
    threads  → consumer   results, by the batches' numbers
    threads  → planner    restarts: batches that must be made again once there is memory for them
    consumer → planner    wake-ups: a batch was taken, or the consumer waits
    leases   → planner    wake-ups: a bank came back

Every wait ends: the planner's when the run is stopped, and the consumer's when a read exceeds `read_timeout_s`.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from queue import Empty
from threading import Thread

from mx8shards.errors import LoaderError, RemoteError
from mx8shards.loading.budget.banks import nobody_waits
from mx8shards.loading.execution import other_ranks
from mx8shards.loading.execution.admission import Admission
from mx8shards.loading.execution.planner import Planner
from mx8shards.loading.execution.results import Done, Failed, Ready, Result
from mx8shards.loading.execution.run_state import Assembly, Cut, Message, RunState
from mx8shards.loading.execution.threads import JOIN_S, start_thread
from mx8shards.loading.execution.watchdog import INTERVAL_S, Watchdog
from mx8shards.loading.reporting.times import ProducerTimes


class Run:
    """The batches of one epoch, starting at a position. The caller takes all results, or calls `stop`."""

    def __init__(self, assembly: Assembly, epoch: int, position: int) -> None:
        self._assembly = assembly
        self._state = RunState(assembly, epoch, position)
        self._admission = Admission(self._state)
        self._planner = Planner(self._state, self._admission)
        self._others = other_ranks.connect(assembly.plan, epoch, position)
        self._arrived: dict[int, tuple[int, Result]] = {}  # by number: the generation, and the result
        self._opened_before_s = assembly.plan.shard_table.files_s
        self._token = object()  # identifies this run to the budget
        self._thread: Thread | None = None
        self._started = False

    def start(self) -> None:
        """Start the planner thread. The caller must already refer to the run, to stop it after Ctrl-C at any moment."""
        try:
            self._assembly.budget.iterating = self._token
            self._started = True
            self._others.start()
            self._thread = start_thread(self, "planner", self._planner.run)
        except BaseException:  # if the thread runs nevertheless, it sees `stopped` and ends
            self._started = False
            self.stop()
            self._assembly.budget.wake = nobody_waits
            raise

    @property
    def producer_s(self) -> ProducerTimes:
        """How long the planner waited, planned, opened files, and waited for shards."""
        provided_s = self._state.provided_s
        opened_s = self._assembly.plan.shard_table.files_s - self._opened_before_s
        times = self._admission.waited_s, self._planner.planned_s, opened_s
        return ProducerTimes(*times, provided_s["unpack"], provided_s["network"])

    # the consumer -----------------------------------------------------------------------------------------------

    def take(self) -> Result:
        """The next result, in order; or the error of another rank. LoaderError if another thread stops the run."""
        number = self._state.taken
        failure = self._others.failure
        if failure is None and number not in self._arrived:
            failure = self._wait_for(number)
        if failure is not None:
            return Failed(failure)
        result = self._taken(number)
        if isinstance(result, Failed) and isinstance(result.error, RemoteError):
            self._others.tell(result.error)
        if isinstance(result, Done) and (failure := self._others.look()) is not None:
            return Failed(failure)
        return result

    def _taken(self, number: int) -> Result:
        """The result of a batch that has arrived."""
        _, result = self._arrived.pop(number)
        self._state.taken = number + 1
        self._admission.taken()
        return result

    def take_ready(self) -> Ready | None:
        """The next batch if it is ready, without waiting; else None, also if another rank has failed."""
        while self._receive():
            pass
        if self._others.failure is not None:  # which the next `take` returns
            return None
        _, result = self._arrived.get(self._state.taken, (0, None))
        if not isinstance(result, Ready):
            return None
        self._taken(self._state.taken)
        return result

    def _receive(self, timeout_s: float = 0.0) -> bool:
        """Process one message; False if none came within the timeout."""
        try:
            message = self._state.results.get(timeout_s > 0, timeout_s or None)
        except Empty:
            return False
        if isinstance(message, Cut):
            void = [
                number
                for number, (generation, _) in self._arrived.items()
                if number >= message.number and generation < message.generation
            ]
            for number in void:
                del self._arrived[number]
            self._state.seen_generation = message.generation
        elif isinstance(message, Message) and not self._state.is_void(message.number, message.generation):
            for i, result in enumerate(message.results):
                self._arrived[message.number + i] = message.generation, result
        return True

    def _wait_for(self, number: int) -> RemoteError | None:
        """Wait until the result of a batch is here, or until another rank has failed: its error."""
        state = self._state
        watchdog: Watchdog | None = None
        while number not in self._arrived:
            if self._receive():
                continue
            if state.stopped:
                raise LoaderError("the run was stopped")
            watchdog = watchdog or Watchdog(state)
            if not self._receive_starving():
                thread = self._thread.native_id if self._thread is not None else None
                watchdog.look(thread, planning=self._is_planning)
                if self._others.failure is not None:
                    return self._others.failure
        return None

    def _receive_starving(self) -> bool:
        """Like `_receive`, but wait for a message, and let the planner and the threads see that the consumer waits."""
        state = self._state
        state.starving = True
        try:
            if state.waits_for_memory or state.waits_for_room:
                state.wake()
            return self._receive(INTERVAL_S)
        finally:
            state.starving = False

    @property
    def _is_planning(self) -> bool:
        """Whether the planner runs or will run. If Ctrl-C came during its start, only `began` shows that it runs."""
        thread, state = self._thread, self._state
        begun = self._started or state.began.is_set()
        return begun and not state.ended.is_set() and (thread is None or thread.is_alive())

    # its end ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the run and drop the batches that were prefetched. Any thread may call this, and several times."""
        self._state.stopped = True
        if self._assembly.budget.iterating is self._token:
            self._assembly.budget.iterating = None
        self._state.wake()
        self._state.results.put(None)
        self._others.stop()

    def join(self) -> None:
        """Wait until the planner and all tasks have ended, at most `JOIN_S`: a disk may not answer."""
        state = self._state
        deadline = time.monotonic() + (0.0 if state.stalled else JOIN_S)
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        while (self._is_planning or state.filling) and time.monotonic() < deadline:
            time.sleep(0.0005)
        if self._is_planning or state.filling:
            logging.getLogger("mx8shards").warning(
                "an ended iteration: a thread still reads, decodes, transforms or compiles; it ends with that work"
            )
        self._arrived.clear()
        with suppress(Empty):
            while True:
                state.results.get_nowait()
