"""Which snapshot of a remote dataset does a command's link name, and how are its shards opened?

Commands always ask the store, and so see the current snapshot, not the one that a local mirror knows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from mx8shards.remote.mirror import open_mirror
from mx8shards.remote.open_store import open_store
from mx8shards.remote.remote_snapshots import RemoteIndex, find_snapshot, require_current
from mx8shards.remote.store import Store
from mx8shards.shards.links import RemoteLink, parse_any
from mx8shards.shards.open_shard import ProvidedSnapshot
from mx8shards.shards.providers import LocalFiles
from mx8shards.shards.snapshots import load


@contextlib.contextmanager
def store_of(link: RemoteLink, deadline_s: float) -> Iterator[Store]:
    """The store of a link, closed afterwards."""
    with contextlib.closing(open_store(link.url, deadline_s=deadline_s)) as store:
        yield store


def index_of(store: Store, link: RemoteLink) -> RemoteIndex:
    """The index of the snapshot that a link names."""
    return require_current(store) if link.snapshot is None else find_snapshot(store, link.snapshot)


def pinned(link: RemoteLink, deadline_s: float) -> RemoteLink:
    """The link with the whole id of its snapshot."""
    with store_of(link, deadline_s) as store:
        return RemoteLink(link.url, index_of(store, link).id)


def current_link(link: str, deadline_s: float) -> str:
    """A link for Dataset that names the snapshot which is current in the store now; a local link is unchanged."""
    where = parse_any(link)
    return str(pinned(where, deadline_s)) if isinstance(where, RemoteLink) else link


def open_snapshot(link: str | os.PathLike[str], deadline_s: float) -> ProvidedSnapshot:
    """Open the snapshot that a path or URL names; the shards of a URL come into its mirror when they are needed."""
    where = parse_any(link)
    if isinstance(where, RemoteLink):
        return open_mirror(pinned(where, deadline_s), deadline_s=deadline_s)
    snapshot = load(where)
    return ProvidedSnapshot(snapshot, "structure", LocalFiles(snapshot, None, check=False))
