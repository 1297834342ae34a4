"""Which names in a remote dataset has which writer reserved, and has that writer died?

    .mx8shards/writers/root.json     the reservation of names without a directory (shard.00000.mds, …)
    .mx8shards/writers/g0001.json    the reservation of the names in that directory
    .mx8shards/writers/gc.json       gc runs: no writer may begin

A writer reserves a directory, unless it is reserved already, before its first shard, and removes the reservation after
the index. Writers that have reserved different directories upload at the same time and never overwrite each other's
shards; the conditional put of the index decides who publishes. A reservation is renewed every hour. Its writer has
surely died if it was a process of this machine that has ended; a reservation that nobody renewed for seven days counts
as abandoned.

Whoever takes over a reservation replaces it on condition of its ETag. A writer must announce its snapshot, on the same
condition, before it publishes. So a writer whose unannounced reservation was replaced can no longer publish, even if it
is alive. One that has announced may have sent the put of the index already: see `leftovers`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from mx8shards.errors import FormatError, RemoteError
from mx8shards.format.basename import is_basename
from mx8shards.format.jsontext import SNAPSHOT_ID
from mx8shards.remote.store import Listed, Store
from mx8shards.shards.recovery import SIDECAR
from mx8shards.shards.snapshots import STATE
from mx8shards.shards.writer_base import shard_number

PREFIX = f"{STATE}/writers/"
RENEW_S = 3600.0
ABANDONED_S = 7 * 24 * 3600.0
# A request that a process sent before it ended has been answered, or its connection is gone: the kernel gives up the
# connections of an ended process after 100 s at most.
LANDED_S = 300.0
# gc renews its reservation before each request to delete, which its deadline ends after 300 s. S3 refuses requests if
# the clock is wrong by more than 15 minutes, so the times of two machines and of the store agree that well.
GC_LEASE_S = 3600.0

_MOST_BYTES = 1 << 20
_ROOT = "root"


# Which names are reserved: of a Writer, shard.N.mds in the directory, N from `first`; of a merge, those in directories
# of parts p0000, p0001, … from number `first`; of a sync, all names; of a gc, none.
Kind = Literal["writer", "merge", "sync", "gc"]
GC_DIRECTORY = "gc/"

_PART = re.compile(r"p(\d{4,})/.")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, so that another one on the same machine can tell whether it still runs."""

    machine: str = ""  # a hash of the boot id and the namespace of process ids; "" where these are not known
    number: int = 0
    started: str = ""

    @classmethod
    def this(cls) -> Process:
        """The process that calls this."""
        return cls(_machine(), os.getpid(), _started(os.getpid()))

    @property
    def has_ended(self) -> bool:
        """Whether it surely does not run any more: it was on this machine, since its last start.

        /proc may hide the processes of other users, so that a missing file there proves nothing by itself. The kernel's
        answer to a signal tells whether there is a process of this number; only ESRCH says that there is none.
        """
        if not (self.machine and self.started and self.number > 0) or self.machine != _machine():
            return False
        now = _started(self.number)
        if now:
            return now != self.started  # another process has got its number, or it is a zombie
        try:
            os.kill(self.number, 0)
        except ProcessLookupError:
            return True
        except OSError:  # EPERM: it runs, and belongs to another user
            return False
        return False


@dataclass(frozen=True, slots=True)
class Reservation:
    """One writer's reservation of the shard names in a directory of a remote dataset."""

    directory: str  # "", or such as "g0001/"
    first: int  # the number of its first shard
    base: str | None  # the snapshot that was current when it began
    snapshot: str | None = None  # the snapshot that it is about to publish, or whose files a sync uploads
    sidecars: tuple[str, ...] = ()  # the keys of the side-cars of that snapshot
    renewals: int = 0  # so that each renewal gives the object another ETag
    kind: Kind = "writer"
    process: Process = field(default_factory=Process.this)
    writer: str = field(default_factory=lambda: uuid.uuid4().hex)
    begun: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    renewed_s: float = field(default_factory=time.time)  # when it was put, by the clock of the writer's machine

    def covers(self, key: str) -> bool:
        """Whether an object may be one that the writer has uploaded."""
        if self.kind in ("sync", "gc"):
            return self.kind == "sync"
        if self.kind == "merge":
            part = _PART.match(key)
            return part is not None and int(part[1]) >= self.first
        number = shard_number(key.removeprefix(self.directory)) if key.startswith(self.directory) else None
        return number is not None and number >= self.first

    @property
    def key(self) -> str:
        """The key of its object."""
        return reservation_key(self.directory)

    def to_bytes(self) -> bytes:
        """The contents of its object."""
        return json.dumps(asdict(self)).encode()


def reservation_key(directory: str) -> str:
    """The key of the reservation of the names in a directory."""
    return f"{PREFIX}{directory.rstrip('/').replace('/', '~') or _ROOT}.json"


class HeldReservation:
    """A reservation that this process holds."""

    def __init__(self, store: Store, reservation: Reservation, etag: str) -> None:
        self.reservation = reservation
        self._store = store
        self._etag = etag
        self._lock = Lock()
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Show that the writer lives, if the last renewal is an hour ago. RemoteError if somebody took it over."""
        if time.monotonic() > self._renewed + RENEW_S:
            self._put(self.reservation)

    def announce(self, snapshot: str, sidecars: Iterable[str]) -> None:
        """Say which snapshot is about to be published. RemoteError if somebody took the reservation over."""
        self._put(replace(self.reservation, snapshot=snapshot, sidecars=tuple(sidecars)))

    def _put(self, reservation: Reservation) -> None:
        with self._lock:
            renewals = self.reservation.renewals + 1
            reservation = replace(reservation, renewals=renewals, renewed_s=time.time())
            try:
                self._etag = put_if(self._store, reservation.key, reservation.to_bytes(), self._etag)
            except RemoteError as error:
                if error.reason not in ("changed", "missing"):
                    raise
                raise self.taken_over() from error
            self.reservation = reservation
            self._renewed = time.monotonic()

    def taken_over(self, consequence: str = "") -> RemoteError:
        """The error where another process has the reservation, or has removed it, and perhaps what was uploaded."""
        message = "another process took this one for dead, and has its names now" + (consequence and f": {consequence}")
        return RemoteError(message, subject=f"{self._store.url}/{self.reservation.key}", reason="changed")

    @property
    def is_ours(self) -> bool:
        """Whether nobody has replaced or removed it: asks the store."""
        with self._lock:
            found = self._store.head(self.reservation.key)
            return found is not None and found.etag == self._etag

    def extend(self) -> None:
        """Show that the holder lives, now. RemoteError if somebody took the reservation over."""
        self._put(self.reservation)

    def release(self) -> None:
        """Remove the reservation, unless it is another process's by now."""
        if self.is_ours:
            self._store.delete([self.reservation.key])


def put_if(store: Store, key: str, data: bytes, etag: str | None) -> str:
    """Put an object if it still has the ETag (None: if there is none), and return its new ETag.

    A put whose answer was lost is sent again, and then finds its own bytes: that is success.
    """
    try:
        return store.put(key, data, if_match=etag, new=etag is None)
    except RemoteError as error:
        if error.reason != "changed":
            raise
        found = read_or_none(store, key, len(data))
        if found is None or found[0] != data:
            raise
        return found[1]


def read_or_none(store: Store, key: str, most: int) -> tuple[bytes, str] | None:
    """An object of at most `most` bytes and its ETag; None if it is missing or larger."""
    try:
        found = store.head(key)
        if found is None or found.size_bytes > most:
            return None
        read = store.read(key, most)
        return read.data, read.etag
    except RemoteError as error:
        if error.reason != "missing":
            raise
        return None


def take(store: Store, reservation: Reservation) -> HeldReservation | None:
    """Put a new reservation; None if its directory is reserved already."""
    return replace_reservation(store, reservation, None)


def replace_reservation(store: Store, reservation: Reservation, etag: str | None) -> HeldReservation | None:
    """Put a reservation in place of the one with this ETag; None if somebody else was quicker."""
    try:
        return HeldReservation(store, reservation, put_if(store, reservation.key, reservation.to_bytes(), etag))
    except RemoteError as error:
        if error.reason != "changed":
            raise
        return None


@dataclass(frozen=True, slots=True)
class FoundReservation:
    """A reservation in the store."""

    reservation: Reservation
    etag: str
    idle_s: float  # since it was put or renewed

    @property
    def is_dead(self) -> bool:
        """Whether its writer has ended, surely or because it did not renew the reservation for seven days."""
        return self.reservation.process.has_ended or self.is_abandoned

    @property
    def is_abandoned(self) -> bool:
        """Whether its writer did not renew it for seven days."""
        return self.idle_s > ABANDONED_S

    @property
    def has_landed(self) -> bool:
        """Whether its writer is dead, and so long that no request of it can still be under way."""
        ended = self.reservation.process.has_ended  # on this machine, so both times are of one clock
        settled = ended and time.time() - self.reservation.renewed_s > LANDED_S
        return settled or self.idle_s > (GC_LEASE_S if self.reservation.kind == "gc" else ABANDONED_S)


def find_reservations(store: Store, listed: Iterable[Listed]) -> list[FoundReservation]:
    """The reservations among the objects of a listing. One that was removed meanwhile is left out."""
    found = []
    for each in listed:
        if not (each.key.startswith(PREFIX) and each.key.endswith(".json")):
            continue
        read = read_or_none(store, each.key, _MOST_BYTES)
        if read is not None:
            reservation = _parse(read[0], f"{store.url}/{each.key}")
            if reservation.key == each.key:
                found.append(FoundReservation(reservation, read[1], time.time() - each.modified_s))
    return found


def find_gc(store: Store) -> FoundReservation | None:
    """The reservation of a gc, which may be running."""
    listed = store.head(reservation_key(GC_DIRECTORY))
    return next(iter(find_reservations(store, [listed] if listed else [])), None)


def _parse(data: bytes, subject: str) -> Reservation:
    try:
        values: dict[str, Any] = json.loads(data)
        process = Process(**values.pop("process"))
        reservation = Reservation(process=process, sidecars=tuple(map(str, values.pop("sidecars"))), **values)
        directory = reservation.directory.removesuffix("/")
        for snapshot in (reservation.base, reservation.snapshot):
            if snapshot is not None and not SNAPSHOT_ID.fullmatch(snapshot):
                raise ValueError("not a snapshot's id")
        if reservation.kind not in get_args(Kind):
            raise ValueError("not a kind of writer")
        numbers = type(reservation.first) is int and type(process.number) is int
        if not numbers or not 0 <= process.number < 1 << 31 or type(reservation.renewed_s) is not float:
            raise ValueError("not numbers")
        if directory and not is_basename(directory):
            raise ValueError("not a directory")
        if not all(map(SIDECAR.fullmatch, reservation.sidecars)):  # they are removed if the writer died
            raise ValueError("not a side-car's name")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = "written by a newer version, or damaged; remove it if no process uploads to this dataset"
        raise FormatError(f"not a writer's reservation: {error}", subject=subject, hint=hint) from error
    return reservation


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:16]
    except OSError:
        return ""


def _started(number: int) -> str:
    """When a process of this machine started, in clock ticks since the boot; "ended", or "" if /proc does not tell."""
    try:
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()
