"""Which single operations change the disk?

Everything durable is made of these steps and of nothing else, so that a test can stop the world before any of them:
it replaces `before`, which sees every step's name and arguments. A refusal by the system becomes a DiskError that
names the step and the file. Nothing here retries: after a failed fsync the kernel may drop the dirty pages and let
the next fsync succeed (PostgreSQL's "fsyncgate"), so a failed step fails the publication.
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
    """Called ahead of every step; does nothing. Tests put a double here."""


def _step(function: Callable[_P, _R]) -> Callable[_P, _R]:
    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            before(function.__name__, args)
            return function(*args, **kwargs)
        except OSError as error:
            raise refusal(error, function.__name__.replace("_", " "), args) from error

    return run


def refusal(error: OSError, doing: str, arguments: tuple[Any, ...] = ()) -> DiskError:
    """The DiskError that tells what the system refused, and to which file."""
    named = next((argument for argument in arguments if isinstance(argument, str | Path)), error.filename)
    found = DiskError(f"{doing} failed: {error.strerror or error}", subject=str(named or ""))
    found.errno = error.errno
    return found


@contextlib.contextmanager
def refusals(doing: str, path: Path) -> Iterator[None]:
    """An OSError from a call that is no step, such as listing a directory, becomes a DiskError too."""
    try:
        yield
    except ShardsError:
        raise
    except OSError as error:
        raise refusal(error, doing, (Path(error.filename) if isinstance(error.filename, str) else path,)) from error


@_step
def create(path: Path) -> int:
    """A descriptor for a file that did not exist before; the umask decides its mode."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


@_step
def write(descriptor: int, data: bytes | memoryview, path: Path) -> None:
    """All of `data`, however many calls the system needs for it."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@_step
def truncate(descriptor: int, size_bytes: int, path: Path) -> None:
    """The open file cut or extended to `size_bytes`."""
    os.ftruncate(descriptor, size_bytes)


@_step
def sync(descriptor: int, path: Path) -> None:
    """The file's bytes are on the disk when this returns."""
    os.fsync(descriptor)


@_step
def rename(source: Path, target: Path) -> None:
    """`source` takes the name `target`, atomically."""
    os.rename(source, target)


@_step
def link(source: Path, target: Path) -> None:
    """`target` becomes a second name of the file `source`."""
    os.link(source, target)


@_step
def unlink(path: Path) -> None:
    """The name is gone; a file that was not there is fine."""
    path.unlink(missing_ok=True)


@_step
def make_directory(path: Path) -> None:
    """The directory exists, and is no symlink to one; its parent must exist."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise


@_step
def remove_directory(path: Path) -> None:
    """The empty directory is gone."""
    os.rmdir(path)


@_step
def sync_directory(path: Path) -> None:
    """The directory's names are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
