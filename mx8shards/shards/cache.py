"""Where is the raw form of a compressed shard?

Beside the data in `.mx8shards/cache/`, or, where that cannot be written, below `$XDG_CACHE_HOME/mx8shards/`. Each shard
is decompressed once for all processes: whoever holds the temporary file's lock writes it, the others wait and find it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mx8shards.disk import lock, steps
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DiskError
from mx8shards.format.compression import decompress
from mx8shards.format.entries import MdsEntry
from mx8shards.format.hashing import CONTENT_HASHES
from mx8shards.shards.snapshots import STATE


def default_directories(root: Path, snapshot: str) -> list[Path]:
    """Where raw forms may be kept, best first."""
    found = [root / STATE / "cache"]
    with contextlib.suppress(RuntimeError):  # a user without a home, as containers have them
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        found.append(home / "mx8shards" / snapshot.removeprefix("sha256:"))
    return found


def unpack(entry: MdsEntry, stored: ReadFile, directories: list[Path]) -> Path:
    """The path of the raw form of a shard whose hash was checked, decompressed by whichever process comes first."""
    name = cached_name(entry, stored)
    refused: DiskError | None = None
    for directory in directories:
        try:
            _make(directory)
            found = _decompress_to(directory / name, entry, stored)
            if os.access(found, os.R_OK):
                return found
            refused = DiskError("here already, but not readable", subject=str(found))
        except DiskError as error:
            refused = error
    raise DiskError(
        f"no directory can hold the decompressed shard: {refused}", subject=str(stored.path), hint="give cache_dir=…"
    ) from refused


def cached_file(name: str, directories: list[Path]) -> Path | None:
    """Where the raw form of this name is kept already."""
    return next((directory / name for directory in directories if os.access(directory / name, os.R_OK)), None)


def cached_name(entry: MdsEntry, stored: ReadFile) -> str:
    """Equal for equal contents: by their content hashes, or for lack of them by what the file system says of the file.

    Datasets may share a directory, so a hash counts only once it was checked: who unpacks a shard does that first.
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
        steps.make_directory(path)


def _decompress_to(target: Path, entry: MdsEntry, stored: ReadFile) -> Path:
    draft = target.with_suffix(".tmp")
    with steps.refusals("lock", draft), lock.only_writer(draft) as descriptor:
        try:
            if not target.is_file():
                steps.truncate(descriptor, 0, draft)
                for piece in _raw_pieces(entry, stored):
                    steps.write(descriptor, piece, draft)
                steps.sync(descriptor, draft)
                steps.rename(draft, target)
        finally:
            if draft.exists():  # unfinished, or made while another process finished it: it would only fill the disk
                steps.unlink(draft)
    return target


def _raw_pieces(entry: MdsEntry, stored: ReadFile) -> Iterator[bytes]:
    data = stored.read(0, entry.stored.size_bytes)
    yield from decompress(entry.kind.compression or "", data, entry.raw.size_bytes)
