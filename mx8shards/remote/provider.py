"""RemoteFiles: how are the shards of a remote snapshot made local, each fetched by one job for all?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mx8shards.disk.files import read_bounded
from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError, RemoteError, ShardsError
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.remote import fetching, ledger
from mx8shards.remote.eviction import LimitedRoom
from mx8shards.remote.fetching import Claim, claimed
from mx8shards.remote.stamps import Stamps, stamp_of
from mx8shards.remote.store import Store
from mx8shards.shards.local_files import best_hash, shard_name, shard_path
from mx8shards.shards.providers import Cause, Eviction, Fetches, LocalFiles
from mx8shards.shards.snapshots import INDEX, STATE, Snapshot, kept_path, sidecar_path

_PARALLEL = 8
_OUTAGE = "outage.json"
_MOST_OUTAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class RemoteSettings:
    """How a mirror is used by one Dataset."""

    url: str
    deadline_s: float
    keep_zip: bool
    limit_bytes: int | None
    cache_dir: Path | None
    check: bool  # verify="shard"


@dataclass
class _OfProcess:
    """What one process has: a forked child must not use its parent's store, and has none of its threads."""

    process: int
    store: Store | None = None
    closed: bool = False
    here: set[str] = field(default_factory=set)  # basenames that were provided in this process
    spent: list[tuple[float, float, int]] = field(default_factory=list)  # begin, end and bytes of each fetch


class RemoteFiles:
    """Shards that are fetched into a mirror. Thread-safe; pickled and forked copies connect anew."""

    def __init__(self, snapshot: Snapshot, settings: RemoteSettings) -> None:
        self.snapshot = snapshot
        self.settings = settings
        self._root = snapshot.root
        self._stamps = Stamps(self._root)
        self._local = LocalFiles(snapshot, settings.cache_dir, check=settings.check)
        self._own = _OfProcess(os.getpid())
        self._room: LimitedRoom | None = None
        if settings.limit_bytes is not None:
            self._room = LimitedRoom(
                snapshot,
                self._stamps,
                limit_bytes=settings.limit_bytes,
                keep_zip=settings.keep_zip,
                deadline_s=settings.deadline_s,
            )

    def __reduce__(self) -> tuple[object, ...]:
        return RemoteFiles, (self.snapshot, self.settings)

    # the provider -----------------------------------------------------------------------------------------------

    @property
    def all_here(self) -> bool:
        """Whether all shards were provided in this process, from a mirror that keeps them all."""
        return self.settings.limit_bytes is None and len(self._of_process.here) == self.snapshot.index.shards

    @property
    def parallel(self) -> int | None:
        """The number of shards to fetch concurrently."""
        return _PARALLEL

    @property
    def eviction(self) -> Eviction | None:
        """The limit of the mirror, if it has one."""
        return self._room

    def is_copy(self, entry: Entry) -> bool:
        """True: each file of a mirror can be fetched again."""
        return True

    def awaits(self, entry: Entry) -> Cause | None:
        """The cause "network" unless the file is here and verified; "unpack" if only its compressed file is."""
        found = self._verified(entry)
        if found is None:
            return "network"
        return self._local.awaits(entry) if found is entry.zip else None

    def provide(self, entry: Entry) -> Path:
        """The shard's file in the mirror: there and verified, or fetched now."""
        found = self._verified(entry) or self._fetched(entry)
        path = self._local.provide(entry) if found is entry.zip else shard_path(self.snapshot, found)
        self._of_process.here.add(entry.raw.basename)
        return path

    def provide_sidecar(self, sidecar: Sidecar) -> None:
        """Fetch a side-car unless it is here. One that is missing in the store is left out: it is optional."""
        target = sidecar_path(self._root, sidecar.blake3)
        if target.exists():
            return
        key = target.relative_to(self._root).as_posix()
        info = FileInfo(key, sidecar.size_bytes, {"blake3": sidecar.blake3})
        with self._claim(info) as claim:
            if target.exists():
                return
            try:
                path = fetching.fetch(self._store, info, claim, f"{self.settings.url}/{key}")
            except RemoteError as error:
                if error.reason != "missing":
                    raise
                return
            fetching.place(path, key, claim)

    def close(self) -> None:
        """End what this process is fetching, and the wait for what others fetch. A later call connects again."""
        own = self._of_process
        self._own = _OfProcess(own.process, here=own.here, spent=own.spent)
        own.closed = True
        if own.store is not None:
            own.store.close()

    # one shard --------------------------------------------------------------------------------------------------

    def _verified(self, entry: Entry) -> FileInfo | None:
        """The file of the shard that is here and verified: the raw one or, if it is to be kept, the compressed one."""
        if self._stamps.is_verified(entry.raw):
            return entry.raw
        if entry.zip is not None and self.settings.keep_zip and self._stamps.is_verified(entry.zip):
            return entry.zip
        return None

    def _fetched(self, entry: Entry) -> FileInfo:
        """Fetch and verify the shard's file, unless another job does so meanwhile."""
        with self._claim(entry.stored) as claim:
            found = self._verified(entry) or self._verified_now(entry, claim)
            if found is not None:
                return found
            return self._fetch(entry, claim)

    def _fetch(self, entry: Entry, claim: Claim) -> FileInfo:
        """Fetch the shard's file, unpack it unless it is to be kept compressed, and place it."""
        name = shard_name(self.snapshot, entry.stored)
        unpacks = entry.zip is not None and not self.settings.keep_zip
        wanted = entry.raw if unpacks else entry.stored
        with self._entered(entry, wanted, entry.stored.size_bytes if unpacks else 0):
            path, etag = self._stored_file(entry, claim, name)
            if unpacks:
                path = fetching.unpack(entry, path, claim, name)
            stamp = fetching.place(path, wanted.basename, claim)
            self._stamps.stamp(wanted, stamp, claim.private, etag)
        return wanted

    @contextmanager
    def _entered(self, entry: Entry, wanted: FileInfo, more_bytes: int) -> Iterator[None]:
        """Enter a file into the mirror's ledger, if there is one, while it is fetched; `more_bytes` are temporary."""
        room = self._room
        if room is None:
            yield
            if ledger.is_kept(self._root):
                ledger.enter(self._root, wanted.basename, wanted.size_bytes, self.settings.deadline_s)
            return
        room.reserve(entry.raw.basename, wanted.basename, wanted.size_bytes + more_bytes)
        try:
            yield
        except BaseException:
            room.settle(wanted.basename, 0)
            raise
        if more_bytes:
            room.settle(wanted.basename, wanted.size_bytes)

    def _stored_file(self, entry: Entry, claim: Claim, name: str) -> tuple[Path, str]:
        """A verified copy of the stored file, and the ETag of its object if the index has no hash of it."""
        if entry.zip is not None and self._stamps.is_verified(entry.zip):
            return shard_path(self.snapshot, entry.zip), ""
        etag = ""
        begun = time.monotonic()
        try:
            if best_hash(entry.stored) is None:
                found = self._store.head(entry.stored.basename)
                etag = found.etag if found is not None else ""
            path = fetching.fetch(self._store, entry.stored, claim, name)
        except RemoteError as error:
            if error.reason == "network":
                self._note_outage(error, claim)
            raise self._missing(entry, error) if error.reason == "missing" else error from error.__cause__
        self._of_process.spent.append((begun, time.monotonic(), entry.stored.size_bytes))
        return path, etag

    def _verified_now(self, entry: Entry, claim: Claim) -> FileInfo | None:
        """Verify a file that is here without a valid stamp, such as one that somebody copied here; None if it fails."""
        kept = entry.zip if entry.zip is not None and self.settings.keep_zip else None
        for info in filter(None, (entry.raw, kept)):
            if best_hash(info) is None:
                continue
            path = shard_path(self.snapshot, info)
            with suppress(FormatError, IntegrityError, OSError):
                stamp = fetching.check_file(path, info, info.basename)
                if stamp == stamp_of(path.lstat()):
                    self._stamps.stamp(info, stamp, claim.private)
                    return info
        return None

    def _missing(self, entry: Entry, error: RemoteError) -> ShardsError:
        """The error for a shard that the store does not have: the shard is missing, or the whole snapshot is gone."""
        name = self.snapshot.id
        kept = kept_path(Path(), name).as_posix()
        if self._store.head(kept) is None and self._store.head(INDEX) is None:
            hint = "its shards that are here already can still be read"
            subject = f"{self.settings.url}@{name}"
            return RemoteError("the snapshot was removed", subject=subject, hint=hint, reason="missing")
        where = f"{self.settings.url}/{entry.stored.basename}"
        return DatasetNotFoundError("the index names this shard, but there is no such object", subject=where)

    # the store, and other jobs ----------------------------------------------------------------------------------

    @property
    def _of_process(self) -> _OfProcess:
        if self._own.process != os.getpid():
            self._own = _OfProcess(os.getpid())
        return self._own

    @property
    def _store(self) -> Store:
        own = self._of_process
        if own.store is None:
            own.store = connect(self.settings.url, self.settings.deadline_s)
        return own.store

    @contextmanager
    def _claim(self, info: FileInfo) -> Iterator[Claim]:
        """The claim on a file. RemoteError if another job has it until the deadline, or gave up on the store."""
        begun, own = time.time(), self._of_process
        try:
            give_up = self._has_failed(begun, own)
            with claimed(self._root, info.basename, self.settings.deadline_s, give_up) as claim:
                outage = self._outage_since(begun)  # of the job that had the claim before
                if outage is not None:
                    raise outage
                yield claim
        except BlockingIOError:
            if own.closed:
                raise RemoteError("the dataset was closed", subject=self.settings.url) from None
            outage = self._outage_since(begun)
            if outage is None:
                waited = f"another process fetches it and has not finished after {time.time() - begun:.0f} s"
                outage = RemoteError(waited, subject=f"{self.settings.url}/{info.basename}")
            raise outage from None

    def _has_failed(self, begun: float, own: _OfProcess) -> Callable[[], bool]:
        return lambda: own.closed or self._outage_since(begun) is not None

    @property
    def fetched(self) -> Fetches:
        """What this process has fetched so far."""
        total, busy_s, until = 0, 0.0, 0.0
        spent = sorted(self._of_process.spent)
        for begin, end, size in spent:
            total += size
            busy_s += max(0.0, end - max(begin, until))
            until = max(until, end)
        return Fetches(len(spent), total, busy_s)

    def _note_outage(self, error: RemoteError, claim: Claim) -> None:
        """Tell other jobs on this mirror that the store does not answer, so that they do not wait as long again."""
        with suppress(ShardsError, OSError):
            draft = claim.draft()
            text = json.dumps({"at": time.time(), "url": self.settings.url, "message": error.message})
            fetching.write_note(draft, self._root / STATE / _OUTAGE, text)

    def _outage_since(self, begun: float) -> RemoteError | None:
        """The failure of another job that gave up on the store after this time, if one did."""
        with suppress(OSError, ShardsError, ValueError, TypeError, KeyError):
            found = json.loads(read_bounded(self._root / STATE / _OUTAGE, _MOST_OUTAGE_BYTES, follow=False))
            if found["url"] == self.settings.url and begun <= found["at"] <= time.time():
                return RemoteError(str(found["message"]), subject=self.settings.url, hint="seen by another process")
        return None


def connect(url: str, deadline_s: float) -> Store:
    """Open the store of a URL."""
    from mx8shards.remote.open_store import open_store

    return open_store(url, deadline_s=deadline_s)
