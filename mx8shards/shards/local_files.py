"""Where are a shard's files, which symlinks may lead there, and do size and hash match the index?"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from mx8shards.disk.map import ReadFile
from mx8shards.errors import FormatError, IntegrityError
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.hashing import CONTENT_HASHES, HASHES, hasher
from mx8shards.shards.snapshots import Snapshot

_CHUNK_BYTES = 4 << 20
_HASHED_BYTES = 1 << 20  # chunk size for hashing: every thread of a loader may hash a file, with two chunks in memory


def shard_name(snapshot: Snapshot, info: FileInfo) -> str:
    """A shard's name in messages: the name of the dataset's directory and the basename."""
    return f"{snapshot.root.name}/{info.basename}"


def shard_path(snapshot: Snapshot, info: FileInfo) -> Path:
    """The path of a shard's file; FormatError if its path contains a symlink below the dataset's directory."""
    path = snapshot.root / info.basename
    if path.resolve() != snapshot.root.resolve() / info.basename:
        raise FormatError(
            subject=shard_name(snapshot, info), expected="a file in the dataset's directory", found="a symlink"
        )
    return path


def check_size(file: ReadFile, info: FileInfo, name: str) -> None:
    """FormatError unless the file has the size in the index."""
    if file.size_bytes != info.size_bytes:
        raise FormatError(subject=name, expected=f"{info.size_bytes} bytes (the index)", found=f"{file.size_bytes}")


def best_hash(info: FileInfo) -> str | None:
    """The algorithm to verify this file with: blake3, otherwise a content hash, otherwise any known one."""
    known = [name for name in info.hashes if name in HASHES]
    return min(known, key=lambda name: (name != "blake3", name not in CONTENT_HASHES, name), default=None)


def check_hash(file: ReadFile, info: FileInfo, name: str) -> None:
    """IntegrityError unless the file's bytes have the hash in the index, if it has one."""
    algorithm = best_hash(info)
    if algorithm is None:
        return
    state = hasher(algorithm)
    for piece in file_pieces(file, info.size_bytes, _HASHED_BYTES):
        state.update(piece)
    require_hash(state.hexdigest(), info, name)


def require_hash(found: str, info: FileInfo, name: str) -> None:
    """IntegrityError unless this is the file's strongest hash in the index."""
    algorithm = best_hash(info)
    if algorithm and found != info.hashes[algorithm]:
        raise IntegrityError(subject=name, place=algorithm, expected=info.hashes[algorithm], found=found)


def file_pieces(file: ReadFile, size_bytes: int, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """The file's bytes in order, in chunks."""
    for begin in range(0, size_bytes, chunk_bytes):
        yield file.read(begin, min(chunk_bytes, size_bytes - begin))


def existing_raw_file(snapshot: Snapshot, entry: Entry) -> Path | None:
    """The raw file of a compressed shard in the dataset's directory, if it exists with the right size."""
    path = snapshot.root / entry.raw.basename
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_size != entry.raw.size_bytes:
        return None
    return shard_path(snapshot, entry.raw)
