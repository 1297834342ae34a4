"""Which snapshots does a dataset have, in which order (`mx8shards log`)?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mx8shards.disk.operations import disk_errors
from mx8shards.errors import finite_seconds
from mx8shards.format.index import Index
from mx8shards.shards.links import Link, RemoteLink, parse_any
from mx8shards.shards.snapshots import INDEX, Snapshot, current_bytes, kept, kept_path, load, snapshot_id

if TYPE_CHECKING:
    from mx8shards.remote.store import Listed, Store

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


def log(link: str | os.PathLike[str], *, deadline_s: float = 300.0) -> list[LogEntry]:
    """List the snapshots of a dataset, newest first: the one of the link and its ancestors, then all others by time.

    Args:
        link: The dataset's directory or URL, or `path@sha256:9f2c…` to begin with that snapshot.
        deadline_s: For a URL, how many seconds the store may fail to answer before that is an error.
    """
    deadline_s = finite_seconds("deadline_s", deadline_s)
    where = parse_any(link)
    if isinstance(where, RemoteLink):
        from mx8shards.maintain.remote_links import index_of, store_of  # only for URLs
        from mx8shards.remote.writer_start import list_objects

        with store_of(where, deadline_s) as store:
            asked = None if where.snapshot is None else index_of(store, where).id
            return [entry for entry, _ in remote_history(store, list_objects(store), lambda index: None, asked)]
    return [entry for entry, _ in history(where, lambda index: None)]


def remote_history(
    store: Store, listed: Iterable[Listed], also: Callable[[Index], _T], asked: str | None = None
) -> list[tuple[LogEntry, _T]]:
    """`history` of a remote dataset with these objects."""
    from mx8shards.remote.remote_snapshots import kept_in, kept_key, read_kept, require_current, require_unchanged

    put = {each.key: each.modified_s for each in listed}
    current = require_current(store)
    if asked is None:
        require_unchanged(store, current, put)
    found = {}
    for name in {current.id, *kept_in(put)}:
        snapshot = (current if name == current.id else read_kept(store, name)).snapshot(Path(store.url))
        when = put.get(kept_key(name), put.get(INDEX, 0.0))
        found[name] = _entry(snapshot, current.id, datetime.fromtimestamp(when, UTC)), also(snapshot.index)
    return _in_order(found, asked or current.id)


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
        found[name] = _entry(snapshot, current, _published(where.root, name)), also(snapshot.index)
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


def _entry(snapshot: Snapshot, current: str, published: datetime) -> LogEntry:
    index = snapshot.index
    return LogEntry(
        snapshot=snapshot.id,
        parent=index.parent,
        current=snapshot.id == current,
        published=published,
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
