"""How does a Writer publish into a store? Shards are uploaded while it writes, the index last with a conditional put.

1. The writer reserves a directory of names (`reservations`), so that no other writer uses them.
2. Shards go up as new objects; nothing is ever overwritten but index.json.
3. The reservation says which snapshot is about to be published. Its index is stored under its id.
4. index.json is put, if it is still the one that the writer began with. This decides between several writers.

A writer that loses, or is abandoned, removes the objects that it has put. After a kill, the next writer on the same
machine does that, and gc on any other. Where the answer to the put of index.json was lost, nothing is removed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import tempfile
import warnings
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.disk.scratch import Scratch
from mx8shards.errors import DiskError, RemoteError, ShardsError
from mx8shards.format.columns import Columns
from mx8shards.format.index import parse_index
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.remote.leftovers import clean
from mx8shards.remote.remote_snapshots import RemoteIndex, kept_key, read_current, require_unchanged
from mx8shards.remote.reservations import (
    PREFIX,
    FoundReservation,
    HeldReservation,
    Reservation,
    find_reservations,
    put_if,
    take,
)
from mx8shards.remote.store import Store
from mx8shards.remote.uploads import Uploads
from mx8shards.shards.publication import Pieces
from mx8shards.shards.recovery import files_of, sidecar_name, staged_name
from mx8shards.shards.snapshots import INDEX, STATE, Snapshot, snapshot_id
from mx8shards.shards.writer_base import (
    Base,
    Mode,
    base_after,
    exists_already,
    next_generation,
    require_empty,
    shard_number,
)

_MOST_ATTEMPTS = 10  # to begin, while other writers publish

_logger = logging.getLogger("mx8shards")


class RemotePublication:
    """A publication into a store. Holds a reservation of the names of its shards until `close`."""

    _reservation: HeldReservation | None = None
    _open = True

    def __init__(self, store: Store, *, single_writer: bool = False) -> None:
        self.store = store
        self._process = os.getpid()
        self._conditional = store.can_put_conditionally
        if not (self._conditional or single_writer):
            hint = (
                "single_writer=True (--single-writer) writes without them: then another process that writes there at "
                "the same time would damage the dataset"
            )
            raise RemoteError("this store has no conditional puts", subject=store.url, hint=hint)
        self._current: RemoteIndex | None = None
        self._sidecars: dict[str, Path] = {}
        self._old_keys: set[str] = set()  # of the objects that were there before
        self._may_be_published = False
        self._scratch = Scratch(Path(tempfile.gettempdir()))
        self._uploads = Uploads(store, overwrite=not self._conditional)

    # the beginning ----------------------------------------------------------------------------------------------

    def base(self, mode: Mode, columns: Columns) -> Base:
        """The state to start from, after it has reserved the names of the new shards; an error if `mode` forbids it."""
        for _ in range(_MOST_ATTEMPTS):
            listed = [each for each in self.store.list() if each.key and not each.key.endswith("/")]
            reservations = find_reservations(self.store, listed) if self._conditional else []
            dead = [each for each in reservations if each.is_dead and not each.reservation.is_sync]
            cleaned = [clean(self.store, each, listed) for each in dead]
            if any(cleaned):
                continue
            self._current = read_current(self.store)
            self._old_keys = {each.key for each in listed}
            base = self._base(mode, columns, reservations)
            if not self._conditional:
                return base
            base = self._reserved(base, reservations)
            now = self.store.head(INDEX)
            if (now and now.etag) == (self._current and self._current.etag):
                return base
            self._release()  # a snapshot was published meanwhile
        raise RemoteError("other writers publish here all the time", subject=self.store.url)

    def _base(self, mode: Mode, columns: Columns, reservations: Collection[FoundReservation]) -> Base:
        keys = self._old_keys
        if self._current is None:
            free = (key for key in keys if not any(_covers(each.reservation, key) for each in reservations))
            require_empty(self.store.url, _names_in(free, ""))
            return Base()
        if mode == "create":
            raise exists_already(self.store.url)
        require_unchanged(self.store, self._current, keys)
        snapshot = Snapshot(Path(self.store.url), self._current.id, self._current.parse(), kept=True)
        try:
            return base_after(snapshot, partial(_names_in, keys), mode, columns)
        except ShardsError as error:
            error.subject = self.store.url
            raise

    def _reserved(self, base: Base, reservations: Collection[FoundReservation]) -> Base:
        """The base with names that this writer has reserved: in a new directory if another writer has the usual one."""
        known = [*self._old_keys, *(f"{each.reservation.directory}reserved" for each in reservations)]
        for generation in itertools.count(next_generation(_names_in(known, ""))):
            reservation = Reservation(base.prefix, base.first, base.snapshot.id if base.snapshot else None)
            self._reservation = take(self.store, reservation)
            if self._reservation is not None:
                return base
            base = replace(base, prefix=f"g{generation:04}/", first=0)
        raise AssertionError

    def require_owner(self) -> None:
        """DiskError in a forked process, which has neither the connection nor the threads of the other one."""
        if os.getpid() != self._process:
            raise DiskError(
                f"opened by process {self._process}: a process forked from it cannot publish", subject=self.store.url
            )

    # files ------------------------------------------------------------------------------------------------------

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """Upload a shard in the background."""
        self.require_owner()
        if self._reservation is not None:
            self._reservation.renew()
        staged = self._scratch.path / staged_name(basename)
        publish.write_quickly(staged, pieces)
        self._uploads.send(basename, staged, partial(operations.unlink, staged))

    def temporary_path(self, name: str) -> Path:
        """A free path for a file whose final name is not known yet."""
        self.require_owner()
        return self._scratch.path / f"~{name}"

    def put_sidecar(self, staged: Path, sidecar: Sidecar) -> None:
        """Upload the finished file `staged`, which stays where it is until `close`, as this side-car.

        That happens in `put_index`, after the reservation names the side-cars. An object of this name, which is the
        hash of the contents, is replaced, as it may be damaged.
        """
        self._sidecars[sidecar_name(sidecar)] = staged

    # the end ----------------------------------------------------------------------------------------------------

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Publish all uploaded files as a snapshot and return its id.

        RemoteError of reason "changed", without any change, if another snapshot was published since `base`.
        """
        self.require_owner()
        current = self._current
        assert if_match == (current and current.id)
        name = snapshot_id(data)
        parse_index(data)
        self._uploads.wait()
        if current is not None and current.id == name:
            return name
        if self._reservation is not None:
            self._reservation.announce(name, self._sidecars)
        for key, staged in self._sidecars.items():
            self._uploads.attempted.append(key)
            self.store.put(key, staged)
        if current is not None:  # keeps a foreign dataset's index readable under its id
            self._keep(current.id, current.data)
        self._keep(name, data)
        self._replace_index(name, data)
        return name

    def _keep(self, name: str, data: bytes) -> None:
        key = kept_key(name)
        if key not in self._old_keys:
            self._uploads.attempted.append(key)
            self.store.put(key, data)

    def _replace_index(self, name: str, data: bytes) -> None:
        current = self._current
        if not self._conditional:
            now = read_current(self.store)
            if (now and now.id) != (current and current.id):
                raise self._lost(now)
        self._may_be_published = True
        try:
            if self._conditional:
                put_if(self.store, INDEX, data, current.etag if current else None)
            else:
                self.store.put(INDEX, data)
        except RemoteError as error:
            if error.reason == "changed":
                now = read_current(self.store)
                if now is None or now.id != name:
                    self._may_be_published = False
                    raise self._lost(now) from error
                return
            self._may_be_published = error.reason == "network"
            if self._may_be_published:
                error.hint = f"whether {name} was published is unknown: `mx8shards log {self.store.url}` tells"
            raise

    def _lost(self, now: RemoteIndex | None) -> RemoteError:
        expected = self._current.id if self._current else "none"
        found = now.id if now else "none"
        return RemoteError(
            f"expected the current snapshot to be {expected}, got {found}: another writer was quicker, and nothing was "
            "published",
            subject=f"{self.store.url}/{INDEX}",
            reason="changed",
        )

    def close(self) -> None:
        """Remove the objects of a publication that did not succeed, and give the reservation back.

        If the store does not answer, both are left to the next writer or gc. This is only a warning: after an error,
        the user might append the published samples again.
        """
        if not self._open or os.getpid() != self._process:
            return
        self._open = False
        self._uploads.stop()
        try:
            if not self._may_be_published:
                self._remove_uploaded()
            self._release()
        except ShardsError as error:
            _logger.warning("uploaded objects are left to the next writer or gc: %s", error)
        finally:
            with contextlib.suppress(ShardsError):  # the next process that uploads removes it
                self._scratch.remove()

    def _remove_uploaded(self) -> None:
        """Remove what was uploaded, without the side-cars and the snapshot that other writers use or announce."""
        mine = set(self._uploads.attempted) - self._old_keys
        if any(key.startswith(f"{STATE}/") for key in mine):
            now = read_current(self.store)
            if now is not None:
                mine -= {*files_of(now.parse()), kept_key(now.id)}
            for each in find_reservations(self.store, self.store.list(PREFIX)):
                if self._reservation is None or each.reservation.writer != self._reservation.reservation.writer:
                    mine -= {*each.reservation.sidecars, kept_key(each.reservation.snapshot or "")}
        self.store.delete(sorted(mine))

    def _release(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.release()

    def __del__(self) -> None:
        if self._open and hasattr(self, "_uploads") and os.getpid() == self._process:
            message = f"{self.store.url}: never closed, so nothing was published; use `with Writer(…)` or finish()"
            _logger.warning(message)  # because Python hides a ResourceWarning by default
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


def _names_in(keys: Iterable[str], directory: str) -> set[str]:
    """The names of the files and directories in a directory."""
    return {key.removeprefix(directory).split("/")[0] for key in keys if key.startswith(directory)}


def _covers(reservation: Reservation, key: str) -> bool:
    """Whether an object may be one that the writer with this reservation has uploaded."""
    if key.startswith(f"{STATE}/"):
        return True
    if reservation.is_sync:
        return True
    name = key.removeprefix(reservation.directory)
    number = shard_number(name) if key.startswith(reservation.directory) else None
    return number is not None and number >= reservation.first
