"""What does a Writer find in a store, and which names does it reserve for its shards?"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mx8shards.errors import RemoteError, ShardsError
from mx8shards.format.columns import Columns
from mx8shards.remote.leftovers import clean_dead_writers
from mx8shards.remote.remote_snapshots import RemoteIndex, read_current, require_unchanged
from mx8shards.remote.reservations import (
    FoundReservation,
    HeldReservation,
    Reservation,
    find_reservations,
    take,
)
from mx8shards.remote.store import Listed, Store
from mx8shards.shards.snapshots import INDEX, STATE
from mx8shards.shards.writer_base import (
    Base,
    Mode,
    base_after,
    exists_already,
    next_generation,
    require_empty,
)

MOST_ATTEMPTS = 10  # to begin, while other writers publish


@dataclass(frozen=True, slots=True)
class Start:
    """The state of a store when a publication begins."""

    current: RemoteIndex | None = None  # the current index
    keys: set[str] = field(default_factory=set)  # of all objects
    held: HeldReservation | None = None  # the names that the publication has reserved


def start_writer(store: Store, mode: Mode, columns: Columns, *, conditional: bool) -> tuple[Base, Start]:
    """The state to start from, after removing what killed writers left; an error if `mode` does not allow it."""
    for _ in range(MOST_ATTEMPTS):
        listed = list_objects(store)
        reservations = find_reservations(store, listed) if conditional else []
        if clean_dead_writers(store, reservations, listed):
            continue
        current = read_current(store)
        keys = {each.key for each in listed}
        base = _base(store, current, keys, mode, columns, reservations)
        if not conditional:
            return base, Start(current, keys)
        base, held = _reserved(store, base, keys, reservations)
        if is_current(store, current):
            return base, Start(current, keys, held)
        held.release()  # a snapshot was published meanwhile
    raise RemoteError("other writers publish here all the time", subject=store.url, reason="changed")


def list_objects(store: Store) -> list[Listed]:
    """All objects, without those that consoles of stores make to show a directory."""
    return [each for each in store.list() if each.key and not each.key.endswith("/")]


def is_current(store: Store, index: RemoteIndex | None) -> bool:
    """Whether this index is the current one; None: whether there is none."""
    now = store.head(INDEX)
    return (now and now.etag) == (index and index.etag)


def _base(
    store: Store,
    current: RemoteIndex | None,
    keys: set[str],
    mode: Mode,
    columns: Columns,
    reservations: Collection[FoundReservation],
) -> Base:
    if current is None:
        others = (key for key in keys if not key.startswith(f"{STATE}/"))
        free = (key for key in others if not any(each.reservation.covers(key) for each in reservations))
        require_empty(store.url, names_in(free, ""))
        return Base()
    if mode == "create":
        raise exists_already(store.url)
    require_unchanged(store, current, keys)
    try:
        return base_after(current.snapshot(Path(store.url)), partial(names_in, keys), mode, columns)
    except ShardsError as error:
        error.subject = store.url
        raise


def _reserved(
    store: Store, base: Base, keys: set[str], reservations: Collection[FoundReservation]
) -> tuple[Base, HeldReservation]:
    """The base with names that this writer has reserved: in a new directory if another writer has the usual one."""
    known = [*keys, *(f"{each.reservation.directory}reserved" for each in reservations)]
    for generation in itertools.count(next_generation(names_in(known, ""))):
        snapshot = base.snapshot.id if base.snapshot else None
        held = take(store, Reservation(base.prefix, base.first, snapshot))
        if held is not None:
            return base, held
        base = replace(base, prefix=f"g{generation:04}/", first=0)
    raise AssertionError


def names_in(keys: Iterable[str], directory: str) -> set[str]:
    """The names of the files and directories in a directory."""
    return {key.removeprefix(directory).split("/")[0] for key in keys if key.startswith(directory)}
