"""Which thread is stalled in a read, because a file system does not answer?

A thread is stalled while it stays within one read, open or page fault and takes no CPU time. A thread that decodes,
compiles or copies takes CPU time, and one that sleeps or waits for a lock is in no system call on files: neither counts
as stalled. Only a waiting consumer checks this, so it does not slow down the threads.
"""

from __future__ import annotations

import platform
import threading
import time
from typing import Any

# System calls in which a thread waits for a file: openat, fstat, newfstatat, statx, pread64, preadv, preadv2,
# madvise (it populates pages), readahead and fadvise64.
_FILE_CALLS = {
    "x86_64": frozenset((257, 5, 262, 332, 17, 295, 327, 28, 187, 221)),
    "aarch64": frozenset((56, 80, 79, 291, 67, 69, 286, 233, 213, 223)),
}.get(platform.machine())


class BusyThreads:
    """The threads that run a task, and the owner of each task. Threads add and remove themselves."""

    def __init__(self) -> None:
        self._threads: dict[int, tuple[int, Any]] = {}

    def begin(self, owner: Any) -> tuple[int, Any] | None:
        """Note that the calling thread works for `owner`; returns its previous entry, for `end`."""
        number = threading.get_native_id()
        before = self._threads.get(number)
        self._threads[number] = _clock(), owner
        return before

    def end(self, before: tuple[int, Any] | None) -> None:
        """Restore the calling thread's previous entry, or remove it."""
        number = threading.get_native_id()
        if before is None:
            self._threads.pop(number, None)
        else:
            self._threads[number] = before

    def now(self) -> dict[int, tuple[int, Any]]:
        """CPU clock and owner of each busy thread, by native id."""
        return self._threads.copy()


class Stalls:
    """Since when each thread has been stalled, from repeated observations."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}  # CPU time, and when it was first observed at this value

    def look(self, threads: dict[int, tuple[int, Any]]) -> dict[int, float]:
        """Observe these threads; how long each has been stalled, 0.0 for most of them."""
        now = time.monotonic()
        seen, self._seen = self._seen, {}
        for number, (clock, _) in threads.items():
            spent = _cpu_time(clock)
            since = seen.get(number, (-1, now))
            self._seen[number] = since if since[0] == spent and _waits_for_file(number) else (spent, now)
        return {number: now - since for number, (_, since) in self._seen.items()}


def _clock() -> int:
    """The calling thread's CPU clock; 0 if the platform has none."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return 0
    return time.pthread_getcpuclockid(threading.get_ident())


def _cpu_time(clock: int) -> int:
    """A thread's CPU time in ns; for an ended thread, a value that always changes."""
    try:
        return time.clock_gettime_ns(clock) if clock else 0
    except OSError:
        return time.monotonic_ns()


def _waits_for_file(number: int) -> bool:
    """Whether a thread is in a system call on files or in a page fault; True if the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{number}/stat", encoding="ascii", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]
        with open(f"/proc/self/task/{number}/syscall", encoding="ascii") as file:
            call = file.read().split()[0]
    except (OSError, IndexError):
        return True
    if state == "D":
        return True
    return call.isdigit() and (_FILE_CALLS is None or int(call) in _FILE_CALLS)
