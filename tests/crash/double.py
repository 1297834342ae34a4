"""Fault injection: stop the process before step k of an operation, or make that step fail.

`World` replaces the hook `mx8shards.disk.operations.before`, which is called before every step that changes the disk.
Nothing else is replaced: the steps themselves run for real.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mx8shards.disk import operations

Step = tuple[str, tuple[Any, ...]]


class Stopped(BaseException):
    """The process is dead. Nothing may catch it, and every later step raises it too."""


class World:
    """Counts the steps, keeps them, and does `fault` before step number `at`."""

    def __init__(self, at: int | None = None, fault: Callable[[World, Step], None] | None = None) -> None:
        self.steps: list[Step] = []
        self.faulty: Step | None = None
        self.over: Callable[[], BaseException] | None = None
        self._at = at
        self._fault = fault
        self._lock = threading.Lock()

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        """What `steps.before` becomes."""
        with self._lock:
            if self.over is not None:
                raise self.over()
            number = len(self.steps)
            # copied, because the Writer fills its memory anew once it has been written
            step = (name, tuple(bytes(value) if isinstance(value, memoryview) else value for value in arguments))
            self.steps.append(step)
            if number == self._at and self._fault is not None:
                self.faulty = step
                self._fault(self, step)

    @contextlib.contextmanager
    def running(self) -> Iterator[World]:
        """The package's steps go through this world for as long as the block lasts."""
        real, operations.before = operations.before, self.before
        try:
            yield self
        finally:
            operations.before = real


def stop(world: World, step: Step) -> None:
    """The process dies before the step."""
    world.over = Stopped
    raise Stopped


def tear(world: World, step: Step) -> None:
    """The process dies in the middle of the step: of a write, half is there. Other steps are atomic."""
    _half(step)
    stop(world, step)


def refuse(world: World, step: Step) -> None:
    """The disk has an error once; the process lives on."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def fill(world: World, step: Step) -> None:
    """The disk is full, in the middle of a write, once."""
    _half(step)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def break_down(world: World, step: Step) -> None:
    """The disk refuses this step and every later one; the process lives on."""
    world.over = lambda: OSError(errno.EIO, os.strerror(errno.EIO))
    raise world.over()


def interrupt(world: World, step: Step) -> None:
    """The user presses Ctrl-C, which reaches the main thread only."""
    if threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def _half(step: Step) -> None:
    name, arguments = step
    if name == "write":
        descriptor, data, _ = arguments
        os.write(descriptor, memoryview(data).cast("B")[: len(data) // 2])
