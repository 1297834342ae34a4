"""What does the index record about a snapshot (`mx8shards info`, `ls`), and do its files exist? Opens no shard."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mx8shards.errors import finite_seconds
from mx8shards.format.index import Index
from mx8shards.shards.links import RemoteLink, parse_any
from mx8shards.shards.snapshots import Snapshot, current_bytes, kept, load, snapshot_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """One snapshot as its index describes it, and the files that are missing or wrong on disk."""

    root: str  # the dataset's directory or URL
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


def info(link: str | os.PathLike[str], *, deadline_s: float = 300.0) -> Info:
    """Describe a snapshot of a directory or URL. Reads its index, and only the size of each shard file.

    After `deadline_s` seconds, a store that does not answer is an error.
    """
    deadline_s = finite_seconds("deadline_s", deadline_s)
    where = parse_any(link)
    if isinstance(where, RemoteLink):
        return _remote_info(where, deadline_s)
    snapshot = load(where)
    now = current_bytes(snapshot.root)
    is_current = now is not None and snapshot_id(now) == snapshot.id
    return _info(snapshot, str(snapshot.root), is_current, len(kept(snapshot.root)), partial(_file_size, snapshot.root))


def _remote_info(link: RemoteLink, deadline_s: float) -> Info:
    from mx8shards.maintain.remote_links import index_of, store_of  # only for URLs
    from mx8shards.remote.remote_snapshots import kept_in, require_current
    from mx8shards.remote.writer_start import list_objects

    with store_of(link, deadline_s) as store:
        found = index_of(store, link)
        sizes = {each.key: each.size_bytes for each in list_objects(store)}
        is_current = link.snapshot is None or require_current(store).id == found.id
    return _info(found.snapshot(Path(link.url)), link.url, is_current, len(kept_in(sizes)), sizes.get)


def _info(snapshot: Snapshot, root: str, is_current: bool, count: int, size_of: Callable[[str], int | None]) -> Info:
    """`count` is the number of kept snapshots; `size_of` gives the size of a file, None if missing, -1 if irregular."""
    index = snapshot.index
    missing, resized, irregular = _wrong_files(index, size_of)
    columns = (zip(kind.columns.names, kind.columns.encodings, strict=True) for kind in index.kinds)
    return Info(
        root=root,
        snapshot=snapshot.id,
        parent=index.parent,
        current=is_current,
        kept=count,
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


def _file_size(root: Path, name: str) -> int | None:
    try:
        found = os.lstat(root / name)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _wrong_files(
    index: Index, size_of: Callable[[str], int | None]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The shard files that are missing, those of the wrong size, and those that are not regular files."""
    missing, resized, irregular = [], [], []
    for i, size in enumerate(index.stored_bytes.tolist()):
        name = index.zip.basenames[i] or index.raw.basenames[i]
        found = size_of(name)
        if found is None:
            missing.append(name)
        elif found < 0:
            irregular.append(name)
        elif found != size:
            resized.append(name)
    return tuple(missing), tuple(resized), tuple(irregular)


def _hashes_of_all(index: Index) -> tuple[str, ...]:
    known = {}
    for name in {*index.raw.hashes, *index.zip.hashes}:
        nothing = np.zeros(index.shards, "S1")
        packed, raw = (files.hashes.get(name, nothing) != b"" for files in (index.zip, index.raw))
        known[name] = bool(np.where(index.compressed, packed, raw).all())
    return tuple(sorted(name for name, of_all in known.items() if of_all))


def list_shards(link: str | os.PathLike[str], *, deadline_s: float = 300.0) -> Iterator[ShardInfo]:
    """List the shards of a snapshot of a directory or URL, in order. `deadline_s`: as in `info`."""
    deadline_s = finite_seconds("deadline_s", deadline_s)
    where = parse_any(link)
    if isinstance(where, RemoteLink):
        from mx8shards.maintain.remote_links import index_of, store_of  # only for URLs

        with store_of(where, deadline_s) as store:
            index = index_of(store, where).parse()
    else:
        index = load(where).index
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
