"""Garbage collection of a remote dataset: which objects belong only to old snapshots, or to no snapshot at all?

An object is removed only if all of these hold: it is older than the limit; no snapshot that is kept names it; its name
is one that a Writer or a merge gives; and no writer that may be alive has reserved its name. Old snapshots go first,
then their files, so a kill leaves objects that the next gc removes.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from mx8shards.maintain.log import remote_history
from mx8shards.maintain.parallel import Progress, Ticker
from mx8shards.maintain.remote_links import store_of
from mx8shards.remote.leftovers import clean
from mx8shards.remote.multipart import abort_old_uploads
from mx8shards.remote.remote_snapshots import kept_key
from mx8shards.remote.reservations import FoundReservation, find_reservations
from mx8shards.remote.store import Store
from mx8shards.remote.writer_start import list_objects
from mx8shards.shards.links import RemoteLink
from mx8shards.shards.recovery import files_of, is_removable
from mx8shards.shards.snapshots import STATE

_TRIAL = f"{STATE}/trial-"  # put to find out whether a store has conditional puts


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed."""

    snapshots: tuple[str, ...]
    files: tuple[str, ...]
    freed_bytes: int
    kept: tuple[str, ...]


def collect(url: str, keep: int, older_than_s: float, progress: Progress | None) -> Collected:
    """Remove old snapshots except the newest `keep`, and the objects that no kept snapshot needs."""
    with store_of(RemoteLink(url)) as store:
        live = _clean_dead_writers(store)
        listed = list_objects(store)
        begun = time.time()
        old = {each.key: each.size_bytes for each in listed if each.modified_s < begun - older_than_s}
        history = remote_history(store, listed, files_of)
        unwanted = [
            entry.snapshot
            for i, (entry, _) in enumerate(history)
            if i >= keep and not entry.current and kept_key(entry.snapshot) in old
        ]
        wanted = [entry.snapshot for entry, _ in history if entry.snapshot not in unwanted]
        needed: set[str] = set().union(*(names for entry, names in history if entry.snapshot in wanted))
        files = [key for key in sorted(old.keys() - needed) if _may_go(key, live)]
        announced = {each.reservation.snapshot for each in live}
        unwanted = [name for name in unwanted if name not in announced]
        ticker = Ticker(progress, sum(old[name] for name in (*files, *map(kept_key, unwanted))))
        ticker.tick(0)
        store.delete([kept_key(name) for name in unwanted])
        store.delete(files)
        ticker.tick(sum(old[name] for name in (*files, *map(kept_key, unwanted))))
        abort_old_uploads(url, older_than_s)
        return Collected(tuple(unwanted), tuple(files), ticker.done, tuple(wanted))


def _clean_dead_writers(store: Store) -> list[FoundReservation]:
    """Remove what dead writers left, and the reservations of dead syncs. Returns the reservations of the others."""
    listed = list_objects(store)
    live = []
    for found in find_reservations(store, listed):
        if not found.is_dead:
            live.append(found)
        elif found.reservation.kind != "sync":
            clean(store, found, listed)
        elif found.is_abandoned:
            store.delete([found.reservation.key])
        else:
            live.append(found)  # it can still be resumed
    return live


def _may_go(key: str, live: Collection[FoundReservation]) -> bool:
    """Whether an object that no snapshot names may be removed."""
    if key.startswith(_TRIAL):
        return True
    if any(key in each.reservation.sidecars or each.reservation.covers(key) for each in live):
        return False
    return is_removable(key)
