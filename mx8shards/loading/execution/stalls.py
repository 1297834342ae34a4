"""Which thread waits for a file system that does not answer?

A thread is stalled while it stays within one read, open or page fault: then it takes no CPU time. A thread that
decodes, compiles or copies takes some, and one that sleeps or waits for a lock is in no call of a file system, so
neither is taken for a stalled one, however long it takes. Only a consumer that waits looks; making batches costs
nothing more.
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


class Working:
    """The threads that are at work, and for whom. Threads add and remove themselves."""

    def __init__(self) -> None:
        self._threads: dict[int, tuple[int, Any]] = {}

    def begin(self, owner: Any) -> tuple[int, Any] | None:
        """The calling thread works for `owner` from now on; what it did before, for `end`."""
        number = threading.get_native_id()
        before = self._threads.get(number)
        self._threads[number] = _clock(), owner
        return before

    def end(self, before: tuple[int, Any] | None) -> None:
        """It works for whom it worked before, or for nobody."""
        number = threading.get_native_id()
        if before is None:
            self._threads.pop(number, None)
        else:
            self._threads[number] = before

    def now(self) -> dict[int, tuple[int, Any]]:
        """For each thread at work, by its system's number, its CPU clock and whom it works for."""
        return self._threads.copy()


class Stalls:
    """Since when each thread has been stalled, as far as somebody has seen who looks again and again."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}  # its CPU time, and when it was first seen with that

    def look(self, threads: dict[int, tuple[int, Any]]) -> dict[int, float]:
        """How long each of these threads has been stalled: 0.0 for most of them."""
        now = time.monotonic()
        seen, self._seen = self._seen, {}
        for number, (clock, _) in threads.items():
            spent = _cpu_time(clock)
            since = seen.get(number, (-1, now))
            self._seen[number] = since if since[0] == spent and _waits_for_file(number) else (spent, now)
        return {number: now - since for number, (_, since) in self._seen.items()}


def _clock() -> int:
    """The calling thread's CPU clock; 0 where there is none."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return 0
    return time.pthread_getcpuclockid(threading.get_ident())


def _cpu_time(clock: int) -> int:
    """How much CPU time a thread has taken, in ns; that of one that ended never stays equal."""
    try:
        return time.clock_gettime_ns(clock) if clock else 0
    except OSError:
        return time.monotonic_ns()


def _waits_for_file(number: int) -> bool:
    """Whether a thread is in a call of a file system, or waits for a page of a map; True where nobody tells."""
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
