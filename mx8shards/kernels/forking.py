"""What becomes of Numba's locks in a forked child? It must inherit them free, and no function half compiled.

Kernels are compiled in the loader's threads. A child that is forked meanwhile has none of these threads: it would
wait for the compiler's lock for ever, or find the compiler's tables half written. So a fork waits until the function
that is being compiled is done, as `logging` has forks wait for its lock. Only forks that run Python code in the child
wait (`os.fork`, `multiprocessing`, a DataLoader's workers); `subprocess` without `preexec_fn` does not.

The wait is bounded: should the thread that compiles wait for something that the forking thread holds, the fork goes
on after `PATIENCE_S`, and the child gets new locks. It may find a function half compiled then, which is an error.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

from mx8shards.kernels import compiling

PATIENCE_S = 180.0  # an outermost function with all that it calls takes up to a minute on a busy machine
_TOLD_AFTER_S = 2.0

# The reentrant locks themselves, as only these can be waited for with a limit. Compiling takes them in this order.
_owners: list[Any] = [global_compiler_lock, getattr(getattr(ffi, "lib", None), "_lock", None)]
_locks: list[Any] = [owner._lock for owner in _owners if hasattr(owner, "_lock")]
_forking = threading.local()  # which of them the thread that forks has taken


def _before() -> None:
    _forking.taken = []
    for lock in _locks:
        _forking.taken.append(lock)  # first: Ctrl-C may come as soon as it is taken
        if not lock.acquire(timeout=_TOLD_AFTER_S):
            logger = logging.getLogger("mx8shards")
            logger.warning("a fork waits while another thread compiles: %s", compiling.current() or "loading a kernel")
            if not lock.acquire(timeout=PATIENCE_S):
                logger.warning("that takes too long: the forked child may fail to use what is being compiled")


def _release() -> list[Any]:
    """Give back the locks that this thread took; which were they?"""
    taken = [lock for lock in getattr(_forking, "taken", []) if lock._is_owned()]
    _forking.taken = []
    for lock in reversed(taken):
        lock.release()
    return taken


def _in_child() -> None:
    taken = _release()
    for lock in _locks:
        if lock not in taken:
            lock._at_fork_reinit()
    compiling.forget()


os.register_at_fork(before=_before, after_in_parent=_release, after_in_child=_in_child)
