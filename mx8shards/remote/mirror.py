"""The mirror: which snapshot of a remote dataset does a link name, and where is its local directory?

A mirror looks like a local dataset: index.json, the snapshots kept under their ids, side-cars, and those shards that
are here. `.mx8shards/mirror.json` tells that it is one, and of which URL. Only a mirror is ever evicted from, because
every file in it can be fetched again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mx8shards.errors import DatasetNotFoundError, FormatError, RemoteError, SettingError
from mx8shards.format.index import parse_index
from mx8shards.remote import fetching, readers
from mx8shards.remote.etags import is_etag_of
from mx8shards.remote.eviction import Limit, require_room_for_one
from mx8shards.remote.mirror_facts import UNKNOWN, mirrored_url, note_source, note_url, source_of
from mx8shards.remote.provider import RemoteFiles, RemoteSettings, connect
from mx8shards.remote.remote_snapshots import kept_key, no_dataset, read_index_of
from mx8shards.remote.stamps import Stamps, stamp_of
from mx8shards.remote.store import Fetched, Store
from mx8shards.remote.wait_notices import told_if_slow
from mx8shards.shards.links import Link, RemoteLink, absolute, directory, is_whole_id
from mx8shards.shards.local_files import best_hash
from mx8shards.shards.open_shard import ProvidedSnapshot, Verify
from mx8shards.shards.snapshots import (
    INDEX,
    STATE,
    current_bytes,
    kept,
    kept_path,
    load,
    read_index,
    snapshot_id,
)

_logger = logging.getLogger("mx8shards")

_INDEX_CLAIM = "index"  # a directory of this name cannot be a shard's, as shards have an extension


def open_mirror(
    link: RemoteLink,
    *,
    deadline_s: float,
    local: str | os.PathLike[str] | None = None,
    cache_limit: int | Limit | None = None,
    keep_zip: bool = False,
    verify: Verify = "structure",
    cache_dir: Path | None = None,
) -> ProvidedSnapshot:
    """Open a remote dataset through its mirror. The store is asked only for what the mirror does not know.

    Several mirrors may share one limit of their bytes: `cache_limit` is then a Limit.
    """
    root = default_directory(link.url) if local is None else directory("local", local)
    store = _LazyStore(link.url, deadline_s)
    _require_mirror(root, link.url)
    fetching.sweep(root)
    readers.sweep(root)
    name = _resolve(root, link, store, deadline_s)
    snapshot = load(Link(root, name))
    limit = Limit(cache_limit) if isinstance(cache_limit, int) else cache_limit
    if limit is not None:
        require_room_for_one(snapshot, limit.bytes)
    check = verify == "shard"
    source = source_of(root, link.url, name)
    settings = RemoteSettings(link.url, source, deadline_s, keep_zip, limit, cache_dir, check)
    return ProvidedSnapshot(snapshot, verify, RemoteFiles(snapshot, settings))


def default_directory(url: str) -> Path:
    """The mirror of a URL below $MX8SHARDS_CACHE or, without that, below $XDG_CACHE_HOME/mx8shards."""
    given = os.environ.get("MX8SHARDS_CACHE")
    if given:
        base = directory("MX8SHARDS_CACHE", given)
    else:
        base = absolute(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "mx8shards"
    return base / hashlib.sha256(url.encode()).hexdigest()[:32]


class _LazyStore:
    """The store, opened when it is first needed."""

    def __init__(self, url: str, deadline_s: float) -> None:
        self.url = url
        self._deadline_s = deadline_s
        self._store: Store | None = None

    def read(self, key: str, snapshot: str = "") -> Fetched | None:
        """An index, which should have the id `snapshot` if that is known; None if there is no such object."""
        store = self._opened()
        try:
            return read_index_of(store, key, snapshot)
        except RemoteError as error:
            if error.reason != "missing":
                raise
            return None

    def read_current(self) -> Fetched:
        """The current index; DatasetNotFoundError if there is none."""
        store = self._opened()
        try:
            return read_index_of(store, INDEX)
        except RemoteError as error:
            if error.reason != "missing":
                raise
            raise no_dataset(self.url, error) from error

    def has_changed(self, key: str, known: bytes | None) -> bool:
        """Whether a small object may have other bytes than these: unless its ETag is their MD5."""
        store = self._opened()
        try:
            with told_if_slow(f"{store.url}/{key}"):
                found = store.head(key)
        except RemoteError as error:
            if error.reason != "missing":
                raise
            return True  # reading it says what is missing
        return known is None or found is None or not is_etag_of(found.etag, known)

    def _opened(self) -> Store:
        self._store = self._store or connect(self.url, self._deadline_s)
        return self._store


def adopt(root: Path, url: str, deadline_s: float) -> None:
    """Make a directory that Streaming has filled from this URL a mirror, if its index.json is the one in the store.

    Otherwise nothing changes. Files without a hash in the index count as verified if they have the right size, as
    nothing else can be checked; others are verified when they are needed.
    """
    data = current_bytes(root)
    if data is None or mirrored_url(root) is not None or kept(root):
        return
    found = _LazyStore(url, deadline_s).read(INDEX)
    if found is None or found.data != data:
        return
    index, stamps = parse_index(data), Stamps(root)
    with _index_claimed(root, url, deadline_s) as claim:
        for info in filter(None, (files.info(i) for files in (index.raw, index.zip) for i in range(index.shards))):
            path = root / info.basename
            if best_hash(info) is None and path.is_file() and path.stat().st_size == info.size_bytes:
                stamps.stamp(info, stamp_of(path.lstat()), claim.private)
        _keep(claim, RemoteLink(url), snapshot_id(data), data)


def _require_mirror(root: Path, url: str) -> None:
    """SettingError if the directory is the mirror of another URL, or a dataset of its own."""
    found = mirrored_url(root)
    if found in (url, UNKNOWN):
        return
    if found is not None:
        raise SettingError(subject="local", expected=f"a directory for {url}", found=f"{root}, a mirror of {found}")
    if (root / INDEX).exists() or kept(root):
        hint = f"open {root} itself, or give local=… another directory"
        raise SettingError(
            subject="local", expected="a new directory or a mirror", found=f"{root}, a dataset", hint=hint
        )
    others = [path.name for path in root.iterdir() if path.name != STATE] if root.is_dir() else []
    if others:
        found = f"{root} with {min(others)!r}"
        raise SettingError(subject="local", expected="an empty directory or a mirror", found=found)


def _resolve(root: Path, link: RemoteLink, store: _LazyStore, deadline_s: float) -> str:
    """The id of the snapshot that a link names. Its index is kept in the mirror afterwards."""
    if mirrored_url(root) == link.url:
        found = _known(root, link)
        if found is not None and not (link.refresh and store.has_changed(INDEX, current_bytes(root))):
            return found
    with _index_claimed(root, link.url, deadline_s) as claim:
        _require_mirror(root, link.url)  # meanwhile another job may have made the directory the mirror of another URL
        if mirrored_url(root) == UNKNOWN:
            _restore_mirror_facts(link.url, store, claim)
        found = None if link.refresh else _known(root, link)
        return found or _fetch_index(link, store, claim)


def _known(root: Path, link: RemoteLink) -> str | None:
    """The id of the snapshot, if the mirror knows it."""
    if link.snapshot is None:
        data = current_bytes(root)
        return None if data is None else snapshot_id(data)
    found = [name for name in kept(root) if name.startswith(link.snapshot)]
    if len(found) > 1:
        raise DatasetNotFoundError(subject=str(link), expected="a snapshot of this id", found=" and ".join(found))
    return found[0] if found else None


def _fetch_index(link: RemoteLink, store: _LazyStore, claim: fetching.Claim) -> str:
    wanted = link.snapshot
    whole_id = wanted if wanted is not None and is_whole_id(wanted) else None
    found, denied = _read_kept(store, whole_id) if whole_id else (None, None)
    found = found or store.read_current()
    name = snapshot_id(found.data)
    if wanted is not None and not name.startswith(wanted):
        raise _not_found(link, name, denied) from denied
    try:
        sealed = parse_index(found.data).sealed
    except FormatError as error:
        error.subject = f"{link.url}/{INDEX}"
        raise
    if found.source and (sealed or not kept_path(claim.root, name).exists()):
        note_source(found.source, name, claim)
    _keep(claim, link, name, found.data)
    return name


def _restore_mirror_facts(url: str, store: _LazyStore, claim: fetching.Claim) -> None:
    """Write a damaged mirror.json again, and fetch index.json again, which may be of another URL."""
    _logger.warning("%s: mirror.json was damaged: the current snapshot of %s is opened", claim.root, url)
    _fetch_index(RemoteLink(url), store, claim)
    note_url(url, claim)


def _read_kept(store: _LazyStore, snapshot: str) -> tuple[Fetched | None, RemoteError | None]:
    """The kept index of a snapshot, if there is one, and why not if access to it is denied.

    Without the right to list, S3 denies access to a missing object.
    """
    try:
        return store.read(kept_key(snapshot), snapshot), None
    except RemoteError as error:
        if error.reason != "denied":
            raise
        return None, error


def restore_kept(root: Path, url: str, snapshot: str, deadline_s: float) -> bool:
    """Fetch the index of a kept snapshot again. False if the store does not have it any more."""
    store = _LazyStore(url, deadline_s)
    with _index_claimed(root, url, deadline_s) as claim:
        found, _ = _read_kept(store, snapshot)
        if found is None or snapshot_id(found.data) != snapshot:
            found = store.read(INDEX)
        if found is None or snapshot_id(found.data) != snapshot:
            return False
        fetching.place_bytes(found.data, kept_key(snapshot), claim)
    return True


def restore_current(root: Path, url: str, deadline_s: float) -> bool:
    """Make the only kept snapshot the current one again. False if another one may have been the current one."""
    with _index_claimed(root, url, deadline_s) as claim:
        names = kept(root)
        data = read_index(kept_path(root, names[0])) if len(names) == 1 else b""
        if snapshot_id(data) not in names:
            return False
        fetching.place_bytes(data, INDEX, claim)
    return True


@contextmanager
def _index_claimed(root: Path, url: str, deadline_s: float) -> Iterator[fetching.Claim]:
    try:
        with fetching.claimed(root, _INDEX_CLAIM, deadline_s) as claim:
            yield claim
    except BlockingIOError:
        message = f"another process fetches the index and has not finished after {deadline_s:.0f} s"
        raise RemoteError(message, subject=url) from None


def _not_found(link: RemoteLink, name: str, denied: RemoteError | None) -> Exception:
    """The error for a pinned snapshot that the store does not have, or denies access to."""
    assert link.snapshot is not None
    if denied is not None:
        hint = f"its index cannot be read: {denied.message}; S3 says so of a missing object, too, without s3:ListBucket"
    elif not is_whole_id(link.snapshot):
        hint = "give all 64 digits for a snapshot that is not the current one"
    else:
        hint = "it was removed, or it was never in this place"
    return DatasetNotFoundError(
        subject=str(link), expected="a snapshot of this id", found=f"{name}, the current one", hint=hint
    )


def _keep(claim: fetching.Claim, link: RemoteLink, name: str, data: bytes) -> None:
    """Store an index under its id and, unless the link is pinned, as the current one."""
    if mirrored_url(claim.root) is None:
        note_url(link.url, claim)
    if not kept_path(claim.root, name).exists():
        fetching.place_bytes(data, kept_key(name), claim)
    if link.snapshot is None and current_bytes(claim.root) != data:
        fetching.place_bytes(data, INDEX, claim)
