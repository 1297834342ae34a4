"""How are files and directories created durably, copied, and removed?"""

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
    """A file being written under a temporary name. `finish` makes its bytes durable; otherwise it is removed."""

    _descriptor = -1

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = operations.create(path)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        operations.write(self._descriptor, data, self.path)

    def resize(self, size_bytes: int) -> None:
        """Extend the file with zeros, which take no space on the disk, or truncate it."""
        operations.truncate(self._descriptor, size_bytes, self.path)

    def finish(self) -> None:
        """Make the written bytes durable, and close the file."""
        operations.sync(self._descriptor, self.path)
        self.close()

    def discard(self) -> None:
        """Close and remove the file."""
        self.close()
        operations.unlink(self.path)

    def close(self) -> None:
        """Close the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with operations.disk_errors("close", self.path):
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
    """Write a new file whose bytes are durable. Its name is durable only after `sync_directory`."""
    with NewFile(path) as file:
        for piece in pieces:
            file.write(piece)
        file.finish()


def write_quickly(path: Path, data: bytes | memoryview) -> None:
    """Write a new file without waiting for the disk, for bytes that may be lost."""
    with NewFile(path) as file:
        file.write(data)
        file.close()


def make_root(root: Path) -> None:
    """Create a directory and its parents durably, unless it exists."""
    if not root.is_dir():
        make_directories(root, below=next(parent for parent in root.parents if parent.exists()))


def make_directories(path: Path, *, below: Path) -> None:
    """Create `path` and its parents below the existing directory `below`, durably.

    FormatError if one is a symlink, or if the path leads out of that directory.
    """
    if not path.is_relative_to(below) or ".." in path.relative_to(below).parts:
        raise FormatError(subject=str(path), expected=f"a path below {below}", found="a path that leads out of it")
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
    """FormatError if `path` is a symlink: files created or removed below it would be in another directory."""
    if path.is_symlink():
        hint = "a dataset's own directories are never symlinks; remove it"
        raise FormatError(subject=str(path), expected="a directory", found="a symlink", hint=hint)


def copy_file(source: Path, target: Path, *, hard_link: bool) -> None:
    """Copy `source` to the new file `target`, durably; with `hard_link`, link it if the file system can."""
    with operations.disk_errors("read", source), open(open_regular(source, follow=False), "rb", buffering=0) as file:
        if hard_link and _linked(source, target):
            operations.sync(file.fileno(), source)  # its writer may not have synced it
        else:
            write_file(target, iter(lambda: file.read(1 << 22), b""))


def _linked(source: Path, target: Path) -> bool:
    try:
        operations.link(source, target)
    except DiskError:
        return False  # on another file system, or on one without hard links
    return True


def remove_tree(path: Path) -> None:
    """Remove the directory and its contents; a missing one is no error."""
    directories = []
    waiting = [path]  # no recursion: directories may be nested deeper than Python's recursion limit
    while waiting:
        current = waiting.pop()
        if current.is_dir() and not current.is_symlink():
            directories.append(current)
            waiting += current.iterdir()
        else:
            operations.unlink(current)
    for directory in reversed(directories):  # each directory was found before its subdirectories
        operations.remove_directory(directory)


def files_below(path: Path) -> Iterator[Path]:
    """The path of every file below the directory, at any depth; symlinks are yielded and not followed."""
    waiting = [path]
    while waiting:
        for child in waiting.pop().iterdir():
            if child.is_dir() and not child.is_symlink():
                waiting.append(child)
            else:
                yield child
