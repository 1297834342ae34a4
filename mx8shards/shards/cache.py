"""The cache of decompressed shards: where is the raw copy of a compressed shard, and when is it evicted?

It is in the dataset's `.mx8shards/cache/` or, if that is not writable, below `$XDG_CACHE_HOME/mx8shards/`. Each shard
is decompressed once for all processes: the process that holds the lock of the temporary file writes it, the others
wait.

The cache uses at most half of the disk space that would be free without it. Before a shard is unpacked, the least
recently opened copies are evicted. A process that has mapped a copy keeps it; if it needs the file again, it unpacks it
again. CACHEDIR.TAG makes backup programs skip the directory; its lock is held during eviction.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from mx8shards.disk import lock, operations
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DiskError, FormatError
from mx8shards.format.compression import decompress
from mx8shards.format.entries import MdsEntry
from mx8shards.format.hashing import CONTENT_HASHES
from mx8shards.shards.snapshots import STATE

_COPY = re.compile(r"[0-9a-f]{40}\.(mds|tmp)")
_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This file marks a cache of mx8shards: decompressed shards, which are made again when they are needed.
# See https://bford.info/cachedir/
"""


def default_directories(root: Path) -> list[Path]:
    """The possible cache directories, in order of preference. Symlinks are excluded: they may lead elsewhere."""
    beside = root / STATE / "cache"
    found = [] if beside.is_symlink() or beside.parent.is_symlink() else [beside]
    with contextlib.suppress(RuntimeError):  # a user without a home directory, as in some containers
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        found.append(home / "mx8shards" / "shards")
    return found


def copies_in(directory: Path) -> list[Path]:
    """The decompressed shards in a cache directory, and their temporary files, sorted."""
    if directory.is_symlink() or not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if _COPY.fullmatch(path.name))


def unpack(entry: MdsEntry, stored: ReadFile, directories: list[Path]) -> Path:
    """Decompress a shard, whose hash was checked, unless another process did; the path of the raw file."""
    name = cached_name(entry, stored)
    refused: DiskError | None = None
    for directory in directories:
        try:
            _make(directory)
            with contextlib.suppress(DiskError):  # another user's files cannot be evicted; unpacking may still succeed
                _make_room(directory, entry.raw.size_bytes)
            found = _decompress_to(directory / name, entry, stored)
            if os.access(found, os.R_OK):
                return found
            refused = DiskError("the decompressed shard exists but is not readable", subject=str(found))
        except DiskError as error:
            refused = error
    raise DiskError(
        f"no directory can hold the decompressed shard: {refused}", subject=str(stored.path), hint="give cache_dir=…"
    ) from refused


def find_cached(name: str, directories: list[Path], size_bytes: int | None = None) -> Path | None:
    """The path of a raw file that is in a cache already, of this size if one is given; None if there is none.

    A path that is not a regular file is returned too, so that opening it raises an error that names it.
    """
    for path in (directory / name for directory in directories):
        with contextlib.suppress(OSError):
            found = path.stat()
            fits = size_bytes in (None, found.st_size) or not stat.S_ISREG(found.st_mode)
            if fits and os.access(path, os.R_OK):
                return path
    return None


def cached_file(name: str, directories: list[Path], size_bytes: int | None = None) -> Path | None:
    """The path of a raw file that is in a cache already; None if there is none. Marks it as recently used."""
    found = find_cached(name, directories, size_bytes)
    if found is not None:
        with contextlib.suppress(OSError):  # it belongs to another user, or was just evicted
            os.utime(found, ns=(time.time_ns(), found.stat().st_mtime_ns))
    return found


def cached_name(entry: MdsEntry, stored: ReadFile) -> str:
    """The name of a raw copy, from the shard's content hashes or, without any, the file's device, inode and mtime.

    Datasets may share a cache directory, so callers must check a shard's hash before they unpack it.
    """
    stored_hashes = {name: value for name, value in entry.stored.hashes.items() if name in CONTENT_HASHES}
    facts: list[object] = [entry.kind.compression, entry.stored.size_bytes, entry.raw.size_bytes, stored_hashes]
    if not stored_hashes:
        stat = os.fstat(stored.descriptor)
        facts += [stat.st_dev, stat.st_ino, stat.st_mtime_ns]
    return f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]}.mds"


def _make(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not os.access(path, os.F_OK)]
    for path in reversed(missing):
        operations.make_directory(path)


def _make_room(directory: Path, size_bytes: int) -> None:
    """Evict the least recently used copies until the cache plus `size_bytes` fits into half of the free space."""
    tag = directory / "CACHEDIR.TAG"
    with operations.disk_errors("make room in", directory), lock.only_writer(tag) as descriptor:
        if not os.fstat(descriptor).st_size:
            operations.write(descriptor, _TAG, tag)
        stats = {path: path.stat() for path in copies_in(directory)}
        total = size_bytes + sum(stat.st_size for stat in stats.values())
        disk = os.statvfs(directory)
        limit = (disk.f_bavail * disk.f_frsize + total - size_bytes) // 2
        for path in sorted(stats, key=lambda path: max(stats[path].st_atime_ns, stats[path].st_mtime_ns)):
            if total <= limit:
                break
            if path.suffix != ".tmp":  # another process may be writing it
                operations.unlink(path)
                total -= stats[path].st_size


def _decompress_to(target: Path, entry: MdsEntry, stored: ReadFile) -> Path:
    draft = target.with_suffix(".tmp")
    with operations.disk_errors("lock", draft), lock.only_writer(draft) as descriptor:
        try:
            if target.is_file() and target.stat().st_size != entry.raw.size_bytes:
                operations.unlink(target)  # another program has truncated or extended it
            if not target.is_file():
                operations.truncate(descriptor, 0, draft)
                for piece in raw_pieces(entry, stored):
                    operations.write(descriptor, piece, draft)
                operations.sync(descriptor, draft)
                operations.rename(draft, target)
        finally:
            if draft.exists():  # unfinished, or not needed because another process had finished the target
                operations.unlink(draft)
    return target


def raw_pieces(entry: MdsEntry, stored: ReadFile) -> Iterator[bytes]:
    """The raw bytes of a shard in pieces. The stored file is read in pieces too.

    All threads of a loader may unpack at once, so each must not hold a whole file in memory.
    """
    data = _StoredBytes(stored, entry.stored.size_bytes)
    yield from decompress(entry.kind.compression or "", data, entry.raw.size_bytes)


class _StoredBytes:
    """The bytes of a file; each slice is read on access."""

    def __init__(self, file: ReadFile, size_bytes: int) -> None:
        self._file = file
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def __getitem__(self, part: slice, /) -> bytes:
        begin, end, _ = part.indices(self._size_bytes)
        data = self._file.read(begin, max(0, end - begin))
        if len(data) < end - begin:
            raise FormatError(
                place=f"offset {begin}", expected=f"{self._size_bytes} bytes (the index)", found=f"{begin + len(data)}"
            )
        return data
