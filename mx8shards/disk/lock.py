"""Who may change this dataset now?

flock, because the kernel frees it however its holder ends: there is never a stale lock to clean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.disk.files import open_regular
from mx8shards.errors import DiskError

# No symlink is followed, neither as the file nor as its directory: in a dataset from elsewhere it could make us cut any
# file of the user's to nothing.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT


def acquire(path: Path) -> int:
    """A descriptor that holds the exclusive lock `path` until `release`. DiskError at once where another has it."""
    descriptor = -1
    try:
        with _lock_hint(), operations.refusals("lock", path):
            publish.require_no_link(path.parent)
            descriptor = _open_locked(path)
            while not _names(path, descriptor):  # the last holder removed the file, and with it the dataset
                os.close(descriptor)
                descriptor = -1
                descriptor = _open_locked(path)
        with contextlib.suppress(OSError):  # for the message below only, and a full disk may have no room for it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor
    except BaseException:  # Ctrl-C among them: nobody would free the lock before the process ends
        if descriptor >= 0:
            os.close(descriptor)
        raise


@contextlib.contextmanager
def _lock_hint() -> Iterator[None]:
    """Say why a command that changes little needs the right to write: it takes the lock, which is a file."""
    try:
        yield
    except DiskError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            error.hint = error.hint or "whoever changes a dataset needs the right to write there, for its lock as well"
        raise


def _open_locked(path: Path) -> int:
    descriptor = open_regular(path, follow=False, flags=_LOCK_FLAGS)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BaseException as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise
        raise DiskError(
            f"another Writer, convert, merge, gc or seal is at work in this dataset (process {holder})",
            subject=str(path),
        ) from error


def release(descriptor: int) -> None:
    """Free the lock at once, also where a forked process holds a copy of the descriptor."""
    with contextlib.suppress(OSError):  # closing it does the same, mostly
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    with contextlib.suppress(OSError):  # the descriptor is gone, whatever the system says
        os.close(descriptor)


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[int]:
    """A descriptor of the file `path` while this process alone holds it; waits for its turn.

    The file may have been renamed or removed by the previous holder: then the name is opened anew.
    """
    while True:
        descriptor = open_regular(path, follow=False, flags=_LOCK_FLAGS)
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
