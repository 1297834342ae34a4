"""How are daemon threads started, and ended before the interpreter shuts down?

At shutdown, Python unwinds the stack of a daemon thread when it acquires the GIL. If the stack has C++ frames of torch
or Numba, the process aborts. So an exit handler ends all threads first.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from _thread import start_new_thread
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from threading import RLock, Thread, get_ident, main_thread
from typing import Protocol
from weakref import WeakSet

from mx8shards.errors import LoaderError

JOIN_S = 5.0  # threads in a longer read or transform are left running
_AGAIN_S = 0.05


class Owner(Protocol):
    """An object that owns threads."""

    def stop(self) -> None:
        """Ask them to end, without waiting. May be called several times, and never raises."""


class _Known:
    """The threads of this process that may still run, and their owners."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset. A forked child has none of its parent's threads, but may inherit a lock that one of them held."""
        self.lock = RLock()  # reentrant: a garbage collection within `start_thread` may enter it again
        self.owners: WeakSet[Owner] = WeakSet()
        self.threads: WeakSet[Thread] = WeakSet()
        self.ending = False


_known = _Known()


def start_thread(owner: Owner, name: str, target: Callable[..., object], *arguments: object) -> Thread:
    """Start a daemon thread, which ends when its owner is stopped. The exit handler stops all owners.

    Ctrl-C may come while this waits for the start. Then the thread runs, or will run, but the caller has no reference
    to it: the caller must stop the owner on any exception.
    """
    thread = Thread(target=target, args=arguments, name=f"mx8shards-{name}", daemon=True)
    begun: SimpleQueue[BaseException | None] = SimpleQueue()
    if get_ident() == main_thread().ident:
        # Ctrl-C within `Thread.start` may leave a lock of the new thread held, so that it never runs. Ctrl-C is raised
        # in the main thread only, so a helper thread starts it.
        start_new_thread(_start, (owner, thread, begun))
    else:
        _start(owner, thread, begun)
    error = begun.get()
    if error is not None:
        raise error
    return thread


def _start(owner: Owner, thread: Thread, begun: SimpleQueue[BaseException | None]) -> None:
    """Start the thread, and put the error of that, or None, into `begun`."""
    try:
        with _known.lock:
            if _known.ending:
                raise LoaderError("the interpreter is about to end")
            _known.owners.add(owner)
            _known.threads.add(thread)
            thread.start()  # with the lock held, so that `_end_all` misses no thread
    except BaseException as error:  # noqa: BLE001 - raised in `start_thread`
        begun.put(error)
    else:
        begun.put(None)


def join(threads: Iterable[Thread], timeout_s: float | None = None) -> None:
    """Wait for these threads, at most `JOIN_S` or this time: a thread that waits for a disk may never end."""
    deadline = time.monotonic() + (JOIN_S if timeout_s is None else timeout_s)
    for thread in threads:
        if thread.ident is None:  # its start failed or was interrupted
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            logging.getLogger("mx8shards").warning("a thread does not end: %s", thread.name)


@atexit.register
def _end_all() -> None:
    with _known.lock:
        _known.ending = True
        owners, threads = list(_known.owners), list(_known.threads)
    deadline = time.monotonic() + JOIN_S
    for owner in owners:
        owner.stop()
    while (alive := [thread for thread in threads if thread.is_alive()]) and time.monotonic() < deadline:
        alive[0].join(_AGAIN_S)
        for owner in owners:
            owner.stop()  # again: an exception that this raises in a thread is lost if it meets a callback there
    join(threads, max(0.0, deadline - time.monotonic()))


os.register_at_fork(after_in_child=_known.forget)
