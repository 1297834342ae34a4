"""How often, and for how long, is an operation on an object store tried again?

Only faults of reason "network" are transient: no answer, a broken connection, an answer that asks to come back later.
Each attempt may take half of the time that is left, so that a connection that hangs or drips leaves time for another.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mx8shards.errors import RemoteError

_T = TypeVar("_T")

_LONGEST_PAUSE_S = 15.0
_STALL_S = 30.0
_LAST_ATTEMPT_S = 1.0  # time that the pause before the last attempt leaves for that attempt


def stall_s(deadline_s: float) -> float:
    """An attempt ends if nothing has come for this time."""
    return min(_STALL_S, deadline_s / 4)


def attempt_s(left_s: float) -> float:
    """The time limit of an attempt: half of what is left, but all of it when little is left."""
    return max(left_s / 2, min(left_s, _LAST_ATTEMPT_S))


def until_deadline(work: Callable[[float], _T], deadline_s: float, stopped: threading.Event) -> _T:
    """Call `work` until it succeeds, fails for good, or the deadline has passed.

    Args:
        work: Gets the number of seconds that this attempt may take. A RemoteError of reason "network" is transient.
        deadline_s: The time limit for all attempts and the pauses between them.
        stopped: If it is set, there is no further attempt.
    """
    end = time.monotonic() + deadline_s
    attempts = 0
    while True:
        try:
            return work(attempt_s(end - time.monotonic()))
        except RemoteError as error:
            attempts += 1
            left = end - time.monotonic()
            if error.reason != "network" or left <= _LAST_ATTEMPT_S / 20:
                raise _told(error, attempts, deadline_s) from error.__cause__
            backoff = min(0.1 * 2.0**attempts, _LONGEST_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311  (jitter)
            if stopped.wait(min(backoff, max(left - _LAST_ATTEMPT_S, left / 2))):
                raise RemoteError("the operation was stopped: its store was closed", subject=error.subject) from None


def interruptibly(work: Callable[[], _T]) -> _T:
    """The result of a function that may block in foreign code. In the main thread, Ctrl-C ends the wait for it.

    Python runs signal handlers in the main thread only, and not while that is in foreign code. Then another thread
    makes the call. After Ctrl-C it goes on alone, until its time limit.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 — it is raised in the waiting thread
            result.set_exception(error)

    threading.Thread(target=run, name="mx8shards-remote", daemon=True).start()
    return result.result()


def _told(error: RemoteError, attempts: int, deadline_s: float) -> RemoteError:
    """The error, saying how often and how long the operation was tried, if more than once."""
    if attempts > 1:
        error.place = ", ".join(part for part in (error.place, f"{attempts} attempts in {deadline_s:g} s") if part)
    return error
