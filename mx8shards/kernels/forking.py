"""How is a fork made safe while Numba compiles? The fork waits for the compiler lock, so the child inherits it free.

Kernels are compiled in the loader's threads. A child forked during a compilation does not have these threads: it could
never acquire the compiler lock, or would find the compiler's data structures half written. So a fork waits until the
current compilation is done, as the standard library does for the lock of `logging`. This applies to forks that run
Python code in the child (`os.fork`, `multiprocessing`, DataLoader workers), not to `subprocess` without `preexec_fn`.

The wait is bounded: if the compiling thread waits for something that the forking thread holds, the fork goes on after
`PATIENCE_S`, and the child gets new locks. A function that was being compiled then may fail in the child.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

from mx8shards.kernels import compiling

PATIENCE_S = 180.0  # compiling one function with its callees takes up to a minute on a busy machine
_WARN_AFTER_S = 2.0

# The RLocks inside of Numba's and llvmlite's lock objects: only they can be acquired with a timeout. In the order in
# which the compiler acquires them.
_owners: list[Any] = [global_compiler_lock, getattr(getattr(ffi, "lib", None), "_lock", None)]
_locks: list[Any] = [owner._lock for owner in _owners if hasattr(owner, "_lock")]
_forking = threading.local()  # `taken`: the locks that the forking thread has acquired


def _before() -> None:
    _forking.taken = []
    for lock in _locks:
        _forking.taken.append(lock)  # before it is acquired: KeyboardInterrupt may be raised right after that
        if not lock.acquire(timeout=_WARN_AFTER_S):
            logger = logging.getLogger("mx8shards")
            logger.warning("a fork waits while another thread compiles: %s", compiling.current() or "loading a kernel")
            if not lock.acquire(timeout=PATIENCE_S):
                logger.warning("the fork stops waiting: kernels being compiled may be unusable in the child")


def _release() -> list[Any]:
    """Release the locks that this thread took, and return them."""
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
