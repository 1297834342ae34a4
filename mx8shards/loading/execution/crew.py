"""How do threads take tasks? A thread pool over a FIFO queue with priority lanes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Literal

from mx8shards.errors import LoaderError
from mx8shards.loading.execution.thread_resources import Resource, ThreadResources
from mx8shards.loading.execution.threads import join, start_thread
from mx8shards.stages import Stage

ResourceOf = Callable[[Stage], Resource]
Task = Callable[[ResourceOf], None]
Lane = Literal["first", "normal", "later"]


class Crew:
    """A fixed number of threads. They refer to their tasks only, so that they keep no loader or pool alive."""

    def __init__(self, count: int, name: str = "") -> None:
        self._process = os.getpid()
        self._lock = Lock()
        self._stopped = False
        self._threads: list[Thread] = []
        self._tasks = _Tasks()
        self.resources = ThreadResources()
        try:
            for i in range(count):
                self._threads.append(start_thread(self, f"{name}{i}", _work, self._tasks, self.resources))
        except BaseException:
            self.stop()
            raise

    @property
    def is_of_this_process(self) -> bool:
        """Whether the threads run in this process: a forked child does not inherit them."""
        return self._process == os.getpid()

    def put(self, task: Task, lane: Lane = "normal") -> None:
        """Queue a task. A thread calls it with a function that returns its resource for a stage. It must not raise."""
        with self._lock:  # no thread would take a task that was queued after the shutdown sentinel
            if self._stopped:
                raise LoaderError("the pool is closed")
            self._tasks.put(task, lane)

    def stop(self) -> None:
        """Let the threads end once all tasks are done. May be called several times."""
        if self.is_of_this_process:
            with self._lock:
                if not self._stopped:
                    self._tasks.put(None, "later")
                self._stopped = True

    def join(self) -> None:
        """Wait until the threads have ended, for a bounded time."""
        if self.is_of_this_process:
            join(self._threads)


class _Tasks:
    """A FIFO queue with a lane for urgent tasks and one for tasks that can wait; `None` is the shutdown sentinel."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Task | None]] = {"first": deque(), "normal": deque(), "later": deque()}
        self._count: SimpleQueue[None] = SimpleQueue()  # an item for each task

    def put(self, task: Task | None, lane: Lane) -> None:
        self._lanes[lane].append(task)
        self._count.put(None)

    def take(self) -> Task | None:
        self._count.get()
        while True:  # a task is left for this thread, perhaps in a lane that the loop has already passed
            for lane in self._lanes.values():
                try:
                    return lane.popleft()
                except IndexError:
                    continue


def _work(tasks: _Tasks, resources: ThreadResources) -> None:
    while (task := tasks.take()) is not None:
        task(resources.of)
        del task  # and everything that it refers to
    tasks.put(None, "later")  # the sentinel for the next thread, which may start later
    resources.end_thread()
