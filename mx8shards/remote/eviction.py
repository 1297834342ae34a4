"""Which shards are evicted from a mirror with `cache_limit=`? Those that the jobs on it need last.

A loader's order tells which shard is needed when, in this epoch and in the next. Evicting the shard whose next use is
farthest is optimal (Belady): with room for a part c of the dataset, an epoch fetches 1 - c of it. Evicting the least
recently used shards would fetch far more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from mx8shards.disk import operations
from mx8shards.errors import DiskError, RemoteError, SettingError
from mx8shards.remote.ledger import Ledger
from mx8shards.remote.readers import NEVER, Readers, RunFile
from mx8shards.remote.stamps import Stamps
from mx8shards.shards.providers import NO_LIMIT, NoRoomYetError
from mx8shards.shards.snapshots import Snapshot

Ints = npt.NDArray[np.int64]

_PAUSE_S = 0.05

# A file that may be evicted: the number of its room, and its own number in that room's ledger; the positions until its
# next use and since its last one; whether it would have to be fetched again.
_FILE = np.dtype(
    [("room", "i8"), ("number", "i8"), ("bytes", "i8"), ("until", "i8"), ("recency", "i8"), ("fetched", "?")]
)


def sizes_here(snapshot: Snapshot, *, keep_zip: bool) -> Ints:
    """The bytes of each shard in a mirror with a limit: with `keep_zip`, of the compressed file and of its copy."""
    index = snapshot.index
    kept: Ints = np.where(index.compressed & keep_zip, index.zip.size_bytes, 0)
    return index.raw.size_bytes + kept


def require_room_for_one(snapshot: Snapshot, limit_bytes: int) -> None:
    """SettingError if the limit is smaller than a shard needs while it is unpacked, when it has both of its files."""
    largest = int(sizes_here(snapshot, keep_zip=True).max(initial=0))
    if limit_bytes < largest:
        raise SettingError(
            subject="cache_limit",
            expected=f"at least {largest} bytes, for the largest shard",
            found=f"{limit_bytes}",
            hint="a Loader needs room for several shards, and names the number",
        )


class Limit:
    """The most bytes of shards in one mirror or in several ones together.

    Args:
        size_bytes: The number of bytes.
    """

    def __init__(self, size_bytes: int) -> None:
        self.bytes = size_bytes
        self._rooms: WeakSet[Room] = WeakSet()

    def __reduce__(self) -> tuple[object, ...]:
        return Limit, (self.bytes,)  # its rooms are pickled too, and add themselves when they are loaded

    def add(self, room: Room) -> None:
        """Let this room share the limit."""
        self._rooms.add(room)

    @property
    def total_bytes(self) -> int:
        """The bytes of all shards, here or not, of the snapshots within the limit."""
        return sum(int(room.sizes.sum()) for room in self._rooms)

    def rooms(self, own: Room) -> list[Room]:
        """A room in each of the mirrors, in the order in which all jobs lock them; `own` in its mirror."""
        found = {room.root: room for room in self._rooms} | {own.root: own}
        return [found[root] for root in sorted(found)]


_NO_LIMIT = Limit(NO_LIMIT)


class Room:
    """The room in a mirror for the shards of one snapshot.

    A limit is for the shards of all jobs, in all mirrors that share it.

    Without one, it only tells other jobs on the mirror what is fetched and what is needed next.
    """

    def __init__(
        self, snapshot: Snapshot, stamps: Stamps, *, limit: Limit | None, keep_zip: bool, deadline_s: float
    ) -> None:
        self.sizes: Ints = sizes_here(snapshot, keep_zip=keep_zip)
        self._snapshot = snapshot
        self._stamps = stamps
        self._keep_zip = keep_zip
        self._deadline_s = deadline_s
        self._process = os.getpid()
        self._limit = _NO_LIMIT
        if limit is not None:
            self._limit = limit
            limit.add(self)
        self._begin()

    @property
    def root(self) -> Path:
        """The directory of the mirror."""
        return self._snapshot.root

    @property
    def limit_bytes(self) -> int:
        """The most bytes of shards to keep; NO_LIMIT for all."""
        return self._limit.bytes

    @property
    def shared_limit(self) -> Limit:
        """The limit, which rooms in other mirrors may share."""
        return self._limit

    @property
    def total_bytes(self) -> int:
        """The bytes of all shards that share the limit."""
        return max(self._limit.total_bytes, int(self.sizes.sum()))

    def _begin(self) -> None:
        self._ledger = Ledger(self.root, counts=self.limit_bytes < NO_LIMIT)
        self._readers = Readers(self.root, self._ledger)

    def _renew(self) -> None:
        """In a forked child, begin anew: it has the descriptors of its parent, and none of its runs."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._readers.close()
            self._begin()

    @contextmanager
    def _locked(self) -> Iterator[list[Room]]:
        """Hold the ledgers of all mirrors that share the limit; the rooms in these."""
        rooms = self._limit.rooms(self)
        with ExitStack() as held:
            for room in rooms:
                room._renew()
                held.enter_context(room._ledger.locked(self._deadline_s))
            yield rooms

    def follow(self, shard: Ints, begin: Ints, end: Ints, *, trims: bool = True) -> RunFile | None:
        """Begin a run that uses these shards at these order positions.

        If it `trims`, shards beyond the limit leave now.

        None without a limit, if this job may not write to the mirror.
        """
        self._renew()
        try:
            with self._ledger.locked(self._deadline_s):
                run = RunFile(self.root, self._snapshot.id, self._keep_zip, (shard, begin, end))
        except DiskError:
            if self.limit_bytes < NO_LIMIT:
                raise
            return None
        if trims and self.limit_bytes < NO_LIMIT:
            with self._locked() as rooms:
                self._make_room(rooms, {}, ahead=False)
        return run

    def reserve(
        self, sizes: Mapping[str, int], claim: str, *, ahead: bool, ended: Callable[[], bool] = lambda: False
    ) -> None:
        """Make room for the files of one shard, all at once, and enter them. The caller holds this claim.

        NoRoomYetError for a shard that is provided ahead if everything in the mirror is needed sooner. For another one,
        wait until a batch in flight is done with a shard, or nobody wants it any more (`ended`); DiskError at the
        deadline. SettingError if the files are larger than the limit.
        """
        name, size_bytes = next(iter(sizes)), sum(sizes.values())
        if size_bytes > self.limit_bytes:
            expected = f"at least {size_bytes} bytes, which {name} needs"
            raise SettingError(subject="cache_limit", expected=expected, found=f"{self.limit_bytes}")
        deadline = time.monotonic() + self._deadline_s
        while True:
            with self._locked() as rooms:
                if self._make_room(rooms, sizes, ahead=ahead):
                    for each, each_bytes in sizes.items():
                        self._ledger.enter(each, each_bytes, claim)
                    return
                held = sum(room._ledger.total for room in rooms)
                for each in sizes:  # else jobs that each keep a compressed shard would wait for each other's room
                    self._ledger.let_go(each)
            if ahead:
                raise NoRoomYetError("the cache has no room for a shard ahead", subject=name)
            if ended():
                raise RemoteError("the dataset was closed while a shard waited for room", subject=name)
            if time.monotonic() > deadline:
                raise self._too_small(size_bytes, held)
            time.sleep(_PAUSE_S)

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

    def _make_room(self, rooms: Sequence[Room], sizes: Mapping[str, int], *, ahead: bool) -> bool:
        """Evict files until these fit; False if that is impossible.

        Shards of batches in flight stay. For a shard that is provided ahead, only shards needed later than it are
        evicted. Files that living jobs are making or checking stay. An entry of a killed job is treated like a file.
        """
        mine = [self._ledger.number(name) for name in sizes]
        total = sum(room._ledger.total for room in rooms)
        missing = total - int(self._ledger.sizes[mine].sum()) + sum(sizes.values()) - self.limit_bytes
        if missing <= 0:
            return True
        uses = [room._readers.next_uses() for room in rooms]
        beyond = int(uses[rooms.index(self)][0][mine].min()) if ahead else 0
        parts = [room._may_go(i, *uses[i], beyond) for i, room in enumerate(rooms)]
        files = np.concatenate(parts)
        files = files[(files["room"] != rooms.index(self)) | ~np.isin(files["number"], mine)]
        if int(files["bytes"].sum()) < missing:
            return False
        # Unpacking costs less than fetching, so what can be unpacked again goes first. Of those that nobody needs
        # again: first those that nobody has used, then the most recently used.
        for file in files[np.lexsort((files["recency"], -files["until"], files["fetched"]))]:
            if missing <= 0:
                break
            missing -= int(file["bytes"])
            room = rooms[file["room"]]
            room._evict(room._ledger.names[file["number"]])
        return True

    def _may_go(self, number: int, until: Ints, since: Ints, beyond: int) -> npt.NDArray[np.void]:
        """The files of this room (`number`) that are needed later than `beyond`, and that nobody makes or checks."""
        may_go = (self._ledger.sizes > 0) & (until > beyond)
        may_go[self._ledger.being_made()] = False
        numbers = np.flatnonzero(may_go)
        files = np.zeros(len(numbers), _FILE)
        files["room"], files["number"], files["bytes"] = number, numbers, self._ledger.sizes[numbers]
        files["until"] = until[numbers]
        files["recency"] = np.where(since == NEVER, -1, since)[numbers]
        files["fetched"] = ~self._can_be_unpacked_again()[numbers]
        return files

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
        operations.unlink(self.root / name)
        self._stamps.forget(name)
        self._ledger.enter(name, 0, "")

    def _too_small(self, size_bytes: int, held_bytes: int) -> DiskError:
        enough = self.limit_bytes + size_bytes
        return DiskError(
            f"no shard can leave the cache: batches of this and other jobs need all {held_bytes} bytes in it",
            subject=str(self.root),
            hint=f"cache_limit={enough} or more, or fewer shards at a time, as in a BlockShuffle of fewer shards",
        )
