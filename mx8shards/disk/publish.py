"""How does a file become visible whole, or not at all?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mx8shards.disk import operations
from mx8shards.disk.files import open_regular
from mx8shards.errors import DiskError, FormatError


class NewFile:
    """A file being written under a temporary name. `finish` makes its bytes durable; leaving without it removes it."""

    _descriptor = -1

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = operations.create(path)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        operations.write(self._descriptor, data, self.path)

    def finish(self) -> None:
        """Every byte written so far is on the disk; nothing more can be written."""
        operations.sync(self._descriptor, self.path)
        self.close()

    def discard(self) -> None:
        """Close the file and take its name away."""
        self.close()
        operations.unlink(self.path)

    def close(self) -> None:
        """Let go of the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with operations.refusals("close", self.path):
                os.close(descriptor)

    def __del__(self, close: Any = os.close) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._descriptor >= 0:
            self.discard()


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """A durable file at `path`, which must be free. Its name is not yet durable: that is `sync_directory`."""
    with NewFile(path) as file:
        for piece in pieces:
            file.write(piece)
        file.finish()


def make_directories(path: Path, *, below: Path) -> None:
    """`path` and its parents exist, durably, down from `below`, which must exist already. None of them is a symlink."""
    missing = []
    for directory in (path, *path.parents):
        if directory == below:
            break
        require_no_link(directory)
        if not directory.is_dir():
            missing.append(directory)
    for directory in reversed(missing):
        operations.make_directory(directory)
        operations.sync_directory(directory.parent)


def require_no_link(path: Path) -> None:
    """FormatError where `path` is a symlink: whatever is created or removed beneath it would lie elsewhere."""
    if path.is_symlink():
        hint = "a dataset's own directories are never symlinks; remove it"
        raise FormatError(subject=str(path), expected="a directory", found="a symlink", hint=hint)


def copy_file(source: Path, target: Path, *, hard_link: bool) -> None:
    """`target`, which must be free, gets the bytes of `source`: hard-linked where asked and possible."""
    with operations.refusals("read", source), open(open_regular(source, follow=False), "rb", buffering=0) as file:
        if hard_link and _linked(source, target):
            operations.sync(file.fileno(), source)  # whoever wrote it need not have cared
        else:
            write_file(target, iter(lambda: file.read(1 << 22), b""))


def _linked(source: Path, target: Path) -> bool:
    try:
        operations.link(source, target)
    except DiskError:
        return False  # another file system, or one without links
    return True


def remove_tree(path: Path) -> None:
    """The directory and everything in it is gone; one that was not there is fine."""
    directories = []
    waiting = [path]  # a stack of our own: directories may be nested deeper than Python may recurse
    while waiting:
        current = waiting.pop()
        if current.is_dir() and not current.is_symlink():
            directories.append(current)
            waiting += current.iterdir()
        else:
            operations.unlink(current)
    for directory in reversed(directories):  # a directory was found before all that lie in it
        operations.remove_directory(directory)


def files_below(path: Path) -> Iterator[Path]:
    """Everything below the directory that is no directory itself; symlinks are not followed."""
    waiting = [path]
    while waiting:
        for child in waiting.pop().iterdir():
            if child.is_dir() and not child.is_symlink():
                waiting.append(child)
            else:
                yield child
