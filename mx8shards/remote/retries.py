"""How often, and for how long, is an operation on an object store tried again?

Only faults of reason "network" are transient: no answer, a broken connection, an answer that asks to come back later.
Each attempt may take half of the time that is left, so that a connection that hangs or drips leaves time for another.

The deadline limits the time without progress. A large object that comes slowly is no outage: each MiB of it renews the
deadline. An upload shows no progress before its answer, so each attempt gets, beyond its share, the time that sending
takes on a slow connection. Only the part of it that an attempt really takes extends the deadline.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from mx8shards.errors import RemoteError
from mx8shards.remote.wait_notices import NOTICE_AFTER_S, tell

_T = TypeVar("_T")

_LONGEST_PAUSE_S = 15.0
_STALL_S = 30.0
_LAST_ATTEMPT_S = 1.0  # time that the pause before the last attempt leaves for that attempt
_LEAST_S = 0.05  # the least time of an attempt, even if a busy machine has prolonged the pause before it
_POLL_S = 0.25
_STOPPED = "the operation was stopped: its store was closed"
PROGRESS = 1 << 20  # bytes that renew the deadline
_SLOWEST = 1 << 17  # bytes per second; a slower upload counts as stalled


def stall_s(deadline_s: float) -> float:
    """An attempt ends if nothing has come for this time."""
    return min(_STALL_S, deadline_s / 4)


def attempt_s(left_s: float) -> float:
    """The time limit of an attempt: half of what is left, but all of it when little is left."""
    return max(left_s / 2, min(left_s, _LAST_ATTEMPT_S))


def upload_s(size_bytes: int) -> float:
    """The time that an upload may take beyond the other limits. Rounded up by at most a quarter, to share clients."""
    needed = math.ceil(size_bytes / _SLOWEST) if size_bytes > _SLOWEST else 0
    step = 1 << max(needed.bit_length() - 3, 0)
    return float(-(-needed // step) * step)


def until_deadline(
    work: Callable[[float], _T],
    deadline_s: float,
    stopped: threading.Event,
    progress: Callable[[], int] = lambda: 0,
    more_s: float = 0.0,
) -> _T:
    """Call `work` until it succeeds, fails for good, or the deadline has passed.

    Args:
        work: Gets the number of seconds that this attempt may take. A RemoteError of reason "network" is transient.
        deadline_s: The time limit for all attempts and the pauses between them.
        stopped: If it is set, there is no further attempt.
        progress: The number of bytes that have come. An attempt that brought a MiB more than any before it renews the
            deadline.
        more_s: The seconds that an attempt may take beyond its share of the deadline. What attempts really take of them
            extends the deadline, by at most twice this number.
    """
    first = time.monotonic()
    end = first + deadline_s
    spare_s = 2 * more_s
    attempts, most = 0, 0
    while True:
        if stopped.is_set():
            raise RemoteError(_STOPPED)
        begun = time.monotonic()
        share_s = max(attempt_s(end - begun), _LEAST_S)
        try:
            return work(share_s + min(more_s, spare_s))
        except RemoteError as error:
            attempts += 1
            beyond_s = min(max(time.monotonic() - begun - share_s, 0.0), spare_s)
            end, spare_s = end + beyond_s, spare_s - beyond_s
            if progress() >= most + PROGRESS:
                most = progress()
                end = time.monotonic() + deadline_s
            left = end - time.monotonic()
            if error.reason != "network" or left <= _LEAST_S:
                raise _with_attempts(error, attempts, deadline_s) from error.__cause__
            if time.monotonic() - first > NOTICE_AFTER_S:
                tell("retries", f"{error}: it is tried again, for {left:.0f} s more")
            backoff = min(0.1 * 2.0**attempts, _LONGEST_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311  (jitter)
            if stopped.wait(min(backoff, max(left - _LAST_ATTEMPT_S, left / 2))):
                raise RemoteError(_STOPPED, subject=error.subject) from None


def interruptibly(work: Callable[[], _T], stopped: threading.Event, end: float = math.inf) -> _T:
    """The result of a function that may block in foreign code. Ctrl-C, and closing the store, end the wait for it.

    TimeoutError at `end`, a time of `time.monotonic`.

    Python runs signal handlers in the main thread only, and not while that is in foreign code. So another thread makes
    the call, and goes on until its time limit if the wait ends earlier.
    """
    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 — it is raised in the waiting thread
            result.set_exception(error)

    threading.Thread(target=run, name="mx8shards-remote", daemon=True).start()
    while not wait([result], max(min(_POLL_S, end - time.monotonic()), 0)).done:
        if stopped.is_set():
            raise RemoteError(_STOPPED)
        if time.monotonic() >= end:
            raise TimeoutError
    return result.result()


def _with_attempts(error: RemoteError, attempts: int, deadline_s: float) -> RemoteError:
    """The error, with the number of attempts and their time limit, if there was more than one."""
    if attempts > 1:
        error.place = ", ".join(part for part in (error.place, f"{attempts} attempts in {deadline_s:g} s") if part)
    return error
