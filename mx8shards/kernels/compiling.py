"""Which function is Numba compiling, and how much time has compiling taken? For progress, `explain()` and the watchdog.

Numba compiles one function at a time per process, under a global lock. It emits an event for each compilation, also
by other packages, and for each acquisition of the lock. Loading from the cache on disk emits no compile event.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from numba.core import event


class _Compiling(event.Listener):
    """The functions being compiled, outermost first: compiling a caller includes compiling its callees."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.begun_at = 0.0
        self.done_s = 0.0

    def on_start(self, happening: Any) -> None:
        function = happening.data["dispatcher"].py_func
        if not self.names:
            self.begun_at = time.monotonic()
        self.names.append(f"{function.__module__}.{function.__qualname__}")

    def on_end(self, happening: Any) -> None:
        if self.names:
            self.names.pop()
            self.done_s += 0.0 if self.names else time.monotonic() - self.begun_at


class _LockTime(event.Listener, threading.local):
    """How long each thread has held or waited for the compiler lock of Numba."""

    def __init__(self) -> None:
        self.depth = 0
        self.begun_at = 0.0
        self.done_s = 0.0

    def on_start(self, happening: Any) -> None:
        if not self.depth:
            self.begun_at = time.monotonic()
        self.depth += 1

    def on_end(self, happening: Any) -> None:
        self.depth = max(0, self.depth - 1)
        if not self.depth:
            self.done_s += time.monotonic() - self.begun_at


_compiling, _lock_time = _Compiling(), _LockTime()
_register: Any = event.register  # numba has no type hints
_register("numba:compile", _compiling)
_register("numba:compiler_lock", _lock_time)


def seconds() -> float:
    """How long this process has spent compiling since this module was imported."""
    done_s = _compiling.done_s
    return done_s + time.monotonic() - _compiling.begun_at if _compiling.names else done_s


def current() -> str | None:
    """The full name of the function being compiled, the outermost one; None if nothing is being compiled."""
    names = _compiling.names[:1]
    return names[0] if names else None


def thread_seconds() -> float:
    """How long the calling thread has spent compiling, loading compiled code, or waiting for the compiler lock."""
    return _lock_time.done_s


def forget() -> None:
    """Reset the state in a forked child, where the compiling thread does not exist."""
    _compiling.names.clear()
    _lock_time.depth = 0
