"""Which threads are at work here, and who ends them when the interpreter ends?

Python stops a daemon thread by unwinding it at the moment when it wants the GIL back. Where that passes through C++
code of torch's or Numba's, the process aborts: so none should be left by then.
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

JOIN_S = 5.0  # a read or a transform that takes longer is left behind


class Owner(Protocol):
    """Who has threads."""

    def stop(self) -> None:
        """Tell them to end, and do not wait for that. Safe to call again, and never an error."""


class _Known:
    """The threads of this process that have not ended, perhaps, and their owners."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """As a forked child does: it has none of its parent's threads, and perhaps a lock that one of them holds."""
        self.lock = RLock()  # a garbage collection in `start_thread` may come back here
        self.owners: WeakSet[Owner] = WeakSet()
        self.threads: WeakSet[Thread] = WeakSet()
        self.ending = False


_known = _Known()


def start_thread(owner: Owner, name: str, target: Callable[..., object], *arguments: object) -> Thread:
    """A thread that ends when its owner is stopped: by whoever has that, or when the interpreter ends.

    Ctrl-C may come while this waits for the thread to start. Then the thread runs, or will, and nobody has it: it is up
    to the caller to stop the owner on any exception.
    """
    thread = Thread(target=target, args=arguments, name=f"mx8shards-{name}", daemon=True)
    begun: SimpleQueue[BaseException | None] = SimpleQueue()
    if get_ident() == main_thread().ident:
        # Ctrl-C in the midst of `Thread.start` may leave locks of the new thread held for ever, so that it never runs.
        # It comes in the main thread alone: so another one starts it.
        start_new_thread(_start, (owner, thread, begun))
    else:
        _start(owner, thread, begun)
    error = begun.get()
    if error is not None:
        raise error
    return thread


def _start(owner: Owner, thread: Thread, begun: SimpleQueue[BaseException | None]) -> None:
    """Start it, and say what came of that."""
    try:
        with _known.lock:
            if _known.ending:
                raise LoaderError("the interpreter is about to end")
            _known.owners.add(owner)
            _known.threads.add(thread)
            thread.start()  # with the lock: whoever ends all threads must not overlook one
    except BaseException as error:  # noqa: BLE001 - it is raised where that is waited for
        begun.put(error)
    else:
        begun.put(None)


def join(threads: Iterable[Thread]) -> None:
    """Wait until these have ended, but not for ever: one that waits for a disk which does not answer is left behind."""
    deadline = time.monotonic() + JOIN_S
    for thread in threads:
        if thread.ident is None:  # its start was interrupted, or failed
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            logging.getLogger("mx8shards").warning("a thread does not end: %s", thread.name)


@atexit.register
def _end_all() -> None:
    with _known.lock:
        _known.ending = True
        owners, threads = list(_known.owners), list(_known.threads)
    for owner in owners:
        owner.stop()
    join(threads)


os.register_at_fork(after_in_child=_known.forget)
