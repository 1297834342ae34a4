"""Which snapshots has a dataset, and which came after which?"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mx8shards.disk.steps import refusals
from mx8shards.shards.links import Link, parse_link
from mx8shards.shards.snapshots import INDEX, Snapshot, kept, kept_path, load


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One snapshot of a dataset."""

    snapshot: str
    parent: str | None  # the one that it was published on top of; it need not be there any more
    current: bool
    published: datetime  # when its index file was made here: a copy of a dataset has times of its own
    samples: int
    shards: int
    stored_bytes: int
    sealed: bool
    metadata: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self) | {"published": self.published.isoformat(timespec="seconds")}


def log(link: str | os.PathLike[str]) -> list[LogEntry]:
    """The snapshots of a dataset, newest first: the one the link names and its ancestors, then all others by time."""
    where = parse_link(link)
    asked = load(where)
    current = asked.id if where.snapshot is None else load(Link(where.root)).id
    entries = {name: _entry(load(Link(where.root, name)), current) for name in kept(where.root)}
    entries.setdefault(asked.id, _entry(asked, current))
    return _in_order(entries, asked.id)


def _in_order(entries: dict[str, LogEntry], first: str) -> list[LogEntry]:
    chain = []
    name: str | None = first
    while name in entries:
        chain.append(entries.pop(name))
        name = chain[-1].parent
    return chain + sorted(entries.values(), key=lambda entry: (entry.published, entry.snapshot), reverse=True)


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
    with refusals("look at", path):
        stat = (path if path.exists() else root / INDEX).stat()
    return datetime.fromtimestamp(stat.st_mtime, UTC)
