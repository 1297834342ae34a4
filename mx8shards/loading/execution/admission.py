"""When may the planner start the next batches? When few enough are ahead, and their memory is reserved."""

from __future__ import annotations

import gc
import resource
import time
import weakref
from collections.abc import Callable

from mx8shards.errors import LoaderError
from mx8shards.loading.execution.run_state import RunState
from mx8shards.loading.memory.banks import Reservation
from mx8shards.loading.planning.groups import Group

_COPY_S = 0.001
_LOOKS, _LOOK_S = 3, 0.001  # before it is an error that there is no memory
_DEEP = 16  # with so many small batches ahead they are made in bursts, each of which wakes the planner once


class Admission:
    """Makes the planner of a run wait until there is room for more batches."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        depth = state.assembly.depth
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_files = max(8, soft // 4) if soft > 0 else 512
        self._low = depth // 2 if depth >= _DEEP else depth - 1
        self.waited_s = 0.0
        state.assembly.budget.wake = _waker(weakref.ref(state))

    def taken(self) -> None:
        """The consumer took a batch: wake the planner if that makes room."""
        state = self._state
        if state.waits_for_room and state.ahead <= self._low:
            state.wake()

    def admit(self, group: Group, is_interrupted: Callable[[], bool]) -> Reservation | None:
        """The memory of these batches, once it is there; None if the planner is interrupted meanwhile."""
        state = self._state
        begun = time.perf_counter()
        looks = 0
        try:
            while not is_interrupted():
                state.waits_for_room = True  # from here on the consumer wakes us
                if state.ahead < state.assembly.depth and self._may_open_files():
                    state.waits_for_room = False
                    state.waits_for_memory = True  # and from here on a bank that comes back does
                    reservation = state.assembly.budget.reserve(group.reserve_bytes)
                    if reservation is not None:
                        return reservation
                if self._only_held_batches_are_in_the_way():
                    looks += 1  # a result that the consumer drops at this moment comes back meanwhile
                    if looks == _LOOKS:
                        return _last_resort(state, group)
                    time.sleep(_LOOK_S)
                    continue
                self.wait()
                state.waits_for_memory = False
        finally:
            state.waits_for_memory = state.waits_for_room = state.waits_for_files = False
            self.waited_s += time.perf_counter() - begun
        return None

    def wait(self) -> None:
        """Sleep until something happens that may change what the planner can do."""
        mover, inbox = self._state.assembly.mover, self._state.inbox
        if mover is None:
            inbox.get()
        else:  # nobody says when a copy to the device is done
            mover.release()
            time.sleep(_COPY_S)
        while not inbox.empty():
            inbox.get_nowait()

    def _may_open_files(self) -> bool:
        """Whether the batches ahead keep few files open. If not, the next task that ends wakes the planner."""
        state = self._state
        state.waits_for_files = True
        if sum(len(task.held) for task in state.filling.copy()) >= self._most_files:
            return False
        state.waits_for_files = False
        return True

    def _only_held_batches_are_in_the_way(self) -> bool:
        """The consumer waits, and nothing is made or moved that could give memory back."""
        state, mover = self._state, self._state.assembly.mover
        if state.ahead or state.filling or not state.starving or state.seen_generation < state.generation:
            return False
        return mover is None or not mover.is_busy


def _last_resort(state: RunState, group: Group) -> Reservation:
    """Nothing is ahead and the consumer waits: only batches that somebody holds can be in the way."""
    budget = state.assembly.budget
    gc.collect()  # some may be held by cycles that nobody can reach
    reservation = budget.reserve(group.reserve_bytes)
    if reservation is not None:
        return reservation
    found = f"{budget.used_bytes} in use by {budget.leases} batches that are still held"
    hint = "batch.copy() gives one that costs the loader nothing, and memory= sets the limit"
    if budget.used_bytes + group.reserve_bytes <= budget.limit_bytes:
        found = f"more than their part in use by other loaders of the pool, beside {budget.used_bytes} by this one"
        hint = "make all loaders of a pool before one of them is iterated"
    raise LoaderError(
        subject=f"epoch {group.epoch}, position {group.position}",
        expected=f"{group.reserve_bytes} bytes of memory for the next batch, of {budget.limit_bytes} in all",
        found=found,
        hint=hint,
    )


def _waker(state: weakref.ref[RunState]) -> Callable[[], None]:
    """Wakes a planner that waits for memory, and keeps nothing alive: banks must not wait for a garbage collection."""

    def wake() -> None:
        found = state()
        if found is not None and found.waits_for_memory:
            found.wake()

    return wake
