"""Is Numba compiling, what, and for how long? Progress messages, `explain()` and the watchdog ask this.

Numba compiles one function at a time in a process, under one lock. It announces each, also those of other packages,
and each time that a thread asks for the lock. What it loads from its cache on disk is not announced as compiled.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from numba.core import event


class _Compiling(event.Listener):
    """The functions that are being compiled, outermost first: a caller's compilation contains its callees'."""

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


class _Waiting(event.Listener, threading.local):
    """How long each thread has held the lock of Numba's compiler, or waited for it."""

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


_compiling, _waiting = _Compiling(), _Waiting()
_register: Any = event.register  # it has no types
_register("numba:compile", _compiling)
_register("numba:compiler_lock", _waiting)


def seconds() -> float:
    """How long this process has spent compiling since this module was imported, up to now."""
    done_s = _compiling.done_s
    return done_s + time.monotonic() - _compiling.begun_at if _compiling.names else done_s


def current() -> str | None:
    """The function that is being compiled now, by its full name: the one that was called, not one that it calls."""
    names = _compiling.names[:1]
    return names[0] if names else None


def thread_seconds() -> float:
    """How long the calling thread has spent compiling, loading compiled code, or waiting for others to do so."""
    return _waiting.done_s


def forget() -> None:
    """In a forked child: the thread that compiled is not here."""
    _compiling.names.clear()
    _waiting.depth = 0
