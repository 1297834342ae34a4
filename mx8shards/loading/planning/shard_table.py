"""How do kernels read the shards of a dataset? A table of maps, files and offsets, and mmap or pread for each row.

Shards are opened when first needed, and their sizes are checked in each epoch.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.ma
import numpy.typing as npt

from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError, without_traceback
from mx8shards.format.columns import MAX_BYTES, Columns
from mx8shards.format.compression import import_package
from mx8shards.format.hashing import hasher
from mx8shards.format.shard_bytes import table_bytes
from mx8shards.kernels import gather, memory, residency
from mx8shards.kernels.records import FAULT, MAPPED, NOT_OPENED, READ, ROW, SHARD, UNKNOWN
from mx8shards.loading.planning.filesystems import is_remote
from mx8shards.loading.planning.mds_spans import find_samples
from mx8shards.loading.planning.partial_shards import PartialShards
from mx8shards.loading.reporting.times import clock
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.shard import Shard

IO = Literal["auto", "mmap", "pread"]
IOS: tuple[IO, ...] = ("auto", "mmap", "pread")

Provide = Callable[[Sequence[int]], dict[int, Exception]]  # returns the error of each shard that cannot be made local
ForEach = Callable[[Callable[[int], object], Sequence[int]], None]  # calls a function for all numbers, in parallel
Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[Any]  # of records, ROW
Ids = npt.NDArray[np.int64]
_T = TypeVar("_T")

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)  # no such regular file


def is_damage(error: BaseException) -> bool:
    """Whether a shard is damaged or missing, so that on_error= may skip its samples.

    A network or disk that does not answer, a full disk or too few descriptors are not errors of the shard: its samples
    are not lost.
    """
    is_missing = getattr(error, "errno", None) in _MISSING or (
        isinstance(error, DatasetNotFoundError) and error.errno is None
    )
    return is_missing or isinstance(error, (FormatError, IntegrityError))


class ShardTable:
    """The shards of one dataset as kernels read them. It is thread-safe.

    io="auto" copies rows that are in the page cache from the map, and reads other rows with pread; it never maps files
    on network file systems. "mmap" maps all shards, and "pread" none. All three give equal bytes.

    A shard that cannot be opened is an error. With `tolerates_damage`, the rows of a damaged or missing shard get
    the status NOT_OPENED instead, until the next epoch.
    """

    def __init__(
        self,
        shards: Shards,
        io: IO,
        each: ForEach | None = None,
        *,
        tolerates_damage: bool = False,
        partial_shards: PartialShards | None = None,
    ) -> None:
        self._shards = shards
        self.parts = partial_shards or PartialShards(shards)
        self._tolerates_damage = tolerates_damage
        self._failures: dict[int, Exception] = {}
        self._each = each or _in_turn
        remote = any(is_remote(snapshot.root) for snapshot in shards.snapshots)
        self._maps = io != "pread" and residency.can_map() and (io == "mmap" or not remote)
        self._cold = FAULT if io == "mmap" else READ
        self._lock = Lock()
        # This reference keeps the addresses in `records` valid. It may be the only one to a shard: another loader may
        # have opened the same shard at the same time, and `Shards` keeps one of the two.
        self._opened: list[tuple[Shard, Bytes, Bytes] | None] = [None] * shards.count
        self._unmeasured: list[int] = []  # open shards whose longest sample is not known yet
        self._unopened = shards.count
        self._kept: set[int] = set()  # open shards that are never released
        self.files_s = 0.0  # time spent opening files and querying the page cache
        self._marks = np.full(shards.count, -1, np.int64)
        self._mark = 0
        self._out = np.zeros(shards.count, np.int64)
        self._count = np.zeros(1, np.int64)
        self._counts = np.zeros(4, np.int64)
        self._probe_buffer = np.zeros(residency.PROBE_BYTES, np.uint8)
        indices = [snapshot.index for snapshot in shards.snapshots]
        first_kinds = np.cumsum([0, *(len(index.kinds) for index in indices)])
        _import_packages({kind.compression for index in indices for kind in index.kinds if kind.compression})
        self.kinds: tuple[Columns, ...] = tuple(kind.columns for index in indices for kind in index.kinds)
        self.records = np.zeros(shards.count, SHARD)
        self.records["size"] = np.concatenate([index.raw.size_bytes for index in indices])
        self.records["kind"] = np.concatenate([i.kind + first for i, first in zip(indices, first_kinds, strict=False)])
        self._longest = self.records["size"].copy()
        windows = np.cumsum(-(-self.records["size"] // residency.WINDOW_BYTES))
        self.records["window"][1:] = windows[:-1]
        self._verdicts = np.zeros(windows[-1] if len(windows) else 0, np.uint8)
        self._populated = np.zeros(len(self._verdicts), bool)
        self._mincore_reliable = np.zeros(shards.count, bool)  # shards for which mincore gives true answers

    @property
    def held_bytes(self) -> int:
        """An upper bound of the memory of this table: offset tables, and some bytes per shard."""
        tables = 4 * (self._shards.samples + 2 * self._shards.count)
        room = min(tables, self._shards.table_room) if self._maps else tables
        return room + self.records.nbytes + 2 * self._verdicts.nbytes + 25 * self._shards.count

    def begin_epoch(self) -> None:
        """Forget failures and cache verdicts: each shard is checked again when it is first needed in this epoch."""
        with self._lock:
            self._mark += 1
            self._failures.clear()
            self.parts.begin_epoch()
            self._verdicts.fill(UNKNOWN)

    def find(self, sample_ids: Ids, provide: Provide | None = None) -> Rows:
        """A row for each sample, with its span. Shards that are needed for the first time are opened and checked.

        `provide` waits until shards are local, and returns the errors of those that cannot be. With it, the pool's
        threads open shards in parallel: a thread of the pool must not pass it, as it would wait for itself.
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
                    self._attempt(self._look_at_shard, i)
            except BaseException:
                self._marks[unseen] = -1  # else kernels would read records that are not filled in
                raise
            if unseen:
                self.files_s += clock() - begun
            find_samples(self.records, rows)
        return rows

    def _open_missing(self, rows: Rows, provide: Provide | None) -> None:
        """Open the shards of these rows that are not open, without a lock: unpacking or fetching one takes long."""
        shards = np.unique(rows["shard"]).tolist()
        new = [i for i in shards if self._opened[i] is None and i not in self._failures]
        self._make_local(new, provide)
        new = [i for i in new if not self.parts.is_part(i)]
        begun = clock()
        each = _in_turn if provide is None or len(new) < 2 else self._each
        each(partial(self._attempt, self._open), new)
        self.files_s += clock() - begun

    def _make_local(self, numbers: Sequence[int], provide: Provide | None) -> None:
        for i, error in (self._provide_in_turn if provide is None else provide)(numbers).items():
            self.record_failure(i, error)

    def are_here(self, sample_ids: Ids) -> bool:
        """Whether the shards of these samples are open, or can be opened without being provided."""
        rows = np.zeros(len(sample_ids), ROW)
        gather.locate(self._shards.starts, sample_ids, rows)
        shards = np.unique(rows["shard"]).tolist()
        opened = all(self._opened[i] is not None or self._shards.awaits(i) is None for i in shards)
        return opened and not any(map(self.parts.is_part, shards))

    def _provide_in_turn(self, numbers: Sequence[int]) -> dict[int, Exception]:
        """Make these shards local in this thread; the errors of those that cannot be, by shard number."""
        errors: dict[int, Exception] = {}
        for i in numbers:
            try:
                self.parts.provide(i)
            except Exception as error:  # noqa: BLE001 - the caller raises or records it
                errors[i] = error
        return errors

    def keep(self, sample_ids: Ids) -> None:
        """Never release the shards of these samples, which rows use out of the order's turn."""
        self._kept.update((np.searchsorted(self._shards.starts, sample_ids, side="right") - 1).tolist())

    def release(self, numbers: Iterable[int]) -> None:
        """Close these shards, and end their mappings. No row in flight may be in them."""
        with self._lock:
            for i in numbers:
                if self._opened[i] is not None and i not in self._kept:
                    self._opened[i] = None
                    self._unopened += 1
                    self._marks[i] = -1
                    self._verdicts[self._windows_of(i)] = UNKNOWN
                    self._populated[self._windows_of(i)] = False
                    self._shards.release(i)

    def _windows_of(self, i: int) -> slice:
        first = int(self.records["window"][i])
        return slice(first, first - int(-self.records["size"][i] // residency.WINDOW_BYTES))

    def longest(self) -> int:
        """An upper bound of the size of any sample: exact in open shards, else the size of the shard."""
        with self._lock:
            while self._unmeasured:
                i = self._unmeasured.pop()
                opened = self._opened[i]
                if opened is not None and opened[0].samples:
                    offsets = opened[1][4 : table_bytes(opened[0].samples)].view("<u4")
                    self._longest[i] = np.diff(offsets).max()
            return int(self._longest.max(initial=0))

    def prepare(self, rows: Rows, most: int = MAX_BYTES, provide: Provide | None = None) -> list[object]:
        """Choose mmap or pread for each row, and start reading the first `most` bytes of cold rows.

        The caller must hold the returned files until the rows are filled. `provide` is as in `find`: a copy in a cache
        may have been evicted after its file was closed. No lock is held while files are opened.
        """
        files: list[object] = []
        counts = self._choose_ways(rows)
        if counts[UNKNOWN]:
            files = self._open_files(rows, np.flatnonzero(rows["way"] == UNKNOWN), provide)
            with self._lock:
                residency.judge_windows(
                    self.records, self._mincore_reliable, rows, self._probe_buffer, self._populated, self._verdicts
                )
            counts = self._choose_ways(rows)
        if not counts[READ] + counts[FAULT]:
            return []
        files = self._open_files(rows, np.flatnonzero(rows["way"] != MAPPED), provide)
        if memory.KNOWS_CACHE:
            residency.advise_samples(rows, most)
        return files

    def _choose_ways(self, rows: Rows) -> Any:
        """Choose how each row is read; the number of rows for each way."""
        with self._lock:
            residency.choose_ways(self.records, rows, self._verdicts, self._cold, self._counts)
            return self._counts.copy()

    def read_whole(self, numbers: Sequence[int]) -> None:
        """Read these shards, of which parts were read, whole until the epoch ends."""
        self.parts.read_whole(numbers)
        with self._lock:
            self._marks[list(numbers)] = -1

    def place_of(self, sample_id: int) -> tuple[str, int]:
        """The name of the shard that holds a sample, and its number there."""
        i, number = self._shards.locate(sample_id)
        return self._shards.name(i), number

    def locate(self, sample_id: int) -> tuple[Shard, int]:
        """The open shard that holds a sample, and its number there."""
        i, number = self._shards.locate(sample_id)
        return self._shards.open_shard(i), number

    def failure(self, i: int) -> Exception | None:
        """The error of this shard, if it could not be opened in this epoch."""
        return self._failures.get(i)

    def _attempt(self, act: Callable[[int], _T], i: int) -> _T | None:
        """The result for shard `i`; None if it fails now or failed before, and that error is tolerated."""
        if i in self._failures:
            return None
        try:
            return act(i)
        except (FormatError, IntegrityError, OSError) as error:
            self.record_failure(i, error)
            return None

    def record_failure(self, i: int, error: Exception) -> None:
        """Record the error until the next epoch, if on_error= may skip this shard's samples; else raise it.

        A dataset that is gone as a whole is no error of its shards.
        """
        if not self._tolerates_damage or not is_damage(error) or not self._shards.snapshot_of(i)[0].is_there:
            raise error
        self._failures[i] = without_traceback(error)
        self.records[i]["table"] = 0

    def _open(self, i: int) -> Shard:
        return self._shards.open_shard(i)

    def _look_at_shard(self, i: int) -> None:
        if self.parts.is_part(i):
            self.records[i]["base"] = self.parts.address(i)
            self.records[i]["table"] = self.parts.head(i).ctypes.data
            self._verdicts[self._windows_of(i)] = MAPPED  # blocks are here before kernels read them
            return
        opened = self._opened[i]
        shard = self._open(i) if opened is None else opened[0]
        shard.check_size()
        if opened is None:
            head = shard.head(mapped=self._maps)
            data = shard.data if self._maps else head
            if self._maps:
                self._mincore_reliable[i] = mincore_is_reliable(shard.path)
                residency.expect_random(data.ctypes.data, shard.size_bytes)
            self._opened[i] = opened = shard, head, data
            self._unmeasured.append(i)
            self._unopened -= 1
        self.records[i]["table"] = opened[1].ctypes.data
        if self._maps:
            self.records[i]["base"] = opened[2].ctypes.data
        else:  # `base` may be that of parts, which threads of an earlier run may still read
            self._verdicts[self._windows_of(i)] = READ

    def _open_files(self, rows: Rows, chosen: npt.NDArray[np.intp], provide: Provide | None) -> list[object]:
        """Open the files of these rows, and write their descriptors into the rows."""
        numbers, which = np.unique(rows["shard"][chosen], return_inverse=True)
        evicted = [i for i in numbers.tolist() if i not in self._failures and self._shards.awaits(i) is not None]
        if evicted:
            self._make_local(evicted, provide)  # `provide` counts the time that this takes
        begun = clock()
        files = [self._attempt(self._open_file, i) for i in numbers.tolist()]
        rows["file"][chosen] = np.array([-1 if file is None else file.descriptor for file in files], np.int32)[which]
        rows["status"][chosen[rows["file"][chosen] < 0]] = NOT_OPENED
        self.files_s += clock() - begun
        return files

    def _open_file(self, i: int) -> Any:
        return _opened(self._shards.open_shard(i))


def mincore_is_reliable(path: Path) -> bool:
    """Whether mincore tells this process which pages of a file are cached: only if it owns or may write the file."""
    with suppress(OSError):  # the file may have been removed
        if path.stat().st_uid == os.geteuid():
            return True
    return os.access in os.supports_effective_ids and os.access(path, os.W_OK, effective_ids=True)


def _opened(shard: Shard) -> Any:
    """The shard's open file. On EMFILE, raise the soft limit to the hard limit and retry."""
    try:
        return shard.open_file()
    except OSError as error:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if error.errno != errno.EMFILE or soft == hard:
            raise
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return shard.open_file()


def _import_packages(compressions: set[str]) -> None:
    """Import the packages for unpacking in this thread, before a pool thread does.

    A child forked while a thread imports a module inherits a held import lock, and can never import the module. For
    the same reason, this module imports `numpy.ma`, which `np.unique` would import in a thread.
    """
    for compression in compressions:
        import_package(compression)
        for name in ("blake3", "xxh64"):  # unpacked bytes are checked against their hash
            hasher(name)


def _in_turn(act: Callable[[int], object], numbers: Sequence[int]) -> None:
    for number in numbers:
        act(number)
