"""Which shard holds a sample, and may its bytes be believed? The one door to shards: nobody else opens their files."""

from __future__ import annotations

import resource
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.disk.map import Bytes, ReadFile
from mx8shards.errors import FormatError, IntegrityError
from mx8shards.format.columns import Columns
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.hashing import CONTENT_HASHES, HASHES, hasher
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.shards import cache
from mx8shards.shards.shard import OpenFiles, Shard, open_shard_file
from mx8shards.shards.sidecars import open_sidecar
from mx8shards.shards.snapshots import Snapshot

Verify = Literal["structure", "shard"]
VERIFY: tuple[Verify, ...] = ("structure", "shard")

_CHUNK_BYTES = 4 << 20
_HASHED_BYTES = 1 << 20  # each thread of a loader may hash a file, with two chunks in memory


class Opened(NamedTuple):
    """A snapshot, how its shards are checked, and where compressed ones are unpacked to."""

    snapshot: Snapshot
    verify: Verify
    cache_dir: Path | None


class Shards:
    """The shards of one or several snapshots as one row of samples, each opened and checked when first needed."""

    def __init__(self, snapshots: Sequence[Snapshot], *, verify: Verify, cache_dir: Path | None) -> None:
        self._open_all(tuple(Opened(snapshot, verify, cache_dir) for snapshot in snapshots))

    def _open_all(self, opened: tuple[Opened, ...]) -> None:
        self._opened = opened
        self.snapshots = tuple(each.snapshot for each in opened)
        counts = np.concatenate([snapshot.index.samples for snapshot in self.snapshots])
        self.starts: npt.NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self._begin_of = np.cumsum([0, *(snapshot.index.shards for snapshot in self.snapshots)])
        self._starts = self.starts.data  # three times quicker than the array for one element at a time
        self._open: list[Shard | None] = [None] * self.count
        self._sidecars: dict[str, Bytes | None] = {}
        self._files = OpenFiles(_most_files())

    @classmethod
    def joined(cls, parts: Sequence[Shards]) -> Shards:
        """The shards of several, one after the other. Those of each are checked and unpacked as they were before."""
        return cls._of(tuple(opened for part in parts for opened in part._opened))

    @classmethod
    def _of(cls, opened: tuple[Opened, ...]) -> Shards:
        found = cls.__new__(cls)
        found._open_all(opened)
        return found

    @property
    def count(self) -> int:
        """How many shards there are."""
        return len(self.starts) - 1

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return int(self.starts[-1])

    @property
    def table_room(self) -> int:
        """How many bytes of offset tables may still be kept in memory."""
        return self._files.table_room

    def columns(self, names: Sequence[str] | None) -> Columns:
        """The columns that the shards of all snapshots share."""
        found = [snapshot.index.columns(names) for snapshot in self.snapshots if snapshot.index.shards]
        for other, snapshot in zip(found[1:], self.snapshots[1:], strict=False):
            if other != found[0]:
                raise FormatError(
                    subject=str(snapshot.root), expected=f"the columns {found[0].names}", found=f"{other.names}"
                )
        return found[0] if found else Columns((), (), ())

    def place(self, i: int) -> tuple[Snapshot, int]:
        """The snapshot that shard `i` belongs to, and its number there."""
        which = self._part_of(i)
        return self.snapshots[which], i - int(self._begin_of[which])

    def _part_of(self, i: int) -> int:
        return int(np.searchsorted(self._begin_of, i, side="right")) - 1

    def locate(self, sample_id: int) -> tuple[int, int]:
        """The shard that holds a sample, and the sample's row in it."""
        i = bisect_right(self._starts, sample_id) - 1
        return i, sample_id - self._starts[i]

    def open_shard(self, i: int) -> Shard:
        """Shard `i`, checked. It is opened once and stays open."""
        return self._open[i] or self._open_new(i)

    def open_sidecar(self, snapshot: Snapshot, sidecar: Sidecar) -> Bytes | None:
        """The checked bytes of a side-car, or None where it is missing. It is checked once and stays mapped."""
        if sidecar.blake3 not in self._sidecars:
            try:
                self._sidecars[sidecar.blake3] = open_sidecar(snapshot, sidecar)
            except (FormatError, IntegrityError) as error:
                error.hint = error.hint or "a side-car is optional: without this file, the shards are read"
                raise
        return self._sidecars[sidecar.blake3]

    def _open_new(self, i: int) -> Shard:
        snapshot, number = self.place(i)
        try:
            shard = self._open_checked(self._opened[self._part_of(i)], snapshot.index.entry(number))
        finally:
            snapshot.require_kept()
        self._open[i] = shard
        return shard

    def _open_checked(self, opened: Opened, entry: Entry) -> Shard:
        snapshot, verify, cache_dir = opened
        name = shard_name(snapshot, entry.stored)
        if entry.zip is None:
            shard = Shard(name, shard_path(snapshot, entry.stored), entry, self._files)
        else:
            provide = partial(raw_path, snapshot, entry, cache_dir, check=verify == "shard")
            shard = Shard(name, provide(), entry, self._files, provide)
        if verify == "shard":
            check_hash(shard.open_file(), entry.raw, name)
        return shard

    def __reduce__(self) -> tuple[object, ...]:
        return Shards._of, (self._opened,)  # small, however many shards there are


def raw_path(snapshot: Snapshot, entry: Entry, cache_dir: Path | None, *, check: bool) -> Path:
    """The raw form of a compressed shard: beside it, as Streaming leaves it, or in a cache, where it is unpacked now.

    The bytes of the compressed file are held against its hash before they are unpacked, and in any case with `check`.
    """
    beside = raw_beside(snapshot, entry)
    if beside is not None:
        return beside
    name = shard_name(snapshot, entry.stored)
    stored = open_shard_file(shard_path(snapshot, entry.stored), name)
    check_size(stored, entry.stored, name)
    directories = [cache_dir] if cache_dir else cache.default_directories(snapshot.root)
    found = cache.cached_file(cache.cached_name(entry, stored), directories)
    if found is None or check:
        check_hash(stored, entry.stored, name)
    try:
        return found or cache.unpack(entry, stored, directories)
    except FormatError as error:
        raise error.at(subject=name) from error.__cause__


def raw_beside(snapshot: Snapshot, entry: Entry) -> Path | None:
    """The raw file of a compressed shard in the dataset's directory, if it is there and of the right size."""
    path = snapshot.root / entry.raw.basename
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_size != entry.raw.size_bytes:
        return None
    return shard_path(snapshot, entry.raw)


def _most_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(512, soft // 4)) if soft > 0 else 512


def shard_name(snapshot: Snapshot, info: FileInfo) -> str:
    """How messages call a shard: the dataset's directory and the basename."""
    return f"{snapshot.root.name}/{info.basename}"


def shard_path(snapshot: Snapshot, info: FileInfo) -> Path:
    """Where a shard's file lies; FormatError if a symlink leads out of the dataset's directory."""
    path = snapshot.root / info.basename
    if path.resolve() != snapshot.root.resolve() / info.basename:
        raise FormatError(
            subject=shard_name(snapshot, info), expected="a file in the dataset's directory", found="a symlink"
        )
    return path


def check_size(file: ReadFile, info: FileInfo, name: str) -> None:
    """FormatError unless the file is as long as the index says."""
    if file.size_bytes != info.size_bytes:
        raise FormatError(subject=name, expected=f"{info.size_bytes} bytes (the index)", found=f"{file.size_bytes}")


def best_hash(info: FileInfo) -> str | None:
    """The hash to check this file by: blake3, else a content hash, else any known one."""
    known = [name for name in info.hashes if name in HASHES]
    return min(known, key=lambda name: (name != "blake3", name not in CONTENT_HASHES, name), default=None)


def check_hash(file: ReadFile, info: FileInfo, name: str) -> None:
    """IntegrityError unless the file's bytes have the hash that the index promises (if one)."""
    algorithm = best_hash(info)
    if algorithm is None:
        return
    state = hasher(algorithm)
    for piece in file_pieces(file, info.size_bytes, _HASHED_BYTES):
        state.update(piece)
    if state.hexdigest() != info.hashes[algorithm]:
        raise IntegrityError(subject=name, place=algorithm, expected=info.hashes[algorithm], found=state.hexdigest())


def file_pieces(file: ReadFile, size_bytes: int, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """The file's bytes in order, in chunks."""
    for begin in range(0, size_bytes, chunk_bytes):
        yield file.read(begin, min(chunk_bytes, size_bytes - begin))
