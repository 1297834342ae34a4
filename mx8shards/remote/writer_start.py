"""How does a publication into a store begin: what is there, and which names does the writer reserve?"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from mx8shards.errors import RemoteError, ShardsError
from mx8shards.format.columns import Columns
from mx8shards.remote.leftovers import clean_dead_writers
from mx8shards.remote.remote_snapshots import RemoteIndex, read_current, require_unchanged
from mx8shards.remote.reservations import (
    GC_LEASE_S,
    LANDED_S,
    FoundReservation,
    HeldReservation,
    Reservation,
    find_gc,
    find_reservations,
    take,
)
from mx8shards.remote.store import Listed, Store
from mx8shards.remote.trials import remove_left_trials
from mx8shards.shards.snapshots import INDEX, STATE
from mx8shards.shards.writer_base import (
    Base,
    Mode,
    base_after,
    exists_already,
    next_generation,
    require_empty,
)

_MOST_ATTEMPTS = 10  # to begin, while other writers publish
_GC_S = 600.0  # the longest wait for a running gc
_GC_POLL_S = 1.0

_T = TypeVar("_T")
_logger = logging.getLogger("mx8shards")


@dataclass(frozen=True, slots=True)
class Start:
    """The state of a store when a publication begins."""

    current: RemoteIndex | None = None  # the current index
    keys: set[str] = field(default_factory=set)  # of all objects
    held: HeldReservation | None = None  # the names that the publication has reserved


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a store, before a writer has reserved anything."""

    listed: Sequence[Listed]
    reservations: Sequence[FoundReservation]  # of other writers that are not known to be dead
    current: RemoteIndex | None

    @property
    def keys(self) -> set[str]:
        """The keys of all objects."""
        return {each.key for each in self.listed}


Reserve = Callable[[Found], tuple[_T, HeldReservation | None]]


def start(store: Store, reserve: Reserve[_T], *, conditional: bool) -> tuple[Start, _T]:
    """Begin a publication: the state of the store, and the result of `reserve`.

    `reserve` gets what is in the store, after removing what killed writers left. It raises an error unless the
    publication may begin, and reserves its names, if the store has conditional puts. It is called again if something
    was published meanwhile, so that the state is that of one moment.

    No publication begins while gc runs. gc puts its reservation before it looks for those of writers, and a writer puts
    its own before it looks for that of gc. So at least one of the two sees the other.
    """
    for _ in range(_MOST_ATTEMPTS):
        if conditional:
            _wait_for_gc(store)
        listed = list_objects(store)
        remove_left_trials(store, listed)
        reservations = find_reservations(store, listed) if conditional else []
        if clean_dead_writers(store, reservations, listed):
            continue
        found = Found(listed, reservations, read_current(store))
        result, held = reserve(found)
        if held is None:
            return Start(found.current, found.keys), result
        try:
            if is_current(store, found.current) and _running_gc(store) is None:
                return Start(found.current, found.keys, held), result
        except BaseException:
            with contextlib.suppress(ShardsError):
                held.release()
            raise
        held.release()
    raise RemoteError("other writers publish here all the time", subject=store.url, reason="changed")


def reserved_already(store: Store, found: FoundReservation | None) -> RemoteError:
    """The error of a publication that needs names which another one has reserved."""
    since = f", since {found.reservation.begun}" if found else ""
    minutes = f"{LANDED_S / 60:.0f} minutes"
    hint = (
        f"if it was killed, try again {minutes} later on its machine; elsewhere `mx8shards gc` helps after seven days"
    )
    return RemoteError(
        f"another process uploads to this dataset{since}", subject=store.url, hint=hint, reason="changed"
    )


def _wait_for_gc(store: Store) -> None:
    end = time.monotonic() + _GC_S
    while (gc := _running_gc(store)) is not None:
        if time.monotonic() > end:
            hint = f"if it was killed, writers may begin {GC_LEASE_S / 60:.0f} minutes later"
            message = f"gc has been running since {gc.reservation.begun}"
            raise RemoteError(message, subject=store.url, hint=hint, reason="changed")
        _logger.info("%s: waiting for gc", store.url)
        time.sleep(_GC_POLL_S)


def _running_gc(store: Store) -> FoundReservation | None:
    found = find_gc(store)
    return None if found is None or found.has_landed else found


def start_writer(store: Store, mode: Mode, columns: Columns, *, conditional: bool) -> tuple[Base, Start]:
    """The state that a Writer starts from; an error if `mode` does not allow it."""

    def reserve(found: Found) -> tuple[Base, HeldReservation | None]:
        base = _base(store, found.current, found.keys, mode, columns, found.reservations)
        return _reserved(store, base, found.keys, found.reservations) if conditional else (base, None)

    begun, base = start(store, reserve, conditional=conditional)
    return base, begun


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
