"""How do threads take tasks? Urgent ones first, and those that can wait last."""

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

Scratch = Callable[[Stage], Resource]
Task = Callable[[Scratch], None]
Lane = Literal["first", "normal", "later"]


class Crew:
    """The threads of one process. They know their tasks and nothing else, so that they keep nothing alive."""

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
        """Whether its threads are here: a forked child has none of them."""
        return self._process == os.getpid()

    def put(self, task: Task, lane: Lane = "normal") -> None:
        """Have a thread call the task with a function that finds its resource for a stage. It must not raise."""
        with self._lock:  # no thread would take what is put behind the shutdown sentinel
            if self._stopped:
                raise LoaderError("the pool is closed")
            self._tasks.put(task, lane)

    def stop(self) -> None:
        """Let the threads end when all tasks are done. Safe to call again."""
        if self.is_of_this_process:
            with self._lock:
                if not self._stopped:
                    self._tasks.put(None, "later")
                self._stopped = True

    def join(self) -> None:
        """Wait for the threads' end."""
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
        while True:  # there is one; another thread may take it from a lane that was empty a moment ago
            for lane in self._lanes.values():
                try:
                    return lane.popleft()
                except IndexError:
                    continue


def _work(tasks: _Tasks, resources: ThreadResources) -> None:
    while (task := tasks.take()) is not None:
        task(resources.of)
        del task  # with all that it holds
    tasks.put(None, "later")  # for the next thread, which may not have been started yet
    resources.end_thread()
