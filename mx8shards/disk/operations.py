"""Which single operations change the disk (create, write, fsync, rename, link, unlink)?

All durable changes consist of these steps, so that a test can kill the process before any of them: it replaces
`before`, which receives the name and arguments of each step. An OSError becomes a DiskError that names the step and the
file. Nothing is retried: after a failed fsync the kernel may drop the dirty pages and let the next fsync succeed
(PostgreSQL's "fsyncgate"), so a failed step fails the publication.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mx8shards.errors import DiskError, ShardsError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def before(name: str, arguments: tuple[Any, ...]) -> None:
    """A hook called before every step, which tests replace. It does nothing."""


def _step(function: Callable[_P, _R]) -> Callable[_P, _R]:
    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            before(function.__name__, args)
            return function(*args, **kwargs)
        except OSError as error:
            raise disk_error(error, function.__name__.replace("_", " "), args) from error

    return run


def disk_error(error: OSError, doing: str, arguments: tuple[Any, ...] = ()) -> DiskError:
    """The DiskError for an OSError, naming the failed operation and the file."""
    named = next((argument for argument in arguments if isinstance(argument, str | Path)), error.filename)
    found = DiskError(f"{doing} failed: {error.strerror or error}", subject=str(named or ""))
    found.errno = error.errno
    return found


@contextlib.contextmanager
def disk_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError that the `with` block raises, such as when it lists a directory, into a DiskError."""
    try:
        yield
    except ShardsError:
        raise
    except OSError as error:
        raise disk_error(error, doing, (Path(error.filename) if isinstance(error.filename, str) else path,)) from error


@_step
def create(path: Path) -> int:
    """Create a new file and return its descriptor; an existing one is an error. The umask decides its mode."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


@_step
def write(descriptor: int, data: bytes | memoryview, path: Path) -> None:
    """Write all of `data`, with as many system calls as it takes."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@_step
def append(path: Path, data: bytes) -> None:
    """Append to a file that several processes append to; it is created if it is missing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


@_step
def overwrite(descriptor: int, data: bytes | memoryview, begin: int, path: Path) -> None:
    """Write all of `data` at this offset of an open file, with as many system calls as it takes."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(descriptor, rest, begin)
        rest, begin = rest[written:], begin + written


@_step
def truncate(descriptor: int, size_bytes: int, path: Path) -> None:
    """Truncate or extend the open file to `size_bytes`."""
    os.ftruncate(descriptor, size_bytes)


@_step
def sync(descriptor: int, path: Path) -> None:
    """Write the file's bytes to the disk (fsync)."""
    os.fsync(descriptor)


@_step
def rename(source: Path, target: Path) -> None:
    """Rename `source` to `target`, atomically."""
    os.rename(source, target)


@_step
def link(source: Path, target: Path) -> None:
    """Make `target` a hard link to the file `source`."""
    os.link(source, target)


@_step
def unlink(path: Path) -> None:
    """Remove the file; a missing one is no error."""
    path.unlink(missing_ok=True)


@_step
def set_mode(path: Path, mode: int, group: int) -> None:
    """Give the file a mode and, if this user may, a group. For files that another program has created."""
    os.chmod(path, mode)
    with contextlib.suppress(PermissionError):
        if os.stat(path).st_gid != group:
            os.chown(path, -1, group)


@_step
def make_directory(path: Path) -> None:
    """Create the directory unless it exists; a symlink there is an error. Its parent must exist."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise


@_step
def remove_directory(path: Path) -> None:
    """Remove the empty directory."""
    os.rmdir(path)


@_step
def sync_directory(path: Path) -> None:
    """Write the directory's entries to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
