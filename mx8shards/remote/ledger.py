"""Which shards are in a mirror, and how many bytes are they? A ledger that all jobs on the mirror keep together.

`.mx8shards/room` is a journal of lines `[NAME, BYTES]`; 0 bytes: the file is gone. Jobs append to it while they hold
the lock `.mx8shards/room.lock`, and read what others have appended. A file is entered before it is fetched and crossed
out after it is removed, so that a killed job leaves too much in the journal and never too little. Each job counts the
files and writes the journal anew when it opens it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mx8shards.disk import lock, operations, publish
from mx8shards.disk.files import open_regular
from mx8shards.errors import DiskError, ShardsError
from mx8shards.remote.stamps import safe_name
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import STATE, kept, load

JOURNAL = "room"

Ints = npt.NDArray[np.int64]


class Ledger:
    """The names and sizes of the shards in one mirror. Names have numbers, which index `sizes`; 0 bytes: not here."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / STATE / JOURNAL
        self._inode = 0
        self._offset = 0
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._sizes = np.zeros(1 << 10, np.int64)
        self.total = 0

    @property
    def sizes(self) -> Ints:
        """The bytes of each name's file."""
        return self._sizes[: len(self.names)]

    def number(self, name: str) -> int:
        """The number of a name."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
            if number == len(self._sizes):
                self._sizes = np.concatenate([self._sizes, np.zeros(number, np.int64)])
        return number

    @contextmanager
    def locked(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock, with all that other jobs have entered. DiskError if another job holds it for that long."""
        try:
            with lock.claimed(self._root / STATE / "room.lock", timeout_s):
                self._catch_up()
                yield
        except BlockingIOError:
            message = f"another process has held this lock for {timeout_s:.0f} s"
            raise DiskError(message, subject=str(self._root / STATE / "room.lock")) from None

    def enter(self, name: str, size_bytes: int) -> None:
        """Set the size of a file, 0 if it is gone. The caller holds the lock."""
        line = _line(name, size_bytes)
        operations.append(self._path, line)
        self._offset += len(line)
        self._set(name, size_bytes)

    def _set(self, name: str, size_bytes: int) -> None:
        number = self.number(name)
        self.total += size_bytes - int(self._sizes[number])
        self._sizes[number] = size_bytes

    def _catch_up(self) -> None:
        try:
            descriptor = open_regular(self._path, follow=False)
        except FileNotFoundError:
            self._count_anew()
            return
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not self._inode:  # the first look of this job
                self._replay(file.read())
                self._count_anew()
                return
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._forget()
                self._inode = found.st_ino
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        self._replay(data)

    def _replay(self, data: bytes) -> None:
        for line in data.splitlines():
            with suppress(ValueError, TypeError):  # a torn line of a killed job
                name, size_bytes = json.loads(line)
                self._set(str(name), int(size_bytes))

    def _forget(self) -> None:
        self._offset, self.total = 0, 0
        self._sizes[:] = 0

    def _count_anew(self) -> None:
        """Enter the files that are there, and those that living jobs are fetching, into a new journal."""
        before = {name: int(size) for name, size in zip(self.names, self.sizes, strict=True) if size}
        # Claims first: a fetch that ends meanwhile has placed its file before it gives the claim back.
        found = {name: size for name, size in before.items() if self._is_claimed(name)}
        found |= {name: size for name in self._known_names() if (size := _size_of(self._root / name))}
        data = b"".join(_line(name, size) for name, size in found.items())
        draft = self._path.with_name(f"{JOURNAL}.new")
        operations.unlink(draft)  # of a killed job
        publish.write_quickly(draft, data)
        operations.rename(draft, self._path)
        self._forget()
        self._inode, self._offset = self._path.stat().st_ino, len(data)
        for name, size in found.items():
            self._set(name, size)

    def _known_names(self) -> Iterator[str]:
        """The names of all shards of the snapshots that came from the store. No other file is ever removed."""
        seen: set[str] = set()
        for name in kept(self._root):
            with suppress(ShardsError):
                index = load(Link(self._root, name)).index
                seen.update(index.raw.basenames, index.zip.basenames)
        yield from seen - {""}

    def _is_claimed(self, name: str) -> bool:
        with suppress(OSError):
            descriptor = open_regular(self._root / STATE / "claims" / safe_name(name), follow=False)
            try:
                return lock.is_held(descriptor)
            finally:
                os.close(descriptor)
        return False


def _line(name: str, size_bytes: int) -> bytes:
    return json.dumps([name, size_bytes]).encode() + b"\n"


def is_kept(root: Path) -> bool:
    """Whether some job on this mirror keeps a ledger."""
    return (root / STATE / JOURNAL).exists()


def _size_of(path: Path) -> int:
    with suppress(OSError):
        found = path.lstat()
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    return 0


def enter(root: Path, name: str, size_bytes: int, timeout_s: float) -> None:
    """Enter a file that a job without a limit has made, for the jobs with one."""
    with suppress(BlockingIOError), lock.claimed(root / STATE / "room.lock", timeout_s):
        operations.append(root / STATE / JOURNAL, _line(name, size_bytes))
