"""Garbage collection of a remote dataset: which objects belong only to old snapshots, or to no snapshot at all?

An object is removed only if all of these hold: it is older than the limit; no snapshot that is kept names it; its name
is one that a Writer or a merge gives; and no writer that may be alive has reserved its name. Old snapshots go first,
then their files, so a kill leaves objects that the next gc removes.

A sync may use objects that no snapshot names yet, and a new writer the name of one that was just removed. So gc has a
reservation of its own, put before it looks for those of others. Writers that it does not see then see it, and wait
(`writer_start.start`). It then reads, in this order, the reservations, the objects and the current index, and decides
from them which objects to remove. A writer whose reservation is gone has published, or has removed its objects.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from mx8shards.errors import RemoteError
from mx8shards.maintain.log import remote_history
from mx8shards.maintain.parallel import Progress, Ticker
from mx8shards.maintain.remote_links import store_of
from mx8shards.remote import trials
from mx8shards.remote.leftovers import clean
from mx8shards.remote.multipart import abort_old_uploads
from mx8shards.remote.remote_snapshots import kept_key
from mx8shards.remote.reservations import (
    GC_DIRECTORY,
    GC_LEASE_S,
    FoundReservation,
    Process,
    Reservation,
    find_gc,
    find_reservations,
    replace_reservation,
    take,
)
from mx8shards.remote.store import Store
from mx8shards.remote.writer_start import list_objects
from mx8shards.shards.links import RemoteLink
from mx8shards.shards.recovery import SIDECAR, files_of, is_removable

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed."""

    snapshots: tuple[str, ...]
    files: tuple[str, ...]
    freed_bytes: int
    kept: tuple[str, ...]


def collect(url: str, keep: int, older_than_s: float, deadline_s: float, progress: Progress | None) -> Collected:
    """Remove old snapshots except the newest `keep`, and the objects that no kept snapshot needs."""
    with store_of(RemoteLink(url), deadline_s) as store, _alone(store) as renew:
        live = _clean_dead_writers(store)
        listed = list_objects(store)
        trials.remove_left_trials(store, listed)
        begun = time.time()
        old = {each.key: each.size_bytes for each in listed if each.modified_s < begun - older_than_s}
        history = remote_history(store, listed, files_of)
        announced = {each.reservation.snapshot for each in live}
        unwanted = [
            entry.snapshot
            for i, (entry, _) in enumerate(history)
            if i >= keep and not entry.current and kept_key(entry.snapshot) in old and entry.snapshot not in announced
        ]
        wanted = [entry.snapshot for entry, _ in history if entry.snapshot not in unwanted]
        needed: set[str] = set().union(*(names for entry, names in history if entry.snapshot in wanted))
        files = [key for key in sorted(old.keys() - needed) if _may_go(key, live)]
        gone = [*map(kept_key, unwanted), *files]
        ticker = Ticker(progress, sum(old[key] for key in gone))
        ticker.tick(0)
        for begin in range(0, len(gone), _AT_ONCE):
            some = gone[begin : begin + _AT_ONCE]
            renew()
            store.delete(some)
            ticker.tick(sum(old[key] for key in some))
        abort_old_uploads(url, older_than_s)
        return Collected(tuple(unwanted), tuple(files), ticker.done, tuple(wanted))


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[Callable[[], object]]:
    """Let no writer begin while the block runs; the function it gets shows that it still does."""
    if not store.can_put_conditionally:  # whoever writes to such a store has promised to be alone
        yield lambda: None
        return
    wanted = Reservation(GC_DIRECTORY, 0, None, kind="gc")
    found = find_gc(store)
    if found is None:
        held = take(store, wanted)
    else:
        held = replace_reservation(store, wanted, found.etag) if found.has_landed else None
    if held is None:
        hint = f"if it was killed, the next may begin {GC_LEASE_S / 60:.0f} minutes later"
        since = f", since {found.reservation.begun}" if found else ""
        raise RemoteError(f"another gc is running{since}", subject=store.url, hint=hint, reason="changed")
    try:
        yield held.extend
    finally:
        with contextlib.suppress(RemoteError):  # it expires
            held.release()


def _clean_dead_writers(store: Store) -> list[FoundReservation]:
    """Remove what dead writers left, and the reservations of abandoned syncs. Returns the reservations of the others.

    Those of dead writers whose last request may still be under way are among the others.
    """
    listed = list_objects(store)
    live = []
    for found in find_reservations(store, listed):
        kind = found.reservation.kind
        if kind == "gc":
            continue
        if kind == "sync":  # it can be resumed, until it is abandoned
            ours = replace(found.reservation, process=Process.this(), renewed_s=time.time())
            if found.is_abandoned and (held := replace_reservation(store, ours, found.etag)):
                held.release()
                continue
        elif found.is_dead and clean(store, found, listed):
            continue
        live.append(found)
    return live


def _may_go(key: str, live: Collection[FoundReservation]) -> bool:
    """Whether an object that no snapshot names may be removed."""
    if key.startswith(trials.PREFIX):
        return True
    if any(key in each.reservation.sidecars or each.reservation.covers(key) for each in live):
        return False
    if SIDECAR.fullmatch(key) and any(each.reservation.snapshot is None for each in live):
        return False  # its name is a hash, so that a writer may need it, and only says so at its end
    return is_removable(key)
