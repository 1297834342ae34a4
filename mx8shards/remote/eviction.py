"""Which shards leave a mirror with a limit? Those that all jobs on it need last.

A loader's order tells which shard is needed when, in this epoch and in the next. Evicting the shard whose next use is
farthest is optimal (Belady): with room for a part c of the dataset, an epoch fetches 1 - c of it. Evicting the least
recently used shards would fetch far more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mx8shards.disk import operations
from mx8shards.errors import DiskError, SettingError
from mx8shards.remote.ledger import Ledger, size_of
from mx8shards.remote.readers import NEVER, Readers, RunFile
from mx8shards.remote.stamps import Stamps
from mx8shards.shards.providers import NO_LIMIT, NoRoomYetError
from mx8shards.shards.snapshots import Snapshot

Ints = npt.NDArray[np.int64]

_PAUSE_S = 0.05


def sizes_here(snapshot: Snapshot, *, keep_zip: bool) -> Ints:
    """The bytes of each shard in a mirror with a limit: with `keep_zip`, of the compressed file and of its copy."""
    index = snapshot.index
    kept: Ints = np.where(index.compressed & keep_zip, index.zip.size_bytes, 0)
    return index.raw.size_bytes + kept


def require_room_for_one(snapshot: Snapshot, limit_bytes: int) -> None:
    """SettingError if the limit is smaller than a shard needs, which has both of its files while it is unpacked."""
    largest = int(sizes_here(snapshot, keep_zip=True).max(initial=0))
    if limit_bytes < largest:
        raise SettingError(
            subject="cache_limit",
            expected=f"at least {largest} bytes, for the largest shard",
            found=f"{limit_bytes}",
            hint="a Loader needs room for several shards, and names the number",
        )


class Room:
    """The room in a mirror for the shards of one snapshot: at most `limit_bytes`, of all jobs' shards together.

    Without a limit, it only tells other jobs on the mirror what is fetched and what is needed next.
    """

    def __init__(
        self, snapshot: Snapshot, stamps: Stamps, *, limit_bytes: int | None, keep_zip: bool, deadline_s: float
    ) -> None:
        self.limit_bytes = NO_LIMIT if limit_bytes is None else limit_bytes
        self.sizes: Ints = sizes_here(snapshot, keep_zip=keep_zip)
        self._snapshot = snapshot
        self._stamps = stamps
        self._keep_zip = keep_zip
        self._deadline_s = deadline_s
        self._process = os.getpid()
        self._begin()

    def _begin(self) -> None:
        self._ledger = Ledger(self._snapshot.root, counts=self.limit_bytes < NO_LIMIT)
        self._readers = Readers(self._snapshot.root, self._ledger)

    def _renew(self) -> None:
        """In a forked child, begin anew: it has the descriptors of its parent, and none of its runs."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._readers.close()
            self._begin()

    def follow(self, shard: Ints, begin: Ints, end: Ints) -> RunFile | None:
        """Begin a run that uses these shards at these order positions. Shards beyond the limit leave now.

        None without a limit, if this job may not write to the mirror.
        """
        self._renew()
        try:
            with self._ledger.locked(self._deadline_s):
                run = RunFile(self._snapshot.root, self._snapshot.id, self._keep_zip, (shard, begin, end))
                self._make_room("", 0, ahead=False)
        except DiskError:
            if self.limit_bytes < NO_LIMIT:
                raise
            return None
        return run

    def reserve(self, name: str, size_bytes: int, claim: str, *, ahead: bool) -> None:
        """Make room for a file, and enter it. The caller holds this claim.

        NoRoomYetError for a shard that is provided ahead if everything in the mirror is needed sooner. For another one,
        wait until a batch in flight is done with a shard; DiskError at the deadline.
        """
        self._renew()
        deadline = time.monotonic() + self._deadline_s
        while True:
            with self._ledger.locked(self._deadline_s):
                if self._make_room(name, size_bytes, ahead=ahead):
                    self._ledger.enter(name, size_bytes, claim)
                    return
            if ahead:
                raise NoRoomYetError("the cache has no room for a shard ahead", subject=name)
            if time.monotonic() > deadline:
                raise self._too_small(size_bytes)
            time.sleep(_PAUSE_S)

    def hold(self, name: str, claim: str) -> None:
        """Keep a file, if it is here, while the caller holds this claim."""
        self._renew()
        with self._ledger.locked(self._deadline_s):
            self._ledger.enter(name, size_of(self._snapshot.root / name), claim)

    def settle(self, name: str) -> None:
        """Enter the size that a file has in the mirror, 0 if it is not there. The caller holds its claim."""
        self._renew()
        with self._ledger.locked(self._deadline_s):
            self._ledger.enter_found(name)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of a shard. The caller holds its claim."""
        self._renew()
        with self._ledger.locked(self._deadline_s):
            for name in names:
                self._evict(name)

    def _make_room(self, name: str, size_bytes: int, *, ahead: bool) -> bool:
        """Remove files until this one fits; False if what may go is not enough.

        No shard of a batch in flight goes; for a shard that is provided ahead, only those that are needed later. Files
        that living jobs are making or checking stay. What a killed job has entered and not made goes like a file.
        """
        ledger = self._ledger
        mine = ledger.number(name)
        missing = ledger.total - int(ledger.sizes[mine]) + size_bytes - self.limit_bytes
        if missing <= 0:
            return True
        until, since = self._readers.next_uses()
        may_go = (ledger.sizes > 0) & (until > (until[mine] if ahead else 0))
        may_go[mine] = False
        may_go[ledger.being_made()] = False
        candidates = np.flatnonzero(may_go)
        if int(ledger.sizes[candidates].sum()) < missing:
            return False
        # Unpacking costs less than fetching, so what can be unpacked again goes first. Of those that nobody needs
        # again: first those that nobody has used, then the most recently used.
        recency = np.where(since == NEVER, -1, since)[candidates]
        costly = ~self._can_be_unpacked_again()[candidates]
        for number in candidates[np.lexsort((recency, -until[candidates], costly))].tolist():
            if missing <= 0:
                break
            missing -= int(ledger.sizes[number])
            self._evict(ledger.names[number])
        return True

    def _can_be_unpacked_again(self) -> npt.NDArray[np.bool_]:
        """For each name in the ledger: whether it is an unpacked file whose compressed one is here, too."""
        ledger, index = self._ledger, self._snapshot.index
        found = np.zeros(len(ledger.names), bool)
        if self._keep_zip:
            stored = {name: number for number, name in enumerate(ledger.names) if ledger.sizes[number]}
            pairs = zip(index.raw.basenames, index.zip.basenames, strict=True)
            found[[stored[raw] for raw, zipped in pairs if raw in stored and zipped in stored]] = True
        return found

    def _evict(self, name: str) -> None:
        """Remove a file. Open files and mappings of it stay valid."""
        operations.unlink(self._snapshot.root / name)
        self._stamps.forget(name)
        self._ledger.enter(name, 0, "")

    def _too_small(self, size_bytes: int) -> DiskError:
        enough = self.limit_bytes + size_bytes
        return DiskError(
            f"no shard can leave the cache: batches of this and other jobs need all {self._ledger.total} bytes in it",
            subject=str(self._snapshot.root),
            hint=f"cache_limit={enough} or more, or fewer shards in BlockShuffle",
        )
