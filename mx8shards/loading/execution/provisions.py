"""How are shards made local before batches need them? Those of waiting batches first, and a few ahead of their need."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import NamedTuple

from mx8shards.errors import LoaderError, without_traceback
from mx8shards.loading.execution.crew import Crew, Lane, Scratch, Task
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.providers import Cause

_AHEAD = 8  # shards that are provided, or being provided, before any batch needs them
_LOOK_S = 0.1  # how often one who waits for a shard looks whether the run was stopped


class Wait(NamedTuple):
    """What the planner waits for, and since when."""

    shard: str
    cause: Cause
    since: float


class Provisions:
    """The shards that one run has provided. Only its planner uses this, but for `wait`, which anybody may read.

    Args:
        shards: the shards of the loader's dataset.
        submit: gives a task to the loader's pool, whose threads unpack.
        is_interrupted: whether the run was stopped, or has to restart.
        upcoming: all shards that the run will need, in the order of need.
        waited_s: how long the planner waited, by cause: counted up here.
    """

    def __init__(
        self,
        shards: Shards,
        submit: Callable[[Task, Lane], None],
        is_interrupted: Callable[[], bool],
        upcoming: Iterable[int],
        waited_s: dict[Cause, float],
    ) -> None:
        self._shards = shards
        self._all_here = shards.all_here
        self._submit = submit
        self._is_interrupted = is_interrupted
        self._upcoming: Iterator[int] = iter(() if self._all_here else upcoming)
        self._known: set[int] = set()  # needed, or begun ahead
        self._queued: dict[int, None] = {}  # tasks that no thread has taken; taking one is one step under the GIL
        self._under_way: dict[int, Cause] = {}
        self._ahead: set[int] = set()  # begun ahead, and not needed yet
        self._failures: dict[int, Exception] = {}
        self._done: SimpleQueue[tuple[int, Exception | None]] = SimpleQueue()
        self.wait: Wait | None = None
        self._waited_s = waited_s

    def are_here(self, numbers: Iterable[int]) -> bool:
        """Whether nothing would have to be waited for."""
        return self._all_here or all(self._shards.awaits(i) is None for i in numbers)

    def need(self, numbers: Iterable[int]) -> dict[int, Exception]:
        """Return when these shards are here, or cannot be; why they cannot, by their numbers.

        LoaderError if the run is interrupted meanwhile.
        """
        if self._all_here:
            return {}
        numbers = list(numbers)
        missing = [i for i in numbers if i in self._under_way or self._shards.awaits(i) is not None]
        self._known.update(numbers)
        self._ahead.difference_update(numbers)  # those that came in time, too: they make room for others
        for i in missing:
            if i not in self._failures:
                self._begin(i, "first")
        for i in missing:
            self._await(i)
        self._work_ahead()
        return {i: self._failures.pop(i) for i in missing if i in self._failures}

    def cancel_queued(self) -> None:
        """Give up all tasks that no thread has taken yet: the planner that needed these shards has ended."""
        self._queued.clear()

    def _await(self, i: int) -> None:
        if i not in self._under_way:
            return
        cause, since = self._under_way[i], time.monotonic()
        self.wait = Wait(self._shards.name(i), cause, since)
        try:
            while i in self._under_way:
                if self._is_interrupted():
                    raise LoaderError("the run was stopped")
                self._work_ahead()
                self._collect(_LOOK_S)
        finally:
            self.wait = None
            self._waited_s[cause] += time.monotonic() - since

    def _collect(self, timeout_s: float) -> None:
        with suppress(Empty):
            i, error = self._done.get(timeout=timeout_s)
            del self._under_way[i]
            if error is not None:
                self._failures[i] = error

    def _work_ahead(self) -> None:
        """Begin shards that come next, while few are ahead. A failure is told when the shard is needed."""
        while not self._done.empty():
            self._collect(_LOOK_S)
        while len(self._ahead) < _AHEAD:
            i = next(self._upcoming, None)
            if i is None:
                return
            if i not in self._known and self._shards.awaits(i) is not None:
                self._known.add(i)
                self._ahead.add(i)
                self._begin(i, "later")

    def _begin(self, i: int, lane: Lane) -> None:
        """Have a thread provide shard i. One that waits in the queue already may be overtaken by an urgent task."""
        if i not in self._under_way:
            self._under_way[i] = self._shards.awaits(i) or "unpack"
            self._queued[i] = None
        elif i not in self._queued:
            return  # a thread has it
        self._submit(partial(_provide, i, self._shards, self._queued, self._done), lane)


def _provide(
    i: int,
    shards: Shards,
    queued: dict[int, None],
    done: SimpleQueue[tuple[int, Exception | None]],
    _: Scratch,
) -> None:
    """The task that provides shard i, unless another task for it came first."""
    if queued.pop(i, i) is not None:
        return
    try:
        shards.provide(i)
    except Exception as error:  # noqa: BLE001 - it is raised, or told, where the shard is needed
        done.put((i, without_traceback(error)))
    except BaseException as error:  # noqa: BLE001
        done.put((i, LoaderError(f"{type(error).__name__} while a shard was provided")))
    else:
        done.put((i, None))


class ProviderThreads:
    """Where providers work: those that wait for others in threads of their own, those that compute in the pool's."""

    def __init__(self, shards: Shards, submit: Callable[[Task, Lane], None]) -> None:
        self._count = None if shards.all_here else shards.most_provided
        self._submit = submit
        self._crew: Crew | None = None

    def submit(self, task: Task, lane: Lane) -> None:
        """Have a thread call the task. Only one planner at a time asks for the first."""
        if self._count is None:
            self._submit(task, lane)
            return
        if self._crew is None or not self._crew.is_of_this_process:
            self._crew = Crew(self._count, "provider-")
            weakref.finalize(self, Crew.stop, self._crew)
        self._crew.put(task, lane)

    def close(self) -> None:
        """End the threads of its own, if it has any; not for ever, should a provider not answer."""
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.stop()
            crew.join()
