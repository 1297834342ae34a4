"""Where do temporary files lie that no killed process may leave behind for ever?

Each process has a directory of its own and holds an flock on it, which the kernel releases when the process dies. The
next process that makes one in the same place removes those whose lock is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.errors import DiskError

_PREFIX = "mx8shards-scratch-"


class Scratch:
    """A new private directory below the existing directory `above`. `remove` removes it with its contents."""

    _lock = -1

    def __init__(self, above: Path) -> None:
        with operations.disk_errors("make a temporary directory in", above):
            _sweep(above)
            while self._lock < 0:  # a sweep may lock and remove a new directory before its owner has locked it
                self.path = above / f"{_PREFIX}{uuid.uuid4().hex}"
                operations.make_directory(self.path)
                self._lock = _locked(self.path)

    def remove(self) -> None:
        """Remove the directory with its contents. Call it only in the process that made the directory."""
        descriptor, self._lock = self._lock, -1
        if descriptor < 0:
            return
        try:
            with operations.disk_errors("remove", self.path):
                publish.remove_tree(self.path)
        finally:
            os.close(descriptor)


def _locked(path: Path) -> int:
    """The descriptor of a directory that is locked now; -1 if another process has the lock or removed the directory."""
    descriptor = -1
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(path.lstat(), os.fstat(descriptor)):
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
    return -1


def _sweep(above: Path) -> None:
    """Remove the directories of this user whose process has ended."""
    for path in above.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, DiskError):
            if path.lstat().st_uid != os.geteuid():
                continue
            descriptor = _locked(path)
            if descriptor >= 0:
                try:
                    publish.remove_tree(path)
                finally:
                    os.close(descriptor)
