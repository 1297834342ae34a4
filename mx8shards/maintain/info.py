"""What does the index record about a snapshot (`mx8shards info`, `ls`), and do its files exist? Opens no shard."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mx8shards.format.index import Index
from mx8shards.shards.links import parse_link
from mx8shards.shards.snapshots import Snapshot, current_bytes, kept, load, snapshot_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """One snapshot as its index describes it, and the files that are missing or wrong on disk."""

    root: str  # the dataset's directory
    snapshot: str
    parent: str | None
    current: bool  # False: an earlier snapshot, which is kept
    kept: int  # number of snapshots in this directory
    sealed: bool
    columns: dict[str, str]  # encodings by name
    samples: int
    shards: int
    raw_bytes: int
    stored_bytes: int
    compression: tuple[str, ...]  # of any shard
    hashes: tuple[str, ...]  # present for every stored file
    sidecars: tuple[str, ...]  # their kinds
    missing: tuple[str, ...]  # shard files that do not exist …
    resized: tuple[str, ...]  # … or whose size differs from the index …
    irregular: tuple[str, ...]  # … or that are not regular files: symlinks, FIFOs, directories
    metadata: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One shard, as the index describes it."""

    basename: str  # of the stored file
    start: int  # its first sample_id
    samples: int
    raw_bytes: int
    stored_bytes: int
    compression: str | None
    hashes: dict[str, str]  # of the stored file

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)


def info(link: str | os.PathLike[str]) -> Info:
    """Describe a snapshot. Reads its index, and only the size of each shard file."""
    snapshot = load(parse_link(link))
    index = snapshot.index
    now = current_bytes(snapshot.root)
    missing, resized, irregular = _wrong_files(snapshot)
    columns = (zip(kind.columns.names, kind.columns.encodings, strict=True) for kind in index.kinds)
    return Info(
        root=str(snapshot.root),
        snapshot=snapshot.id,
        parent=index.parent,
        current=now is not None and snapshot_id(now) == snapshot.id,
        kept=len(kept(snapshot.root)),
        sealed=index.sealed,
        columns=dict(sorted(pair for pairs in columns for pair in pairs)),
        samples=int(index.samples.sum()),
        shards=index.shards,
        raw_bytes=int(index.raw.size_bytes.sum()),
        stored_bytes=int(index.stored_bytes.sum()),
        compression=tuple(sorted({kind.compression for kind in index.kinds if kind.compression})),
        hashes=_hashes_of_all(index),
        sidecars=tuple(sorted({sidecar.kind for sidecar in index.sidecars})),
        missing=missing,
        resized=resized,
        irregular=irregular,
        metadata=index.metadata,
    )


def _wrong_files(snapshot: Snapshot) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The shard files that are missing, those of the wrong size, and those that are not regular files."""
    index = snapshot.index
    missing, resized, irregular = [], [], []
    for i, size in enumerate(index.stored_bytes.tolist()):
        name = index.zip.basenames[i] or index.raw.basenames[i]
        try:
            found = os.lstat(snapshot.root / name)
        except OSError:
            missing.append(name)
            continue
        if not stat.S_ISREG(found.st_mode):
            irregular.append(name)
        elif found.st_size != size:
            resized.append(name)
    return tuple(missing), tuple(resized), tuple(irregular)


def _hashes_of_all(index: Index) -> tuple[str, ...]:
    known = {}
    for name in {*index.raw.hashes, *index.zip.hashes}:
        nothing = np.zeros(index.shards, "S1")
        packed, raw = (files.hashes.get(name, nothing) != b"" for files in (index.zip, index.raw))
        known[name] = bool(np.where(index.compressed, packed, raw).all())
    return tuple(sorted(name for name, of_all in known.items() if of_all))


def list_shards(link: str | os.PathLike[str]) -> Iterator[ShardInfo]:
    """List the shards of a snapshot, in order."""
    index = load(parse_link(link)).index
    for i in range(index.shards):
        entry = index.entry(i)
        yield ShardInfo(
            basename=entry.stored.basename,
            start=int(index.starts[i]),
            samples=entry.samples,
            raw_bytes=entry.raw.size_bytes,
            stored_bytes=entry.stored.size_bytes,
            compression=entry.kind.compression,
            hashes=dict(entry.stored.hashes),
        )
