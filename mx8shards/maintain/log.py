"""Which snapshots does a dataset have, in which order (`mx8shards log`)?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mx8shards.disk.operations import disk_errors
from mx8shards.format.index import Index
from mx8shards.shards.links import Link, parse_link
from mx8shards.shards.snapshots import INDEX, Snapshot, current_bytes, kept, kept_path, load, snapshot_id

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One snapshot of a dataset."""

    snapshot: str
    parent: str | None  # the previous snapshot, which may have been removed
    current: bool
    published: datetime  # modification time of its index file, which copying a dataset may change
    samples: int
    shards: int
    stored_bytes: int
    sealed: bool
    metadata: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self) | {"published": self.published.isoformat(timespec="seconds")}


def log(link: str | os.PathLike[str]) -> list[LogEntry]:
    """List the snapshots of a dataset, newest first: the one of the link and its ancestors, then all others by time.

    Args:
        link: The dataset's directory, or `path@sha256:9f2c…` to begin with that snapshot.
    """
    return [entry for entry, _ in history(parse_link(link), lambda index: None)]


def history(where: Link, also: Callable[[Index], _T]) -> list[tuple[LogEntry, _T]]:
    """`log`'s entries, each with the result of `also` for its index. Each index, which may be large, is read once."""
    known = kept(where.root)
    if where.snapshot is None:
        asked = current = _current_id(where.root, known)
    else:  # also if index.json is damaged, because the others can still be listed
        data = current_bytes(where.root)
        asked, current = load(where).id, "" if data is None else snapshot_id(data)
    found = {}
    for name in {asked, *known}:
        snapshot = load(Link(where.root, name))
        found[name] = _entry(snapshot, current), also(snapshot.index)
    return _in_order(found, asked)


def _current_id(root: Path, known: Collection[str]) -> str:
    data = current_bytes(root)
    if data is not None and snapshot_id(data) in known:
        return snapshot_id(data)
    return load(Link(root)).id  # another program wrote this index; an unreadable one raises here


def _in_order(found: dict[str, tuple[LogEntry, _T]], first: str) -> list[tuple[LogEntry, _T]]:
    chain = []
    name: str | None = first
    while name in found:
        chain.append(found.pop(name))
        name = chain[-1][0].parent
    return chain + sorted(found.values(), key=lambda pair: (pair[0].published, pair[0].snapshot), reverse=True)


def _entry(snapshot: Snapshot, current: str) -> LogEntry:
    index = snapshot.index
    return LogEntry(
        snapshot=snapshot.id,
        parent=index.parent,
        current=snapshot.id == current,
        published=_published(snapshot.root, snapshot.id),
        samples=int(index.samples.sum()),
        shards=index.shards,
        stored_bytes=int(index.stored_bytes.sum()),
        sealed=index.sealed,
        metadata=index.metadata,
    )


def _published(root: Path, name: str) -> datetime:
    path = kept_path(root, name)
    with disk_errors("stat", path):
        stat = (path if path.exists() else root / INDEX).stat()
    return datetime.fromtimestamp(stat.st_mtime, UTC)
