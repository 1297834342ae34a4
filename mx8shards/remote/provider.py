"""RemoteFiles: how are the shards of a remote snapshot made local, each fetched by one job for all?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mx8shards.errors import FormatError, IntegrityError, RemoteError, ShardsError
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.file_blocks import BlockDigests
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.remote import fetching
from mx8shards.remote.block_reads import read_blocks
from mx8shards.remote.block_repair import Repaired, made_whole
from mx8shards.remote.eviction import Limit, Room
from mx8shards.remote.fetching import Claim, claimed
from mx8shards.remote.ledger import size_of
from mx8shards.remote.outage_notes import note_outage, outage_since
from mx8shards.remote.process_state import ProcessState
from mx8shards.remote.remote_snapshots import kept_key, read_current
from mx8shards.remote.stamps import Stamps, stamp_of
from mx8shards.remote.store import Store
from mx8shards.shards.local_files import best_hash, shard_name, shard_path
from mx8shards.shards.providers import Cause, Eviction, Fetches, LocalFiles
from mx8shards.shards.recovery import sidecar_file
from mx8shards.shards.snapshots import Snapshot

_PARALLEL = 8


@dataclass(frozen=True)
class RemoteSettings:
    """How a mirror is used by one Dataset."""

    url: str
    source: str  # the URL to fetch from: on the Hub, that of one commit
    deadline_s: float
    keep_zip: bool = False
    limit: Limit | None = None  # which other mirrors may share
    cache_dir: Path | None = None
    check: bool = False  # verify="shard"


class RemoteFiles:
    """Shards that are fetched into a mirror. Thread-safe; pickled and forked copies connect anew."""

    def __init__(self, snapshot: Snapshot, settings: RemoteSettings) -> None:
        self.snapshot = snapshot
        self.settings = settings
        self._root = snapshot.root
        self._stamps = Stamps(self._root)
        self._local = LocalFiles(snapshot, settings.cache_dir, check=settings.check)
        self._own = ProcessState(os.getpid())
        self._room = Room(
            snapshot,
            self._stamps,
            limit=settings.limit,
            keep_zip=settings.keep_zip,
            deadline_s=settings.deadline_s,
        )

    def __reduce__(self) -> tuple[object, ...]:
        return RemoteFiles, (self.snapshot, self.settings)

    # the provider -----------------------------------------------------------------------------------------------

    @property
    def all_here(self) -> bool:
        """Whether all shards were provided in this process, from a mirror that keeps them all."""
        return self.settings.limit is None and len(self._of_process.here) == self.snapshot.index.shards

    @property
    def parallel(self) -> int | None:
        """The number of shards to fetch concurrently."""
        return _PARALLEL

    @property
    def eviction(self) -> Eviction | None:
        """The room for shards in the mirror. Jobs with a limit evict shards that other jobs do not need soon."""
        return self._room

    def is_copy(self, entry: Entry) -> bool:
        """True: each file of a mirror can be fetched again."""
        return True

    def awaits(self, entry: Entry) -> Cause | None:
        """The cause "network" unless the file is here and verified; "unpack" if only its compressed file is."""
        found = self._verified(entry)
        if found is None:
            return "network"
        if found is not entry.zip:
            return None
        return "unpack" if self._keeps_copies else self._local.awaits(entry)

    def provide(self, entry: Entry, *, ahead: bool = False) -> Path:
        """The shard's file in the mirror: there and verified, or fetched now."""
        found = self._verified(entry)
        if found is None or (found is entry.zip and self._keeps_copies):
            found = self._fetched(entry, ahead=ahead)
        path = self._local.provide(entry) if found is entry.zip else shard_path(self.snapshot, found)
        self._of_process.here.add(entry.raw.basename)
        return path

    def provide_stored(self, entry: Entry) -> Path:
        """The shard's file as it is kept in the mirror: with `keep_zip`, the compressed one or the raw one."""
        return shard_path(self.snapshot, self._verified(entry) or self._fetched(entry, ahead=False))

    def evict(self, entry: Entry) -> None:
        """Remove the shard's files from the mirror. Open files and mappings of them stay valid."""
        with self._claim(entry.stored):
            self._room.remove(info.basename for info in filter(None, (entry.raw, entry.zip)))

    def provide_sidecar(self, sidecar: Sidecar) -> None:
        """Fetch a side-car unless it is here. One that is missing or denied is left out: it is optional."""
        info = sidecar_file(sidecar)
        target = self._root / info.basename
        if target.exists():
            return
        with self._claim(info) as claim:
            if not target.exists():
                self._fetch_sidecar(info, claim)

    def _fetch_sidecar(self, info: FileInfo, claim: Claim) -> bool:
        """Fetch a side-car, and return whether the store has it."""
        try:
            path = fetching.fetch(self._store, info, claim, f"{self.settings.url}/{info.basename}")
        except RemoteError as error:
            if error.reason not in ("missing", "denied"):  # S3 denies access where a reader may not list
                raise
            return False
        fetching.place(path, info.basename, claim)
        return True

    def read_blocks(self, entry: Entry, digests: BlockDigests, blocks: Sequence[int]) -> list[memoryview]:
        """Blocks of a shard that is not made local: see BlockReader."""
        begun, own = time.monotonic(), self._of_process
        try:
            found = read_blocks(self._store, entry.stored, digests, blocks, own.etags)
        except (IntegrityError, RemoteError) as error:
            if isinstance(error, IntegrityError) or error.reason in ("missing", "changed"):
                self._require_snapshot(error)
            raise
        own.note_part(begun, time.monotonic(), sum(map(len, found)))
        return found

    def close(self) -> None:
        """End what this process is fetching, and the wait for what others fetch. A later call connects again."""
        own = self._of_process
        self._own = ProcessState(own.process, here=own.here, spent=own.spent, in_parts=own.in_parts)
        with own.lock:
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

    @property
    def _keeps_copies(self) -> bool:
        """Whether the unpacked copies of kept compressed shards are in the mirror, too, so that the limit holds them.

        Without a limit they are in `cache_dir`, where the least recently used ones leave.
        """
        return self.settings.keep_zip and self.settings.limit is not None

    def _fetched(self, entry: Entry, *, ahead: bool) -> FileInfo:
        """Fetch and verify the shard's file, unless another job does so meanwhile."""
        with self._claim(entry.stored) as claim:
            found = self._verified(entry) or self._verified_now(entry, claim)
            if found is None or (found is entry.zip and self._keeps_copies):
                unpacks = entry.zip is not None and (self._keeps_copies or not self.settings.keep_zip)
                found = entry.raw if unpacks else entry.stored
                self._fetch(entry, found, claim, ahead=ahead)
            return found

    def _fetch(self, entry: Entry, wanted: FileInfo, claim: Claim, *, ahead: bool = False) -> None:
        """Fetch the stored file of a shard, unpack it if the raw file is wanted, and place what is to be kept."""
        name = shard_name(self.snapshot, entry.stored)
        with self._entered(self._sizes_of(entry, wanted), claim, ahead=ahead):
            try:
                path = self._stored_file(entry, claim, name, ahead=ahead)
                if wanted is not entry.stored:
                    if self._keeps_copies and not self._is_stored_here(entry):
                        self._place(path, entry.stored, claim)
                        path = shard_path(self.snapshot, entry.stored)
                    path = fetching.unpack(entry, path, claim, name)
            except (FormatError, IntegrityError) as error:
                self._require_snapshot(error)
                raise
            self._place(path, wanted, claim)

    def _sizes_of(self, entry: Entry, wanted: FileInfo) -> dict[str, int]:
        """The bytes in the mirror of each file of a shard, while its stored file is fetched and unpacked."""
        sizes = {wanted.basename: wanted.size_bytes}
        if wanted is entry.stored:
            return sizes
        if self._keeps_copies or self._is_stored_here(entry):
            return {**sizes, entry.stored.basename: entry.stored.size_bytes}
        return {wanted.basename: wanted.size_bytes + entry.stored.size_bytes}  # the stored file is temporary

    def _is_stored_here(self, entry: Entry) -> bool:
        """Whether the compressed file of a shard is here and verified."""
        return entry.zip is not None and self._stamps.is_verified(entry.zip)

    def _place(self, path: Path, wanted: FileInfo, claim: Claim) -> None:
        stamp = fetching.place(path, wanted.basename, claim)
        self._stamps.stamp(wanted, stamp, claim.private)

    def repair(self, entry: Entry, damaged: FileInfo, digests: BlockDigests | None) -> Repaired | None:
        """Replace a shard's raw or compressed file if it is damaged or missing; None if it is intact.

        With the digests of its blocks, only the damaged blocks are fetched where that is possible.
        """
        path, name = shard_path(self.snapshot, damaged), shard_name(self.snapshot, damaged)
        with self._claim(entry.stored) as claim:
            self._stamps.forget(damaged.basename)
            if self._verified_as(damaged, claim):
                return None
            whole = None if digests is None else made_whole(self._store, damaged, path, digests, claim, name)
            if digests is None or whole is None:
                self._fetch(entry, damaged, claim)
                return Repaired(damaged.basename, None)
            with self._entered({damaged.basename: damaged.size_bytes}, claim):
                self._place(whole.path, damaged, claim)
            return Repaired(damaged.basename, whole.blocks, digests.block_bytes)

    def repair_sidecar(self, sidecar: Sidecar) -> Repaired | None:
        """Fetch a side-car unless an intact one is here; None then, or if the store has none either."""
        info = sidecar_file(sidecar)
        with self._claim(info) as claim:
            with suppress(FormatError, IntegrityError, OSError):
                fetching.check_file(self._root / info.basename, info, info.basename)
                return None
            return Repaired(info.basename, None) if self._fetch_sidecar(info, claim) else None

    @contextmanager
    def _entered(self, sizes: dict[str, int], claim: Claim, *, ahead: bool = False) -> Iterator[None]:
        """Enter files of a shard into the mirror's ledger before it is fetched, with the most bytes that they take.

        So no file is in the mirror uncounted, even if this job is killed at any moment.
        """
        own = self._of_process
        self._room.reserve(sizes, claim.name, ahead=ahead, ended=lambda: own.closed)
        try:
            yield
        finally:
            for name, size_bytes in sizes.items():
                if size_of(self._root / name) != size_bytes:
                    self._room.settle(name)

    def _stored_file(self, entry: Entry, claim: Claim, name: str, *, ahead: bool) -> Path:
        """A verified copy of the stored file."""
        if self._is_stored_here(entry):
            return shard_path(self.snapshot, entry.stored)
        begun = time.monotonic()
        try:
            first = not ahead and not self._of_process.spent  # a first batch waits for it
            path = fetching.fetch(self._store, entry.stored, claim, name, in_ranges=first)
        except RemoteError as error:
            if error.reason == "network":
                self._note_outage(error, claim, time.monotonic() - begun)
            elif error.reason in ("missing", "changed"):
                self._require_snapshot(error)
            if error.reason == "missing":
                message = "the index names this shard, but there is no such object"
                where = f"{self.settings.url}/{entry.stored.basename}"
                raise RemoteError(message, subject=where, reason="missing") from error
            raise
        self._of_process.spent.append((begun, time.monotonic(), entry.stored.size_bytes))
        return path

    def _verified_now(self, entry: Entry, claim: Claim) -> FileInfo | None:
        """Verify a file that is here without a valid stamp, such as one that somebody copied here; None if it fails."""
        kept = entry.zip if entry.zip is not None and self.settings.keep_zip else None
        return next((info for info in filter(None, (entry.raw, kept)) if self._verified_as(info, claim)), None)

    def _verified_as(self, info: FileInfo, claim: Claim) -> bool:
        """Whether the file is here and has the hash that the index demands; then it is stamped."""
        if best_hash(info) is None:
            return False
        path = shard_path(self.snapshot, info)
        with suppress(FormatError, IntegrityError, OSError):
            stamp = fetching.check_file(path, info, info.basename)
            if stamp == stamp_of(path.lstat()):
                self._room.settle(info.basename)  # somebody may have copied it here
                self._stamps.stamp(info, stamp, claim.private)
                return True
        return False

    def _require_snapshot(self, cause: ShardsError) -> None:
        """RemoteError if the store no longer has the snapshot, so that other objects may have taken its names."""
        try:
            if self._store.head(kept_key(self.snapshot.id)) is not None:
                return
        except RemoteError as error:
            if error.reason != "denied":  # S3 denies access to a missing object where a reader may not list
                raise
        current = read_current(self._store)
        if current is None or current.id != self.snapshot.id:
            hint = "its shards that are here can still be read; the URL with @refresh opens what is published now"
            subject = f"{self.settings.url}@{self.snapshot.id}"
            raise RemoteError("the snapshot was removed", subject=subject, hint=hint, reason="missing") from cause

    # the store, and other jobs ----------------------------------------------------------------------------------

    @property
    def _of_process(self) -> ProcessState:
        if self._own.process != os.getpid():
            self._own = ProcessState(os.getpid())
        return self._own

    @property
    def _store(self) -> Store:
        own = self._of_process
        with own.lock:
            if own.closed:
                raise self._closed()
            if own.store is None:
                own.store = connect(self.settings.source, self.settings.deadline_s)
            return own.store

    def _closed(self) -> RemoteError:
        return RemoteError("the dataset was closed", subject=self.settings.url)

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
                raise self._closed() from None
            outage = self._outage_since(begun)
            if outage is None:
                waited = f"another process fetches it and has not finished after {time.time() - begun:.0f} s"
                outage = RemoteError(waited, subject=f"{self.settings.url}/{info.basename}")
            raise outage from None

    def _has_failed(self, begun: float, own: ProcessState) -> Callable[[], bool]:
        return lambda: own.closed or self._outage_since(begun) is not None

    @property
    def fetched(self) -> Fetches:
        """What this process has fetched so far."""
        own = self._of_process
        (total, busy_s, _), until = own.in_parts, 0.0
        for begin, end, size in sorted(own.spent):
            total += size
            busy_s += max(0.0, end - max(begin, until))
            until = max(until, end)
        return Fetches(len(own.spent), total, busy_s)

    def _note_outage(self, error: RemoteError, claim: Claim, spent_s: float) -> None:
        """Tell other jobs on this mirror that the store does not answer, so that they do not wait as long again."""
        lasted_s = min(spent_s, self.settings.deadline_s)
        with suppress(ShardsError, OSError):
            note_outage(self._root, claim.draft(), self._store.address, lasted_s, error.message)

    def _outage_since(self, begun: float) -> RemoteError | None:
        """The failure of another job that gave up on the store after this time, if one did."""
        message = outage_since(self._root, begun, self._store.address, self.settings.deadline_s)
        if message is None:
            return None
        return RemoteError(message, subject=self.settings.url, hint="seen by another process")


def connect(url: str, deadline_s: float) -> Store:
    """Open the store of a URL."""
    from mx8shards.remote.open_store import open_store

    return open_store(url, deadline_s=deadline_s)
