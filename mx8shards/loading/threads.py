"""Which threads are at work here, and who ends them when the interpreter ends?

Python stops a daemon thread by unwinding it at the moment when it wants the GIL back. Where that passes through C++
code of torch's or Numba's, the process aborts: so none may be left by then.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from threading import Thread
from typing import Protocol
from weakref import WeakSet

_JOIN_S = 5.0  # a read or a transform that takes longer is left behind


class Owner(Protocol):
    """Who has threads."""

    def stop(self) -> None:
        """Tell them to end, and do not wait for that. Safe to call again."""


_owners: WeakSet[Owner] = WeakSet()
_threads: WeakSet[Thread] = WeakSet()


def start(owner: Owner, name: str, target: Callable[..., object], *arguments: object) -> Thread:
    """A thread that ends when its owner is stopped: by whoever has that, or when the interpreter ends."""
    thread = Thread(target=target, args=arguments, name=f"mx8shards-{name}", daemon=True)
    thread.start()
    _owners.add(owner)
    _threads.add(thread)
    return thread


@atexit.register
def _end_all() -> None:
    for owner in list(_owners):
        owner.stop()
    deadline = time.monotonic() + _JOIN_S
    for thread in list(_threads):
        thread.join(max(0.0, deadline - time.monotonic()))


def _forget_all() -> None:
    _owners.clear()
    _threads.clear()


os.register_at_fork(after_in_child=_forget_all)  # a child has none of its parent's threads
