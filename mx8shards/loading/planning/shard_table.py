"""How do kernels reach the samples of a dataset? Its shards are opened when first needed, and checked each epoch."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.ma
import numpy.typing as npt

from mx8shards.errors import DiskError, FormatError, IntegrityError, RemoteError, without_traceback
from mx8shards.format.columns import MAX_BYTES, Columns
from mx8shards.format.compression import import_package
from mx8shards.format.hashing import hasher
from mx8shards.format.shard_bytes import table_bytes
from mx8shards.kernels import gather, memory, residency
from mx8shards.kernels.records import FAULT, MAPPED, NOT_OPENED, READ, ROW, SHARD, UNKNOWN
from mx8shards.loading.planning.filesystems import is_remote
from mx8shards.loading.planning.mds_rows import find_samples
from mx8shards.loading.reporting.times import clock
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.shard import Shard

IO = Literal["auto", "mmap", "pread"]
IOS: tuple[IO, ...] = ("auto", "mmap", "pread")

Provide = Callable[[Sequence[int]], dict[int, Exception]]  # why some shards cannot be made local, by their numbers
Each = Callable[[Callable[[int], object], Sequence[int]], None]  # acts on all numbers, side by side
Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[Any]  # of records, ROW
Ids = npt.NDArray[np.int64]
_T = TypeVar("_T")

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # no fault of the file that could not be opened


class Reach:
    """The shards of one dataset as kernels see them. Threads may share it.

    "auto" copies from the map what is in the page cache, and reads the rest; network file systems are never mapped.
    "mmap" maps everything and "pread" nothing. The bytes are the same.

    A shard that cannot be opened is an error; if Reach `forgives`, its rows are NOT_OPENED, until the next epoch.
    """

    def __init__(self, shards: Shards, io: IO, each: Each | None = None, *, forgives: bool = False) -> None:
        self._shards = shards
        self._forgives = forgives
        self._failures: dict[int, Exception] = {}
        self._each = each or _in_turn
        remote = any(is_remote(snapshot.root) for snapshot in shards.snapshots)
        self._maps = io != "pread" and residency.can_map() and (io == "mmap" or not remote)
        self._cold = FAULT if io == "mmap" else READ
        self._lock = Lock()
        # keeps the addresses valid: another loader of the same data may have opened a shard at the same time, so that
        # this one is nobody else's
        self._kept: list[tuple[Shard, Bytes, Bytes] | None] = [None] * shards.count
        self._unmeasured: list[int] = []  # shards that were opened, but whose longest sample was not asked for yet
        self._unopened = shards.count
        self.files_s = 0.0  # how long it took to open files, and to learn what of them is cached
        self._marks = np.full(shards.count, -1, np.int64)
        self._mark = 0
        self._out = np.zeros(shards.count, np.int64)
        self._count = np.zeros(1, np.int64)
        self._counts = np.zeros(4, np.int64)
        self._scratch = np.zeros(residency.PROBE_BYTES, np.uint8)
        indices = [snapshot.index for snapshot in shards.snapshots]
        first_kinds = np.cumsum([0, *(len(index.kinds) for index in indices)])
        _import_packages({kind.compression for index in indices for kind in index.kinds if kind.compression})
        self.kinds: tuple[Columns, ...] = tuple(kind.columns for index in indices for kind in index.kinds)
        self.table = np.zeros(shards.count, SHARD)
        self.table["size"] = np.concatenate([index.raw.size_bytes for index in indices])
        self.table["kind"] = np.concatenate([i.kind + first for i, first in zip(indices, first_kinds, strict=False)])
        self._longest = self.table["size"].copy()
        windows = np.cumsum(-(-self.table["size"] // residency.WINDOW_BYTES))
        self.table["window"][1:] = windows[:-1]
        self._verdicts = np.zeros(windows[-1] if len(windows) else 0, np.uint8)
        self._populated = np.zeros(len(self._verdicts), bool)
        self._told = np.zeros(shards.count, bool)  # of which shards mincore tells the truth

    @property
    def kept_bytes(self) -> int:
        """An upper bound of what it keeps in memory: tables, and some words for each shard."""
        tables = 4 * (self._shards.samples + 2 * self._shards.count)
        room = min(tables, self._shards.table_room) if self._maps else tables
        return room + self.table.nbytes + 2 * self._verdicts.nbytes + 25 * self._shards.count

    def begin_epoch(self) -> None:
        """From now on, every shard is looked at anew when it is first needed: its size, and what of it is cached."""
        with self._lock:
            self._mark += 1
            self._failures.clear()
            self._verdicts.fill(UNKNOWN)

    def find(self, sample_ids: Ids, provide: Provide | None = None) -> Rows:
        """A row for each sample, with its span. Shards that were not needed before are opened and checked.

        `provide` returns when some shards are local, and says why others cannot be. With it, shards are opened side by
        side by threads of the pool: a thread of the pool must not ask for that. No lock is held meanwhile.
        """
        rows = np.zeros(len(sample_ids), ROW)
        gather.locate(self._shards.starts, sample_ids, rows)
        if self._unopened:
            self._open_missing(rows, provide)
        begun = clock()
        with self._lock:
            gather.list_unseen(rows, self._mark, self._marks, self._count, self._out)
            unseen = self._out[: self._count[0]].tolist()
            try:
                for i in unseen:
                    self._tried(self._see, i)
            except BaseException:
                self._marks[unseen] = -1  # kernels must not believe that they were seen
                raise
            if unseen:
                self.files_s += clock() - begun
            find_samples(self.table, rows)
        return rows

    def _open_missing(self, rows: Rows, provide: Provide | None) -> None:
        """Open the shards of these rows that are not open, without a lock: unpacking or fetching one takes long."""
        shards = np.unique(rows["shard"]).tolist()
        new = [i for i in shards if self._kept[i] is None and i not in self._failures]
        if provide is not None:
            for i, error in provide(new).items():
                self._forgive(i, error, provided=True)
        begun = clock()
        each = _in_turn if provide is None or len(new) < 2 else self._each
        each(partial(self._tried, self._open), new)
        self.files_s += clock() - begun

    def longest(self) -> int:
        """The most bytes that any sample can have: as the tables of open shards tell, or else a whole shard."""
        with self._lock:
            while self._unmeasured:
                i = self._unmeasured.pop()
                kept = self._kept[i]
                if kept is not None and kept[0].samples:
                    offsets = kept[1][4 : table_bytes(kept[0].samples)].view("<u4")
                    self._longest[i] = np.diff(offsets).max()
            return int(self._longest.max(initial=0))

    def prepare(self, rows: Rows, most: int = MAX_BYTES) -> list[object]:
        """Choose how each row is reached, and have the first `most` bytes of cold ones fetched.

        What this gives has to be held until they are.
        """
        files: list[object] = []
        with self._lock:
            residency.choose_ways(self.table, rows, self._verdicts, self._cold, self._counts)
            begun = clock()
            if self._counts[UNKNOWN]:
                files = self._open_files(rows, np.flatnonzero(rows["way"] == UNKNOWN))
                residency.judge_windows(self.table, self._told, rows, self._scratch, self._populated, self._verdicts)
                residency.choose_ways(self.table, rows, self._verdicts, self._cold, self._counts)
            if self._counts[READ] + self._counts[FAULT]:
                files = self._open_files(rows, np.flatnonzero(rows["way"] != MAPPED))
                if memory.KNOWS_CACHE:
                    residency.advise_samples(rows, most)
            else:
                files = []
            self.files_s += clock() - begun
        return files

    def locate(self, sample_id: int) -> tuple[Shard, int]:
        """The open shard that holds a sample, and its number there."""
        i, number = self._shards.locate(sample_id)
        return self._shards.open_shard(i), number

    def failure(self, i: int) -> Exception | None:
        """Why this shard could not be opened in this epoch, if it could not."""
        return self._failures.get(i)

    def _tried(self, act: Callable[[int], _T], i: int) -> _T | None:
        """What this gives for a shard. None where that fails, or failed before, and need be no error."""
        if i in self._failures:
            return None
        try:
            return act(i)
        except (FormatError, IntegrityError, OSError) as error:
            self._forgive(i, error)
            return None

    def _forgive(self, i: int, error: Exception, *, provided: bool = False) -> None:
        """Keep the error until the next epoch, if on_error= may pass over this shard's samples; raise any other.

        A shard that is damaged or missing may be passed over. That a network or a disk does not answer, that there is
        no room or too few descriptors, is no fault of the shard, and its samples are not lost.
        """
        outage = isinstance(error, RemoteError) or (provided and isinstance(error, DiskError))
        damage = isinstance(error, (FormatError, IntegrityError, OSError)) and not outage
        if not self._forgives or not damage or getattr(error, "errno", None) in _EXHAUSTED:
            raise error
        self._failures[i] = without_traceback(error)
        self.table[i]["table"] = 0

    def _open(self, i: int) -> Shard:
        return self._shards.open_shard(i)

    def _see(self, i: int) -> None:
        kept = self._kept[i]
        shard = self._open(i) if kept is None else kept[0]
        shard.check_size()
        if kept is None:
            head = shard.head(mapped=self._maps)
            data = shard.data if self._maps else head
            if self._maps:
                self.table[i]["base"] = data.ctypes.data
                self._told[i] = is_told(shard.path)
                residency.expect_random(data.ctypes.data, shard.size_bytes)
            self._kept[i] = kept = shard, head, data
            self._unmeasured.append(i)
            self._unopened -= 1
        self.table[i]["table"] = kept[1].ctypes.data

    def _open_files(self, rows: Rows, chosen: npt.NDArray[np.intp]) -> list[object]:
        """Open the files of these rows, and note their descriptors."""
        numbers, which = np.unique(rows["shard"][chosen], return_inverse=True)
        files = [self._tried(self._open_file, i) for i in numbers.tolist()]
        rows["file"][chosen] = np.array([-1 if file is None else file.descriptor for file in files], np.int32)[which]
        rows["status"][chosen[rows["file"][chosen] < 0]] = NOT_OPENED
        return files

    def _open_file(self, i: int) -> Any:
        return _opened(self._shards.open_shard(i))


def is_told(path: Path) -> bool:
    """Whether this process is told what of a file is in the page cache: if it owns it, or may write it."""
    with suppress(OSError):  # it may be gone meanwhile
        if path.stat().st_uid == os.geteuid():
            return True
    return os.access in os.supports_effective_ids and os.access(path, os.W_OK, effective_ids=True)


def _opened(shard: Shard) -> Any:
    """The shard's file. A batch of many shards needs many at once: the limit is raised then, as far as it may be."""
    try:
        return shard.open_file()
    except OSError as error:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if error.errno != errno.EMFILE or soft == hard:
            raise
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return shard.open_file()


def _import_packages(compressions: set[str]) -> None:
    """Import what unpacking needs, before a thread does so.

    A child that is forked while a thread imports a module inherits it half made, and waits for it for ever. This is
    also why this module imports `numpy.ma`, which `np.unique` would import in a thread.
    """
    for compression in compressions:
        import_package(compression)
        for name in ("blake3", "xxh64"):  # what is unpacked is held against its hash
            hasher(name)


def _in_turn(act: Callable[[int], object], numbers: Sequence[int]) -> None:
    for number in numbers:
        act(number)
