"""Which process holds a dataset's lock?

The lock is an flock, which the kernel releases when its holder dies: there are no stale locks.
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

# Neither the lock file nor its directory may be a symlink: a symlink in a downloaded dataset could make us truncate any
# of the user's files.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT


def acquire(path: Path) -> int:
    """Take the exclusive lock `path`, held until `release`, and return its descriptor. DiskError if it is taken."""
    descriptor = -1
    try:
        with _lock_hint(), operations.disk_errors("lock", path):
            publish.require_no_link(path.parent)
            descriptor = _open_locked(path)
            while not _is_same_file(path, descriptor):  # the previous holder removed the dataset, including this file
                os.close(descriptor)
                descriptor = -1
                descriptor = _open_locked(path)
        with contextlib.suppress(OSError):  # the process id is only for error messages; the disk may be full
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor
    except BaseException:  # also on Ctrl-C: otherwise the lock would be held until the process ends
        if descriptor >= 0:
            os.close(descriptor)
        raise


@contextlib.contextmanager
def _lock_hint() -> Iterator[None]:
    """Explain in permission errors that changing a dataset needs write access for its lock file."""
    try:
        yield
    except DiskError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            error.hint = (
                error.hint or "changing a dataset needs write access to its directory and to the lock file in it"
            )
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
            f"another Writer, convert, merge, gc or seal is changing this dataset (process {holder})",
            subject=str(path),
        ) from error


def release(descriptor: int) -> None:
    """Release the lock now, even if a forked process holds a copy of the descriptor."""
    with contextlib.suppress(OSError):  # closing the descriptor releases the lock unless a fork has a copy
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    with contextlib.suppress(OSError):  # even a failed close releases the descriptor
        os.close(descriptor)


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[int]:
    """Wait for the exclusive lock on the file `path` and yield its descriptor.

    The previous holder may have renamed or removed the file: then the path is opened again.
    """
    while True:
        descriptor = open_regular(path, follow=False, flags=_LOCK_FLAGS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_same_file(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
