"""How are the objects of a killed writer removed?"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import replace

from mx8shards.errors import DatasetNotFoundError
from mx8shards.remote.remote_snapshots import kept_in, kept_key, read_current, read_kept
from mx8shards.remote.reservations import FoundReservation, Process, Reservation, find_reservations, replace_reservation
from mx8shards.remote.store import Listed, Store
from mx8shards.shards.recovery import files_of
from mx8shards.shards.snapshots import STATE


def clean_dead_writers(store: Store, reservations: Iterable[FoundReservation], listed: Collection[Listed]) -> bool:
    """Remove what dead writers have left, and return whether there was any. A dead sync can still be resumed."""
    dead = [each for each in reservations if each.is_dead and each.reservation.kind != "sync"]
    return any([clean(store, each, listed) for each in dead])  # noqa: C419 - all of them


def clean(store: Store, found: FoundReservation, listed: Iterable[Listed]) -> bool:
    """Remove the shards that a dead writer has uploaded, and its reservation; False if another process does so already.

    Its reservation is replaced by ours first, so that only one process cleans up. Only names that it had reserved are
    removed, and none if it published its snapshot.
    """
    dead = found.reservation
    ours = replace(dead, process=Process.this(), writer=uuid.uuid4().hex)
    held = replace_reservation(store, ours, found.etag)
    if held is None:
        return False
    _remove_unpublished(store, dead, [each.key for each in listed])
    held.release()
    return True


def _remove_unpublished(store: Store, dead: Reservation, keys: list[str]) -> None:
    if dead.snapshot is not None:
        if _is_published(store, dead.snapshot, dead.base, keys):
            return
        store.delete([kept_key(dead.snapshot)])
        store.delete(sorted(set(dead.sidecars) - _used_sidecars(store, dead)))
    store.delete([key for key in keys if dead.covers(key)])


def _is_published(store: Store, snapshot: str, base: str | None, keys: Iterable[str]) -> bool:
    """Whether a snapshot is the current one or was it once, as far as the parents of the current one tell.

    Every publication names the one before as its parent, so a snapshot that follows `base` is found between it and the
    current one. If a link of this chain is missing, the answer is yes, because then nothing must be removed.
    """
    found = read_current(store)
    known = set(kept_in(keys))
    while found is not None:
        if found.id == snapshot:
            return True
        parent = found.parse().parent
        if base in (found.id, parent) and parent != snapshot:
            return False
        if parent is None or (parent != snapshot and parent not in known):
            return True
        try:
            found = read_kept(store, parent)
        except DatasetNotFoundError:
            return True
    return False


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
