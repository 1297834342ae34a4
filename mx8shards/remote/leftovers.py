"""How are the objects of a killed writer removed?"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Literal

from mx8shards.errors import DatasetNotFoundError
from mx8shards.remote.remote_snapshots import kept_in, kept_key, read_current, read_kept
from mx8shards.remote.reservations import FoundReservation, Process, Reservation, find_reservations, replace_reservation
from mx8shards.remote.store import Listed, Store
from mx8shards.shards.recovery import files_of
from mx8shards.shards.snapshots import STATE


def clean_dead_writers(store: Store, reservations: Iterable[FoundReservation], listed: Collection[Listed]) -> bool:
    """Remove what dead writers have left, and return whether there was any. A dead sync can still be resumed."""
    dead = [each for each in reservations if each.is_dead and each.reservation.kind in ("writer", "merge")]
    return any([clean(store, each, listed) for each in dead])  # noqa: C419 - all of them


def clean(store: Store, found: FoundReservation, listed: Iterable[Listed]) -> bool:
    """Remove the shards that a dead writer has uploaded, and its reservation; False if that must wait.

    Its reservation is replaced by ours first, so that only one process cleans up, and so that a writer that has not
    announced its snapshot cannot publish any more. A writer that has announced it may have sent the put of index.json,
    which succeeds as long as index.json is the one it began with. Then its shards may be removed only if that put must
    fail, because there is another index, or if it was answered long ago. Only names that it had reserved are removed,
    and none if it published its snapshot.
    """
    dead = found.reservation
    if dead.snapshot is not None and not found.has_landed:
        current = read_current(store)
        if (current.id if current else None) == dead.base:
            return False
    ours = replace(dead, process=Process.this(), writer=uuid.uuid4().hex, renewed_s=time.time())
    held = replace_reservation(store, ours, found.etag)
    if held is None:
        return False
    _remove_unpublished(store, dead, [each.key for each in listed])
    held.release()
    return True


def _remove_unpublished(store: Store, dead: Reservation, keys: list[str]) -> None:
    gone = [key for key in keys if dead.covers(key)]
    if dead.snapshot is not None:
        sidecars = set(dead.sidecars) - _used_sidecars(store, dead)
        gone = [kept_key(dead.snapshot), *sorted(sidecars), *gone]
        # As the last request before the removal: the answer must not be old.
        if fate(store, dead.snapshot, dead.base) != "unpublished":
            return
    store.delete(gone)


def fate(store: Store, snapshot: str, base: str | None) -> Literal["published", "unpublished", "unknown"]:
    """Whether a snapshot, which follows `base`, is the current one or was it once.

    Every publication names the one before as its parent, so the snapshot is found between the current one and `base`.
    If a link of this chain is missing, the answer is unknown, and nothing may be removed.
    """
    found = read_current(store)
    while found is not None:
        if found.id == snapshot:
            return "published"
        parent = found.parse().parent
        if parent == snapshot:
            return "published"
        if base in (found.id, parent):
            return "unpublished"
        if parent is None:
            return "unknown"
        try:
            found = read_kept(store, parent)
        except DatasetNotFoundError:
            return "unknown"
    return "unpublished"


def _used_sidecars(store: Store, dead: Reservation) -> set[str]:
    """The side-cars that snapshots name, or that other writers are about to publish."""
    listed = list(store.list(f"{STATE}/"))
    used = referenced(store, kept_in(each.key for each in listed))
    current = read_current(store)
    if current is not None:
        used |= files_of(current.parse())
    for each in find_reservations(store, listed):
        if each.reservation.key != dead.key:
            used.update(each.reservation.sidecars)
    return used


def referenced(store: Store, snapshots: Iterable[str]) -> set[str]:
    """The names of all files of these kept snapshots."""
    names: set[str] = set()
    for name in snapshots:
        names |= files_of(read_kept(store, name).parse())
    return names
