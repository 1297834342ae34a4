"""Which shards will the jobs on a mirror need next? Each run tells the others in a small file of its own.

`.mx8shards/readers/<uuid>` lists intervals of order positions in which the run uses a shard, and the positions between
which its batches are in flight. The run holds a lock on the file (flock), which the kernel frees when the job dies;
whoever finds such a file without its lock removes it.
"""

from __future__ import annotations

import os
import struct
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.disk import lock, operations, publish
from mx8shards.disk.files import open_regular
from mx8shards.errors import ShardsError
from mx8shards.remote.ledger import Ledger
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import STATE, load

Ints = npt.NDArray[np.int64]

NEVER = 1 << 62

_DRAFT = "draft"  # a file that is being written, and is not locked yet

_MAGIC = b"MX8USES1"
_HEAD = struct.Struct("<8s71s?qqq")  # magic, snapshot, keep_zip, rows, oldest, newest
_PROGRESS = struct.Struct("<qq")
_ROW_BYTES = 24  # of the intervals: shard, begin and end
_IGNORED = (OSError, ValueError, LookupError, struct.error)  # a damaged file counts for nothing


class RunFile:
    """The file of one run of this process, which calls `at` from one thread. It is made under the ledger's lock."""

    def __init__(self, root: Path, snapshot: str, keep_zip: bool, uses: tuple[Ints, Ints, Ints]) -> None:
        directory = root / STATE / "readers"
        publish.make_directories(directory, below=root)
        name = uuid.uuid4().hex
        self._path = directory / name
        self._process = os.getpid()
        head = _HEAD.pack(_MAGIC, snapshot.encode(), keep_zip, len(uses[0]), 0, 0)
        draft = directory / _DRAFT
        operations.unlink(draft)  # of a killed job
        publish.write_quickly(draft, head + b"".join(column.astype("<i8").tobytes() for column in uses))
        self._descriptor = open_regular(draft, follow=False, flags=os.O_RDWR)
        lock.hold(self._descriptor)
        operations.rename(draft, self._path)
        self._last = (0, 0)

    def at(self, oldest: int, newest: int) -> None:
        """The batches in flight begin at these order positions."""
        if self._process == os.getpid() and self._descriptor >= 0 and self._last != (oldest, newest):
            self._last = oldest, newest
            begin = _HEAD.size - _PROGRESS.size
            operations.overwrite(self._descriptor, _PROGRESS.pack(oldest, newest), begin, self._path)

    def close(self) -> None:
        """The run has ended: remove the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0 and self._process == os.getpid():
            with suppress(ShardsError):
                operations.unlink(self._path)
            lock.let_go(descriptor)

    def __del__(self, suppress: Any = suppress) -> None:  # a default, as globals are None when the interpreter exits
        with suppress(Exception):
            self.close()


class _Seen(NamedTuple):
    """The file of a living run: its uses, with the ledger's numbers of the shards."""

    descriptor: int
    shard: Ints
    begin: Ints
    end: Ints


class Readers:
    """All living runs on a mirror, of this process and of others. The caller holds the ledger's lock."""

    def __init__(self, root: Path, ledger: Ledger) -> None:
        self._root = root
        self._directory = root / STATE / "readers"
        self._ledger = ledger
        self._seen: dict[str, _Seen] = {}
        self._numbers: dict[tuple[str, bool], list[Ints]] = {}  # of the files of a snapshot, in the ledger

    def next_uses(self) -> tuple[Ints, Ints]:
        """For each name in the ledger: the positions until its next use and since its last one; NEVER without one."""
        self._look()
        count = len(self._ledger.names)
        until, since = np.full(count, NEVER), np.full(count, NEVER)
        for seen in self._seen.values():
            oldest, newest = _progress(seen.descriptor)
            coming = seen.end > oldest
            np.minimum.at(until, seen.shard[coming], np.maximum(seen.begin[coming] - newest, 0))
            np.minimum.at(since, seen.shard[~coming], oldest - seen.end[~coming])
        return until, since

    def _look(self) -> None:
        """Open the files of new runs, and drop those of runs that have ended or died."""
        names = {path.name for path in self._directory.iterdir()} if self._directory.is_dir() else set()
        for name in self._seen.keys() - names:
            os.close(self._seen.pop(name).descriptor)
        for name in names:
            with suppress(*_IGNORED, ShardsError):
                if name not in self._seen and (seen := self._opened(self._directory / name)):
                    self._seen[name] = seen
                if name in self._seen and not lock.is_held(self._seen[name].descriptor):
                    operations.unlink(self._directory / name)
                    os.close(self._seen.pop(name).descriptor)

    def _opened(self, path: Path) -> _Seen | None:
        if path.name == _DRAFT:
            return None
        descriptor = open_regular(path, follow=False)
        try:
            head = os.pread(descriptor, _HEAD.size, 0)
            magic, snapshot, keep_zip, rows, _, _ = _HEAD.unpack(head)
            if magic != _MAGIC or os.fstat(descriptor).st_size != _HEAD.size + _ROW_BYTES * rows:
                raise ValueError(path)
            data = os.pread(descriptor, _ROW_BYTES * rows, _HEAD.size)
            shard, begin, end = np.frombuffer(data, "<i8").reshape(3, rows)
            if ((shard | begin | end) < 0).any() or (np.maximum(begin, end) > NEVER).any():
                raise ValueError(path)
            numbers = [each[shard] for each in self._numbers_of(snapshot.decode(), keep_zip)]
            return _Seen(descriptor, np.concatenate(numbers), *(np.tile(each, len(numbers)) for each in (begin, end)))
        except BaseException:
            os.close(descriptor)
            raise

    def _numbers_of(self, snapshot: str, keep_zip: bool) -> list[Ints]:
        """The ledger's numbers of the shards' raw files and, if they are kept, of their compressed files."""
        key = snapshot, keep_zip
        if key not in self._numbers:
            index = load(Link(self._root, snapshot)).index
            found = [index.raw.basenames]
            if keep_zip:
                found.append([zipped or raw for raw, zipped in zip(found[0], index.zip.basenames, strict=True)])
            self._numbers[key] = [np.array([self._ledger.number(name) for name in names], np.int64) for names in found]
        return self._numbers[key]

    def close(self) -> None:
        """Close the files of all runs."""
        while self._seen:
            os.close(self._seen.popitem()[1].descriptor)

    def __del__(self, suppress: Any = suppress) -> None:
        with suppress(Exception):
            self.close()


def _progress(descriptor: int) -> tuple[int, int]:
    """The order positions of a run's oldest and newest batch in flight; those of its begin if the file is damaged."""
    data = os.pread(descriptor, _PROGRESS.size, _HEAD.size - _PROGRESS.size)
    oldest, newest = _PROGRESS.unpack(data) if len(data) == _PROGRESS.size else (0, 0)
    return (oldest, newest) if 0 <= oldest <= newest <= NEVER else (0, 0)


def sweep(root: Path) -> None:
    """Remove the files of runs whose jobs have died."""
    directory = root / STATE / "readers"
    with suppress(OSError):
        for path in directory.iterdir() if directory.is_dir() else ():
            with suppress(OSError, ShardsError):
                descriptor = open_regular(path, follow=False)
                try:
                    if path.name != _DRAFT and not lock.is_held(descriptor):
                        operations.unlink(path)
                finally:
                    os.close(descriptor)
