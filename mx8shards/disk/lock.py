"""Which process holds a dataset's lock?

The lock is an flock, which the kernel releases when its holder dies: there are no stale locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.disk.files import open_regular
from mx8shards.errors import DiskError

# Neither the lock file nor its directory may be a symlink: a symlink in a downloaded dataset could make us truncate any
# of the user's files.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.001, 0.05  # between two attempts to take a lock


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


@contextlib.contextmanager
def claimed(
    path: Path,
    timeout_s: float,
    give_up: Callable[[], bool] = lambda: False,
    goes_on: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """Take the exclusive lock on the file `path`, and remove the file at the end: BlockingIOError after a timeout.

    The kernel frees the lock of a process that is killed; its file stays, and the next claim takes it over. Waiting
    polls, so that a holder that is stopped or hangs is not waited for without end. If the holder makes progress, as
    `goes_on` tells at the timeout, it is waited for as long again.
    """
    deadline, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while True:
        with operations.disk_errors("lock", path):
            descriptor = open_regular(path, follow=False, flags=_LOCK_FLAGS)
        _held.add(descriptor)
        process = os.getpid()
        try:
            if _try_lock(descriptor) and _is_same_file(path, descriptor):
                try:
                    yield descriptor
                finally:
                    if process == os.getpid():
                        operations.unlink(path)
                return
        finally:
            if process == os.getpid():  # a forked child has closed its copy
                _held.discard(descriptor)
                os.close(descriptor)
        late = time.monotonic() > deadline
        if give_up() or (late and not (timeout_s > 0 and goes_on())):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock", str(path))
        if late:
            deadline = time.monotonic() + timeout_s
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def hold(descriptor: int) -> None:
    """Lock the open file, which nobody else knows yet, as a sign that this process lives; `let_go` ends it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _held.add(descriptor)


def let_go(descriptor: int) -> None:
    """Close a descriptor given to `hold`, unless this is a forked child, which closed it at the fork."""
    if descriptor in _held:
        _held.discard(descriptor)
        os.close(descriptor)


def is_held(descriptor: int) -> bool:
    """Whether another open file holds the exclusive lock on the file: whether its process lives."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


# Descriptors that must not stay open in a forked child: the lock would be held until the child ends.
_held: set[int] = set()


def _close_in_child() -> None:
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
