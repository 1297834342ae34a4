"""When may the planner start the next batches? Admission: limits on prefetch depth, open files and memory."""

from __future__ import annotations

import gc
import resource
import time
import weakref
from collections.abc import Callable

from mx8shards.errors import LoaderError
from mx8shards.loading.budget.banks import Reservation
from mx8shards.loading.execution.run_state import RunState
from mx8shards.loading.planning.groups import Group

_COPY_POLL_S = 0.001
_RETRIES, _RETRY_S = 3, 0.001  # until missing memory is an error
_BURST_DEPTH = 16  # from this depth on, the planner starts batches in bursts, so that it is woken once per burst


class Admission:
    """Makes the planner of a run wait until the limits allow more batches."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        depth = state.assembly.depth
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_files = max(8, soft // 4) if soft > 0 else 512
        self._low = depth // 2 if depth >= _BURST_DEPTH else depth - 1
        self.waited_s = 0.0
        state.assembly.budget.wake = _waker(weakref.ref(state))

    def taken(self) -> None:
        """Called when the consumer has taken a batch: wake the planner if the depth allows more batches now."""
        state = self._state
        if state.waits_for_room and state.ahead <= self._low:
            state.wake()

    def admit(self, group: Group, is_interrupted: Callable[[], bool]) -> Reservation | None:
        """Wait for these batches' memory and reserve it; None if the planner is interrupted meanwhile."""
        state = self._state
        begun = time.perf_counter()
        retries = 0
        try:
            while not is_interrupted():
                state.waits_for_room = True  # set before the check, so that no wake-up by the consumer is lost
                if state.ahead < state.assembly.depth and self._may_open_files():
                    state.waits_for_room = False
                    state.waits_for_memory = True  # set before the check, as above
                    reservation = state.assembly.budget.reserve(group.reserve_bytes)
                    if reservation is not None:
                        return reservation
                if self._only_held_batches_block():
                    retries += 1  # the consumer may be dropping a void result, whose bank then returns
                    if retries == _RETRIES:
                        return _reserve_after_gc(state, group)
                    time.sleep(_RETRY_S)
                    continue
                self.wait()
                state.waits_for_memory = False
        finally:
            state.waits_for_memory = state.waits_for_room = state.waits_for_files = False
            self.waited_s += time.perf_counter() - begun
        return None

    def wait(self) -> None:
        """Sleep until an event wakes the planner, or for a moment where copies to a device are polled."""
        mover, inbox = self._state.assembly.mover, self._state.inbox
        if mover is None:
            inbox.get()
        else:  # no event says that a copy to the device is done
            mover.release()
            time.sleep(_COPY_POLL_S)
        while not inbox.empty():
            inbox.get_nowait()

    def _may_open_files(self) -> bool:
        """Whether the batches ahead hold few enough open files. If not, the next task that ends wakes the planner."""
        state = self._state
        state.waits_for_files = True
        if sum(len(task.held) for task in state.filling.copy()) >= self._max_files:
            return False
        state.waits_for_files = False
        return True

    def _only_held_batches_block(self) -> bool:
        """Whether the consumer waits while no task and no copy to the device can give memory back."""
        state, mover = self._state, self._state.assembly.mover
        if state.ahead or state.filling or not state.starving or state.seen_generation < state.generation:
            return False
        return mover is None or not mover.is_busy


def _reserve_after_gc(state: RunState, group: Group) -> Reservation:
    """Reserve after a garbage collection; LoaderError if batches that are still held leave too little memory."""
    budget = state.assembly.budget
    gc.collect()  # unreachable cycles may hold batches
    reservation = budget.reserve(group.reserve_bytes)
    if reservation is not None:
        return reservation
    found = f"{budget.used_bytes} in use by {budget.leases} batches that are still held"
    hint = "batch.copy() does not count in the limit, which memory= sets"
    if budget.used_bytes + group.reserve_bytes <= budget.limit_bytes:
        found = f"other loaders of the pool use more than their part, and this one {budget.used_bytes} bytes"
        hint = "make all loaders of a pool before one of them is iterated"
    raise LoaderError(
        subject=f"epoch {group.epoch}, position {group.position}",
        expected=f"{group.reserve_bytes} bytes of memory for the next batch, of {budget.limit_bytes} in all",
        found=found,
        hint=hint,
    )


def _waker(state: weakref.ref[RunState]) -> Callable[[], None]:
    """A function that wakes a planner waiting for memory. It keeps no run alive, so that banks return at once."""

    def wake() -> None:
        found = state()
        if found is not None and found.waits_for_memory:
            found.wake()

    return wake
