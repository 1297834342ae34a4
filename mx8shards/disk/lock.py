"""Who may change this dataset now?

flock, because the kernel frees it however its holder ends: there is never a stale lock to clean.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mx8shards.disk import steps
from mx8shards.errors import DiskError


def acquire(path: Path) -> int:
    """A descriptor that holds the exclusive lock `path` until it is closed. DiskError at once where another has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise steps.refusal(error, "lock", (path,)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise DiskError(
            f"another Writer, merge, gc or seal is at work in this dataset (process {holder})", subject=str(path)
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)  # for the message above only; the lock is the flock
    return descriptor


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[int]:
    """A descriptor of the file `path` while this process alone holds it; waits for its turn.

    The file may have been renamed or removed by the previous holder: then the name is opened anew.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _names(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
