"""Which snapshot is current in a store, and which others are kept there? The counterpart of `shards.snapshots`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError, RemoteError
from mx8shards.format.index import MAX_INDEX_BYTES, Index, parse_index
from mx8shards.remote.etags import is_etag_of
from mx8shards.remote.store import Fetched, Store
from mx8shards.remote.wait_notices import told_if_slow
from mx8shards.shards.links import is_whole_id
from mx8shards.shards.snapshots import INDEX, STATE, Snapshot, snapshot_id

KEPT = f"{STATE}/snapshots/"

_READS = 5  # of an index, until two are equal
_KEPT_KEY = re.compile(re.escape(KEPT) + r"([0-9a-f]{64})\.json")


@dataclass(frozen=True, slots=True)
class RemoteIndex:
    """An index in a store."""

    id: str
    data: bytes
    etag: str
    subject: str  # its URL, for messages

    def parse(self) -> Index:
        """The parsed index."""
        try:
            return parse_index(self.data)
        except FormatError as error:
            error.subject = self.subject
            raise

    def snapshot(self, root: Path) -> Snapshot:
        """As a snapshot whose files are expected below `root`."""
        return Snapshot(root, self.id, self.parse(), kept=True)


def kept_key(snapshot: str) -> str:
    """The key under which the index of a snapshot is kept."""
    return f"{KEPT}{snapshot.removeprefix('sha256:')}.json"


def kept_in(keys: Iterable[str]) -> list[str]:
    """The ids of the snapshots that are kept, of all keys in a store, sorted."""
    return sorted(f"sha256:{match[1]}" for match in map(_KEPT_KEY.fullmatch, keys) if match)


def read_index_of(store: Store, key: str, snapshot: str = "") -> Fetched:
    """Read an index until its id is `snapshot`, its ETag is its MD5, as S3's usually are, or two answers are equal.

    All other hashes stand in the index, so nothing else would show that a bit of it was flipped on its way.
    """
    before = None
    for _ in range(_READS):
        with told_if_slow(f"{store.url}/{key}"):
            found = store.read(key, MAX_INDEX_BYTES)
        if is_etag_of(found.etag, found.data) or found.data == before or snapshot_id(found.data) == snapshot:
            return found
        before = found.data
    raise RemoteError("each request for the index is answered with other bytes", subject=f"{store.url}/{key}")


def read_current(store: Store) -> RemoteIndex | None:
    """The current index; None if there is no dataset."""
    try:
        return require_current(store)
    except DatasetNotFoundError:
        return None


def require_current(store: Store) -> RemoteIndex:
    """The current index; DatasetNotFoundError if there is no dataset."""
    try:
        found = read_index_of(store, INDEX)
    except RemoteError as error:
        if error.reason != "missing":
            raise
        raise no_dataset(store.url, error) from error
    return RemoteIndex(snapshot_id(found.data), found.data, found.etag, f"{store.url}/{INDEX}")


def no_dataset(url: str, error: RemoteError) -> DatasetNotFoundError:
    """The error where the index is missing. It may be because there is no such bucket."""
    what = error.message or f"expected {error.expected}, got {error.found}"
    hint = f"{what}: {error.hint}" if error.hint else ""
    return DatasetNotFoundError(f"no dataset here: there is no {INDEX}", subject=url, hint=hint)


def read_kept(store: Store, snapshot: str) -> RemoteIndex:
    """The kept index of a snapshot; DatasetNotFoundError if there is none, IntegrityError if its bytes differ."""
    key = kept_key(snapshot)
    subject = f"{store.url}/{key}"
    try:
        found = store.read(key, MAX_INDEX_BYTES)
    except RemoteError as error:
        if error.reason != "missing":
            raise
        raise DatasetNotFoundError("the snapshot is not kept here", subject=subject) from error
    if snapshot_id(found.data) != snapshot:
        raise IntegrityError(subject=subject, expected=f"an index of id {snapshot}", found=snapshot_id(found.data))
    return RemoteIndex(snapshot, found.data, found.etag, subject)


def find_snapshot(store: Store, snapshot: str) -> RemoteIndex:
    """The index of a snapshot, given by its id or the beginning of it."""
    if is_whole_id(snapshot):
        try:
            return read_kept(store, snapshot)
        except DatasetNotFoundError:
            pass
        except RemoteError as error:  # without the right to list, S3 denies access to a missing object
            if error.reason != "denied":
                raise
    current = read_current(store)
    if current is not None and current.id.startswith(snapshot):
        return current
    found = [name for name in kept_in(each.key for each in store.list(f"{STATE}/")) if name.startswith(snapshot)]
    if len(found) != 1:
        text = " and ".join(found) or "none"
        hint = f"`mx8shards log {store.url}` lists the snapshots"
        subject = f"{store.url}@{snapshot}"
        raise DatasetNotFoundError(subject=subject, expected="a snapshot of this id", found=text, hint=hint)
    return read_kept(store, found[0])


def require_unchanged(store: Store, current: RemoteIndex, keys: Iterable[str]) -> None:
    """IntegrityError if snapshots are kept, but not the current one: then another program has changed index.json."""
    if not kept_in(keys) or store.head(kept_key(current.id)) is not None:
        return
    now = read_current(store)
    if now is not None and now.id != current.id:
        return  # published meanwhile: what was read first may have been removed since
    raise IntegrityError(
        subject=current.subject,
        expected="one of the snapshots kept here",
        found=f"{current.id}: changed outside mx8shards",
        hint="mx8shards sync copies a kept snapshot (…@sha256:…) to a local directory",
    )
