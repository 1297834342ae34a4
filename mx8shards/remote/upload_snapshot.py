"""How does a snapshot of a local dataset go into a store (`sync` upwards)? Shards first, the index last.

A file that the remote index names with this size and hash is not sent again. After a failure or a kill, the uploaded
objects stay, with a reservation that names the snapshot: the next sync of this snapshot sends the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mx8shards.errors import DatasetExistsError
from mx8shards.format.entries import FileInfo
from mx8shards.format.index import Index
from mx8shards.remote.remote_snapshots import RemoteIndex, require_unchanged
from mx8shards.remote.reservations import (
    FoundReservation,
    HeldReservation,
    Reservation,
    replace_reservation,
    reservation_key,
    take,
)
from mx8shards.remote.store import Store
from mx8shards.remote.upload import RemotePublication
from mx8shards.remote.uploads import has_bytes_of
from mx8shards.remote.writer_start import Found, Start, list_objects, reserved_already, start
from mx8shards.shards.links import Link
from mx8shards.shards.local_files import check_hash, check_size, shard_name, shard_path
from mx8shards.shards.recovery import sidecar_name
from mx8shards.shards.shard import open_shard_file
from mx8shards.shards.sidecars import open_sidecar
from mx8shards.shards.snapshots import (
    INDEX,
    STATE,
    Snapshot,
    current_bytes,
    kept_path,
    load,
    read_index,
    sidecar_path,
    snapshot_id,
)


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """What is to be sent."""

    start: Start
    shards: list[FileInfo]

    @property
    def size_bytes(self) -> int:
        """The size of all shards to be sent."""
        return sum(info.size_bytes for info in self.shards)


def upload_snapshot(
    store: Store, snapshot: Snapshot, *, single_writer: bool, planned: Callable[[int], Callable[[int], object]]
) -> str:
    """Make a local snapshot the current one in a store.

    `planned` gets the number of bytes to send, and returns a function that is called with the number of bytes sent.
    DatasetExistsError, before anything is sent, unless the snapshot that is current there is an earlier one of this
    dataset.
    """
    with contextlib.closing(RemotePublication(store, single_writer=single_writer)) as publication:
        plan = _plan(store, snapshot, conditional=publication.conditional)
        publication.begin(plan.start, resumable=True)
        tick = planned(plan.size_bytes)
        for info in plan.shards:
            name, path = shard_name(snapshot, info), shard_path(snapshot, info)
            file = open_shard_file(path, name)
            check_size(file, info, name)
            check_hash(file, info, name)
            publication.put_file(info.basename, path, _ticking(tick, info.size_bytes))
        for sidecar in snapshot.index.sidecars:
            if sidecar_name(sidecar) not in plan.start.keys and open_sidecar(snapshot, sidecar) is not None:
                publication.put_sidecar(sidecar_path(snapshot.root, sidecar.blake3), sidecar)
        current = plan.start.current
        return publication.put_index(_index_bytes(snapshot), current.id if current else None)


def _ticking(tick: Callable[[int], object], size_bytes: int) -> Callable[[], object]:
    return lambda: tick(size_bytes)


def _index_bytes(snapshot: Snapshot) -> bytes:
    data = current_bytes(snapshot.root)
    if data is None or snapshot_id(data) != snapshot.id:
        data = read_index(kept_path(snapshot.root, snapshot.id))
    return data


def stored_files(index: Index) -> dict[str, FileInfo]:
    """The stored files of all shards of an index, by name."""
    stored = (index.entry(i).stored for i in range(index.shards))
    return {info.basename: info for info in stored}


# the plan ---------------------------------------------------------------------------------------------------------


def _plan(store: Store, snapshot: Snapshot, *, conditional: bool) -> UploadPlan:
    wanted = stored_files(snapshot.index)

    def reserve(found: Found) -> tuple[set[str], HeldReservation | None]:
        there = {each.key: each.size_bytes for each in found.listed}
        if found.current is not None:
            require_unchanged(store, found.current, there)
            _require_ancestor(store, snapshot, found.current)
        root = next((each for each in found.reservations if each.reservation.key == reservation_key("")), None)
        resumed = root is not None and root.reservation.kind == "sync" and root.reservation.snapshot == snapshot.id
        _require_no_others(store, snapshot, wanted, there, found.current, resumed=resumed)
        held = _reserve(store, snapshot, found.current, root) if conditional else None
        return wanted.keys() & there.keys(), held

    begun, known = start(store, reserve, conditional=conditional)
    # gc may have removed objects that no snapshot names before the reservation told it that this one will. Nothing is
    # removed from now on.
    there = {each.key for each in list_objects(store)} if begun.keys else set()
    begun = replace(begun, keys=begun.keys & there)
    return UploadPlan(begun, [info for name, info in wanted.items() if name not in known & there])


def _require_ancestor(store: Store, snapshot: Snapshot, current: RemoteIndex) -> None:
    """DatasetExistsError unless the remote snapshot is this one, or one that it was made from."""
    seen: set[str] = set()
    at: Snapshot | None = snapshot
    while at is not None and at.id not in seen:
        if current.id in (at.id, at.index.parent):
            return
        seen.add(at.id)
        parent = at.index.parent
        at = load(Link(snapshot.root, parent)) if parent and kept_path(snapshot.root, parent).exists() else None
    raise DatasetExistsError(
        subject=store.url,
        expected=f"a snapshot that {snapshot.root}@{snapshot.id} was made from, or no dataset",
        found=current.id,
        hint="mx8shards sync brings that one to another directory; or upload to another prefix",
    )


def _require_no_others(
    store: Store,
    snapshot: Snapshot,
    wanted: Mapping[str, FileInfo],
    there: Mapping[str, int],
    current: RemoteIndex | None,
    *,
    resumed: bool,
) -> None:
    """DatasetExistsError if objects have names of the snapshot's files and other bytes, or if there are others.

    Bytes are compared only where neither the remote index nor an interrupted sync of this snapshot tells.
    """
    is_current = current is not None and current.id == snapshot.id
    known = {} if current is None else stored_files(current.parse())
    for name in wanted.keys() & there.keys():
        if there[name] == wanted[name].size_bytes:
            if name in known:
                same = is_current or agree(known[name], wanted[name])
            else:
                same = resumed or has_bytes_of(store, name, shard_path(snapshot, wanted[name]))
            if same:
                continue
        raise DatasetExistsError(
            "another object has the name of one of the snapshot's files", subject=f"{store.url}/{name}"
        )
    others = [key for key in there.keys() - wanted.keys() if not key.startswith(f"{STATE}/")]
    if current is None and others:
        raise DatasetExistsError(
            subject=store.url, expected="no objects, or a dataset", found=f"{min(others)!r} and no {INDEX}"
        )


def agree(a: FileInfo, b: FileInfo) -> bool:
    """Whether two indices name the same contents: the sizes are equal, and a hash that both have."""
    common = a.hashes.keys() & b.hashes.keys()
    return a.size_bytes == b.size_bytes and bool(common) and all(a.hashes[name] == b.hashes[name] for name in common)


def _reserve(
    store: Store, snapshot: Snapshot, current: RemoteIndex | None, found: FoundReservation | None
) -> HeldReservation:
    """Reserve the names of the snapshot's files. An interrupted sync of this snapshot is taken over."""
    base = current.id if current else None
    wanted = Reservation("", 0, base, snapshot.id, tuple(map(sidecar_name, snapshot.index.sidecars)), kind="sync")
    if found is None:
        held = take(store, wanted)
    elif found.reservation.kind == "sync" and (found.is_dead or found.reservation.snapshot == snapshot.id):
        held = replace_reservation(store, wanted, found.etag)
    else:
        held = None
    if held is None:
        raise reserved_already(store, found)
    return held
