"""Fault injection: stop the process before step k of an operation, or make that step fail.

`FaultInjector` replaces the hook `mx8shards.disk.operations.before`, which is called before every step that changes
the disk. The steps themselves are the real ones.
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
    """Simulates the death of the process: nothing may catch it, and every later step raises it again."""


class FaultInjector:
    """Records the steps, and calls `fault` before step number `at`."""

    def __init__(self, at: int | None = None, fault: Callable[[FaultInjector, Step], None] | None = None) -> None:
        self.steps: list[Step] = []
        self.faulty: Step | None = None
        self.over: Callable[[], BaseException] | None = None
        self._at = at
        self._fault = fault
        self._lock = threading.Lock()

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Replaces `operations.before`."""
        with self._lock:
            if self.over is not None:
                raise self.over()
            number = len(self.steps)
            # copied, because the Writer reuses its buffer after the write
            step = (name, tuple(bytes(value) if isinstance(value, memoryview) else value for value in arguments))
            self.steps.append(step)
            if number == self._at and self._fault is not None:
                self.faulty = step
                self._fault(self, step)

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultInjector]:
        """Install the hook during the block."""
        real, operations.before = operations.before, self.before
        try:
            yield self
        finally:
            operations.before = real


def stop_before(injector: FaultInjector, step: Step) -> None:
    """The process dies before the step."""
    injector.over = Stopped
    raise Stopped


def stop_during(injector: FaultInjector, step: Step) -> None:
    """The process dies during the step: a write is half done; other steps are atomic and not done."""
    _write_half(step)
    stop_before(injector, step)


def fail_once(injector: FaultInjector, step: Step) -> None:
    """The disk fails once; the process continues."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def fill_disk(injector: FaultInjector, step: Step) -> None:
    """The disk is full once, in the middle of a write."""
    _write_half(step)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_from_now_on(injector: FaultInjector, step: Step) -> None:
    """The disk fails at this step and all later ones; the process continues."""
    injector.over = lambda: OSError(errno.EIO, os.strerror(errno.EIO))
    raise injector.over()


def press_ctrl_c(injector: FaultInjector, step: Step) -> None:
    """The user presses Ctrl-C, which reaches the main thread only."""
    if threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def _write_half(step: Step) -> None:
    name, arguments = step
    if name == "write":
        descriptor, data, _ = arguments
        os.write(descriptor, memoryview(data).cast("B")[: len(data) // 2])
