"""Which threads and which memory limit do several loaders share? The Pool class."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Lock

from mx8shards.errors import LoaderError, SettingError, shown, whole_number
from mx8shards.format.sizes import parse_size
from mx8shards.loading.budget.banks import Memory
from mx8shards.loading.execution.crew import Crew, Lane, ResourceOf, Task
from mx8shards.loading.execution.stalls import BusyThreads
from mx8shards.loading.planning.machine import default_memory, default_threads
from mx8shards.stages import Stage

MAX_THREADS = 1 << 12


class Pool:
    """Threads and a memory budget, for several loaders: `Loader(…, pool=pool)`.

    Each loader may hold an equal part of the memory. Threads start when they are first needed, and anew in a forked
    child, which inherits none.

    Args:
        memory: A hard limit on the memory that all its loaders hold together, in bytes or as `"4gb"`. None: a quarter
            of the memory of the machine or the cgroup, at most 4 GB, divided by the ranks on this machine and by the
            workers of a DataLoader.
        threads: The number of threads that prepare batches for all its loaders. None: the cores of this process,
            divided in the same way.
    """

    def __init__(self, *, memory: int | str | None = None, threads: int | None = None) -> None:
        self.threads = default_threads() if threads is None else whole_number("threads", threads, 1, MAX_THREADS)
        self.memory = Memory(default_memory() if memory is None else _checked_memory(memory))
        self.busy_threads = BusyThreads()
        self._process = os.getpid()
        self._lock = Lock()
        self._crew: Crew | None = None
        self._closed = False

    def renew(self) -> None:
        """In a forked child, replace memory counters and locks: inherited locks may never be released."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self.memory = Memory(self.memory.limit_bytes, expected=len(self.memory.budgets))
            self._lock = Lock()
            self._crew = None
            self.busy_threads = BusyThreads()

    def submit(self, task: Task, lane: Lane = "normal") -> None:
        """Queue a task. A thread calls it with a function that returns its resource for a stage. It must not raise."""
        with self._lock:
            if self._closed:
                raise LoaderError("the pool is closed")
            if self._crew is None:
                self._crew = Crew(self.threads)
                weakref.finalize(self, Crew.stop, self._crew)
            self._crew.put(task, lane)

    def each(self, act: Callable[[int], object], numbers: Sequence[int]) -> None:
        """Call `act` for all numbers in the pool's threads, and raise the first error when all are done."""
        done: SimpleQueue[BaseException | None] = SimpleQueue()

        def one(number: int, _: ResourceOf) -> None:
            before = self.busy_threads.begin(None)
            try:
                act(number)
            except BaseException as error:  # noqa: BLE001 - raised below
                done.put(error)
            else:
                done.put(None)
            finally:
                self.busy_threads.end(before)

        for number in numbers:
            self.submit(partial(one, number))
        errors = [error for error in [done.get() for _ in numbers] if error is not None]
        if errors:
            raise errors[0]

    def end_stages(self, stages: Iterable[Stage]) -> None:
        """Close the threads' resources for these stages, whose loader is closed."""
        crew = self._crew
        if crew is not None and self._process == os.getpid():
            crew.resources.end_stages(stages)

    def close(self) -> None:
        """End the threads after they have done all queued tasks."""
        if self._process != os.getpid():  # a forked child has no threads, and the lock may never be released
            self._closed = True
            return
        with self._lock:
            self._closed = True
            crew, self._crew = self._crew, None
        if crew is not None:
            crew.stop()
            crew.join()


def check_pool(pool: object, memory: object, threads: object) -> None:
    """SettingError if a loader's `pool` is none, or is given beside `memory` or `threads`."""
    if pool is not None and (memory is not None or threads is not None):
        found = f"memory={shown(memory)}, threads={shown(threads)}"
        hint = "pool= brings its own memory and threads"
        raise SettingError(subject="memory and threads", expected="neither beside pool=", found=found, hint=hint)
    if pool is not None and not isinstance(pool, Pool):
        raise SettingError(subject="pool", expected="a Pool, or None", found=shown(pool))


def _checked_memory(memory: int | str) -> int:
    found = parse_size(memory) if isinstance(memory, str) else memory
    try:
        return whole_number("memory", found, 1)
    except SettingError:
        expected = "a number of bytes from 1, or a text such as '2gb'"
        raise SettingError(subject="memory", expected=expected, found=shown(memory)) from None
