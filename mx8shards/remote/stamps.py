"""Was a local file verified, and is it unchanged since then? Stamps of verified files.

A stamp records device, inode, size, mtime and ctime of a file, and the hash that it had. A file whose stamp differs was
changed, replaced or never verified: it is verified before it is used. Each stamp is a small file below
`.mx8shards/stamps`, which all jobs on a mirror share. One that is lost or torn costs a verification, nothing else, so
stamps are not synced to the disk.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.disk.files import read_json
from mx8shards.errors import ShardsError
from mx8shards.format.entries import FileInfo
from mx8shards.shards.local_files import best_hash
from mx8shards.shards.snapshots import STATE

_MOST_BYTES = 4096

Stamp = tuple[int, int, int, int, int]


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of a file with this stat."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def identity(info: FileInfo) -> str:
    """The contents that the index demands: size and strongest hash. Without a hash, the size alone."""
    algorithm = best_hash(info)
    return f"{info.size_bytes}:{algorithm}:{info.hashes[algorithm]}" if algorithm else f"{info.size_bytes}:unsealed"


def safe_name(basename: str) -> str:
    """A basename as the name of one file: basenames contain no percent sign."""
    return basename.replace("/", "%")


class Stamps:
    """The stamps of one mirror. Stamps that were read once are kept in memory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / STATE / "stamps"
        self._known: dict[str, tuple[Stamp, str]] = {}  # by basename

    def is_verified(self, info: FileInfo) -> bool:
        """Whether the file is there, was verified to be the one that the index demands, and is unchanged since."""
        try:
            found = (self._root / info.basename).lstat()
        except OSError:
            return False
        if not stat.S_ISREG(found.st_mode) or found.st_size != info.size_bytes:
            return False
        wanted = stamp_of(found), identity(info)
        if self._known.get(info.basename) == wanted:
            return True
        self._known[info.basename] = read = self._read(info.basename)
        return read == wanted

    def _read(self, basename: str) -> tuple[Stamp, str]:
        with suppress(OSError, ShardsError, ValueError):
            found = read_json(self._path(basename), _MOST_BYTES, file=list, content=str)
            device, inode, size, mtime, ctime = found["file"]
            return (device, inode, size, mtime, ctime), found["content"]
        return (0, 0, 0, 0, 0), ""

    def stamp(self, info: FileInfo, stamp: Stamp, private: Path) -> None:
        """Record that the file with this stamp was verified. The caller holds the claim that `private` belongs to.

        Without permission to write, the verdict holds in this process only.
        """
        self._known[info.basename] = stamp, identity(info)
        text = json.dumps({"file": stamp, "content": identity(info)})
        with suppress(ShardsError):
            publish.make_directories(self._directory, below=self._root)
            draft = private / "stamp"
            publish.write_quickly(draft, text.encode())
            operations.rename(draft, self._path(info.basename))

    def forget(self, basename: str) -> None:
        """Remove the stamp of a file that was removed."""
        self._known.pop(basename, None)
        operations.unlink(self._path(basename))

    def _path(self, basename: str) -> Path:
        return self._directory / f"{safe_name(basename)}.json"
