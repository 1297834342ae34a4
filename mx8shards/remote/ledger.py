"""Which shards are in a mirror, and how many bytes are they? A ledger that all jobs on the mirror keep together.

`.mx8shards/room` is a journal of lines `[NAME, BYTES, CLAIM]`; 0 bytes: the file is gone. Jobs append to it while they
hold the lock `.mx8shards/room.lock`, and read what others have appended.

A file is entered, by the holder of its claim, before it is fetched, and crossed out after it is removed. So a killed
job leaves too many entries in the journal, never too few. An entry without a file, whose claim nobody holds, is of a
killed job. Each job with a limit counts the files and replaces the journal when it first looks at it; the new one
begins with a line that tells that there was a limit.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mx8shards.disk import lock, operations, publish
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DiskError, ShardsError
from mx8shards.format.basename import is_basename
from mx8shards.remote.fetching import held_claims
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import STATE, kept, load

JOURNAL = "room"

_LIMITED = b"limited\n"
_MOST_BYTES = 1 << 50  # of one file; more is damage

Ints = npt.NDArray[np.int64]


class Ledger:
    """The names and sizes of the shards in one mirror. Names have numbers, which index `sizes`; 0 bytes: not here."""

    def __init__(self, root: Path, *, counts: bool = True) -> None:
        """`counts`: whether to count the files at the first look. A job without a limit need not know them."""
        self._root = root
        self._path = root / STATE / JOURNAL
        self._journal: ReadFile | None = None  # it stays open, so that no later journal gets its inode
        self._offset = 0
        self._counts, self._has_counted = counts, False
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._sizes = np.zeros(1 << 10, np.int64)
        self._claims: dict[str, str] = {}  # by name: the claim of the job that makes or made the file
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
        path = self._path.with_name(f"{JOURNAL}.lock")
        try:
            with lock.claimed(path, timeout_s):
                self._catch_up()
                yield
        except BlockingIOError:
            message = f"another process has held this lock for {timeout_s:.0f} s"
            raise DiskError(message, subject=str(path)) from None

    def enter(self, name: str, size_bytes: int, claim: str) -> None:
        """Set the size of a file, 0 if it is gone. The caller holds the lock."""
        line = _line(name, size_bytes, claim)
        operations.append(self._path, line)
        self._offset += len(line)
        self._set(name, size_bytes, claim)

    def enter_found(self, name: str) -> int:
        """Set the size of a file to the one that it has on the disk, and return it. The caller holds the lock."""
        size_bytes = size_of(self._root / name)
        self.enter(name, size_bytes, self._claims.get(name, ""))
        return size_bytes

    def let_go(self, name: str) -> None:
        """Note that no claim holds a file any more, if it is here. The caller holds the lock."""
        size_bytes = int(self._sizes[self.number(name)])
        if size_bytes and self._claims[name]:
            self.enter(name, size_bytes, "")

    def being_made(self) -> list[int]:
        """The numbers of the files that living jobs are making or checking."""
        held = held_claims(self._root)
        return [self._numbers[name] for name, claim in self._claims.items() if claim in held]

    def _set(self, name: str, size_bytes: int, claim: str) -> None:
        number = self.number(name)
        self.total += size_bytes - int(self._sizes[number])
        self._sizes[number] = size_bytes
        self._claims[name] = claim

    def _catch_up(self) -> None:
        """Read what other jobs have entered; at the first look, count."""
        if self._journal is None or not self._journal.is_at(self._path):
            self._forget()
            self._journal = ReadFile(self._path) if self._path.exists() else None
        if self._journal is not None:
            data = self._journal.read(self._offset, self._journal.size_bytes - self._offset)
            self._offset += len(data)
            self._replay(data)
        if self._counts and (self._journal is None or not self._has_counted):
            self._count_anew()

    def _replay(self, data: bytes) -> None:
        for line in data.splitlines():
            with suppress(ValueError, TypeError, RecursionError):  # a torn line of a killed job, or damage
                name, size_bytes, claim = json.loads(line)
                if is_basename(name) and type(size_bytes) is int and 0 <= size_bytes < _MOST_BYTES:
                    self._set(name, size_bytes, str(claim))

    def _forget(self) -> None:
        self._offset, self.total = 0, 0
        self._sizes[:] = 0
        self._claims.clear()

    def _count_anew(self) -> None:
        """Enter the files that are there, and those that living jobs are fetching, into a new journal."""
        # Claims first: a fetch that ends meanwhile has placed its file before it gives the claim back.
        found = {self.names[i]: int(self._sizes[i]) for i in self.being_made()}
        for name in {*self._known_names(), *self.names}:
            found[name] = max(found.get(name, 0), size_of(self._root / name))
        entries = {name: (size, self._claims.get(name, "")) for name, size in found.items() if size}
        data = _LIMITED + b"".join(_line(name, *entry) for name, entry in entries.items())
        draft = self._path.with_name(f"{JOURNAL}.new")
        operations.unlink(draft)  # of a killed job
        publish.write_quickly(draft, data)
        operations.rename(draft, self._path)
        self._forget()
        self._journal, self._offset, self._has_counted = ReadFile(self._path), len(data), True
        for name, entry in entries.items():
            self._set(name, *entry)

    def _known_names(self) -> Iterator[str]:
        """The names of all shards of the snapshots that came from the store."""
        seen: set[str] = set()
        for name in kept(self._root):
            with suppress(ShardsError):
                index = load(Link(self._root, name)).index
                seen.update(index.raw.basenames, index.zip.basenames)
        yield from seen - {""}


def has_had_limit(root: Path) -> bool:
    """Whether some job on this mirror had a limit, so that shards may be missing."""
    with suppress(FileNotFoundError):
        return ReadFile(root / STATE / JOURNAL).read(0, len(_LIMITED)) == _LIMITED
    return False


def size_of(path: Path) -> int:
    """The bytes of a regular file; 0 if there is none."""
    with suppress(OSError):
        found = path.lstat()
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    return 0


def _line(name: str, size_bytes: int, claim: str) -> bytes:
    """The line of an entry. It begins a line of its own even behind a torn line of a killed job."""
    return b"\n" + json.dumps([name, size_bytes, claim]).encode() + b"\n"
