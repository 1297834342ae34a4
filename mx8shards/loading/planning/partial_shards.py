"""Which blocks of shards that are not local are in memory? They are fetched as clips need them, within a limit.

A sparse view of clips needs little of each shard. Then only its offset table and the blocks around the clips are
fetched, each checked against its digest. A shard read so has an anonymous mapping of its whole size, of which only the
blocks that came take memory: kernels read it like the map of a file. Blocks that no batch in flight needs make room.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition, Lock
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError, IntegrityError
from mx8shards.format.file_blocks import BLOCK_BYTES, BlockDigests
from mx8shards.format.shard_bytes import check_table, table_bytes
from mx8shards.loading.planning.block_table import Block, BlockTable
from mx8shards.loading.planning.shard_part import ShardPart, blocks_of, unit_bytes, units_of
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.providers import Cause

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]

_logger = logging.getLogger("mx8shards")

_BYTES_AT_ONCE = 4 << 20  # of blocks, of one call to the store …
_COPIES = 3  # … which are in memory so often meanwhile, with the gaps that one request reads
_BUFFERS_PART = 4  # of the memory is for that


class _Buffers:
    """Memory for blocks under way, which calls to the store share."""

    def __init__(self, size_bytes: int) -> None:
        self._most = self._free = size_bytes
        self._changed = Condition()

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        """Take the memory for some blocks: all of it if they are larger."""
        size_bytes = min(size_bytes, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size_bytes)
            self._free -= size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free += size_bytes
                self._changed.notify_all()


class Lease:
    """Keeps blocks in memory for as long as it lives.

    It may end in any thread, within a garbage collection, while any lock is held. So its end only appends to a queue.
    """

    __slots__ = ("_blocks", "_returned")

    def __init__(self, blocks: list[Block], returned: deque[list[Block]]) -> None:
        self._blocks, self._returned = blocks, returned

    def __del__(self) -> None:
        self._returned.append(self._blocks)


class PartsTooLargeError(Exception):
    """The blocks that a batch needs of these shards do not fit into memory."""

    def __init__(self, shards: Sequence[int]) -> None:
        super().__init__(shards)
        self.shards = shards


class Spans(NamedTuple):
    """Spans in shards: their numbers, and where each span begins and ends."""

    shards: Ids
    begins: Ids
    ends: Ids


class Needed(NamedTuple):
    """A lease of blocks, and the units that have to be fetched for it, by shard.

    `awaits_others`: others are under way, for an earlier lease. If they fail, they have to be fetched, too.
    """

    lease: Lease
    missing: dict[int, list[int]]
    awaits_others: bool


class Fetched(NamedTuple):
    """A lease of blocks, and the errors of shards whose blocks could not be fetched."""

    lease: Lease
    errors: Mapping[int, Exception]


class Fetch(Protocol):
    """Fetches what batches need of shards that are read in parts."""

    def __call__(self, spans: Spans, /) -> Fetched:
        """Fetch these spans, and wait for them. PartsTooLargeError if they cannot fit into memory."""


class Provided(Protocol):
    """Shards that are made readable before batches need them: whole ones, or the heads of those read in parts."""

    @property
    def all_here(self) -> bool:
        """Whether all can be read without waiting."""

    def awaits(self, i: int, /) -> Cause | None:
        """Why shard `i` cannot be read yet; None if it can."""

    def provide(self, i: int, /, *, ahead: bool = False) -> None:
        """Make shard `i` readable. Thread-safe."""

    def name(self, i: int, /) -> str:
        """The name of shard `i` in messages."""


class PartialShards:
    """The shards of a dataset, of which the `sparse` ones are read in parts where they are not local.

    `sparse` is None if there are none.

    `need` is called by one thread at a time; all else is thread-safe.
    """

    def __init__(self, shards: Shards, sparse: Bools | None = None, most_bytes: int = 0) -> None:
        self._shards = shards
        self.sparse = sparse
        self.most_bytes = 0 if sparse is None else most_bytes
        buffer_bytes = max(BLOCK_BYTES, self.most_bytes // _BUFFERS_PART // _COPIES)
        self._bytes_at_once = min(buffer_bytes, _BYTES_AT_ONCE)
        self._buffers = _Buffers(buffer_bytes)
        self._most = self.most_bytes - buffer_bytes * _COPIES  # bytes of blocks in memory
        self._parts: dict[int, ShardPart] = {}
        self._whole: set[int] = set()  # sparse shards that are local after all, in this epoch
        self._lock = Lock()
        self._table = BlockTable()
        self._returned: deque[list[Block]] = deque()
        self._undigested: set[str] = set()  # snapshots whose digests are damaged

    @property
    def are_possible(self) -> bool:
        """Whether some shards are read in parts if they are not local."""
        return self.sparse is not None

    def begin_epoch(self) -> None:
        """Ask again which shards are local."""
        self._whole.clear()
        with self._lock:
            self._take_back()
            local = {i for i in self._parts.keys() - self._table.in_use() if self._shards.awaits(i) is None}
            self._table.forget_shards(local)
            for i in local:
                del self._parts[i]

    def read_whole(self, numbers: Iterable[int]) -> None:
        """Read these shards whole until the epoch ends."""
        self._whole.update(numbers)

    # whole shards, and heads ------------------------------------------------------------------------------------

    @property
    def all_here(self) -> bool:
        """Whether all shards are local."""
        return self._shards.all_here

    def name(self, i: int) -> str:
        """The name of shard `i` in messages."""
        return self._shards.name(i)

    def awaits(self, i: int) -> Cause | None:
        """Why shard `i` cannot be read yet; None if it is local, or if its offset table is here."""
        if i in self._parts and i not in self._whole:
            return None
        return self._shards.awaits(i)

    def provide(self, i: int, *, ahead: bool = False) -> None:
        """Make shard `i` readable: fetch its offset table if it is read in parts, otherwise make it local."""
        if not self._wants_part(i):
            self._shards.provide(i, ahead=ahead)
            return
        digests = self._digests(i)
        if digests is None:
            self._whole.add(i)
            self._shards.provide(i, ahead=ahead)
            return
        self._open(i, digests)

    def _digests(self, i: int) -> BlockDigests | None:
        """The digests of the blocks of shard `i`; None if the store does not have the side-car, or a damaged one."""
        snapshot = self._shards.snapshot_of(i)[0].id
        if snapshot in self._undigested:
            return None
        try:
            return self._shards.block_digests(i)
        except (FormatError, IntegrityError) as error:
            with self._lock:
                is_known = snapshot in self._undigested
                self._undigested.add(snapshot)
            if not is_known:
                _logger.warning("shards are fetched whole, because their digests are damaged: %s", error)
            return None

    def _wants_part(self, i: int) -> bool:
        """Whether shard `i` is read in parts. Once it is found to be local, it is read whole until the epoch ends."""
        if self.sparse is None or not self.sparse[i] or i in self._whole:
            return False
        if i not in self._parts and self._shards.awaits(i) != "network":
            self._whole.add(i)
            return False
        return True

    def _open(self, i: int, digests: BlockDigests) -> None:
        """Fetch the offset table of a shard. Its blocks are kept if there is room: they may have the first samples."""
        snapshot, number = self._shards.snapshot_of(i)
        entry = snapshot.index.entry(number)
        end, size = table_bytes(entry.samples), entry.raw.size_bytes
        units = range(-(-end // unit_bytes(digests)))
        blocks = blocks_of(units, digests)
        with self._buffers.taken(len(units) * unit_bytes(digests)):
            pieces = self._shards.read_blocks(i, digests, blocks)
            head = np.frombuffer(b"".join(pieces)[:end], np.uint8)
            try:
                check_table(lambda begin, count: head[begin : begin + count], entry.samples, size, entry.kind.columns)
            except FormatError as error:
                raise error.at(subject=self.name(i)) from error.__cause__
            self._add(i, ShardPart(size, head, digests), units, dict(zip(blocks, pieces, strict=True)))

    def _add(self, i: int, part: ShardPart, units: Sequence[int], pieces: Mapping[int, memoryview]) -> None:
        """Add a part with these units, which nobody uses yet."""
        with self._lock:
            if i in self._parts:
                return
            self._parts[i] = part
            if self._table.size_bytes + len(units) * part.unit_bytes > self._most:
                return
            for block, data in pieces.items():
                part.put(block, data)
            added = [(i, unit) for unit in units]
            self._table.lease(added, part.unit_bytes)
            self._table.expect(added)
            self._table.arrive(added)
            self._table.end_lease(added)

    # shards in parts --------------------------------------------------------------------------------------------

    def is_part(self, i: int) -> bool:
        """Whether shard `i` is read in parts now."""
        return i in self._parts and i not in self._whole

    def among(self, numbers: Ids) -> Bools:
        """Which of these shards are read in parts."""
        if not self._parts:
            return np.zeros(len(numbers), np.bool_)
        shards, rows = np.unique(numbers, return_inverse=True)  # not all parts, of which there may be thousands
        found: Bools = np.fromiter(map(self.is_part, shards.tolist()), np.bool_, len(shards))[rows]
        return found

    def address(self, i: int) -> int:
        """Where shard `i` would begin in memory, if it were whole."""
        return self._parts[i].address

    def head(self, i: int) -> Bytes:
        """The number of samples and the offset table of shard `i`."""
        return self._parts[i].head

    def need(self, spans: Spans) -> Needed | None:
        """Lease the blocks of these spans; None if there is no room for those that are missing.

        Nothing is to be fetched for a lease that awaits others.
        """
        shards, begins, ends = spans
        with self._lock:
            self._take_back()
            wanted: list[Block] = []
            for i in np.unique(shards).tolist():
                of_shard, size_bytes = shards == i, self._parts[i].unit_bytes
                units = [(i, unit) for unit in units_of(begins[of_shard], ends[of_shard], size_bytes).tolist()]
                self._table.lease(units, size_bytes)
                wanted += units
            lease = Lease(wanted, self._returned)
            if self._table.has_awaited(wanted):
                return Needed(lease, {}, True)
            absent = self._table.absent(wanted)
            dropped = self._table.make_room(self._table.size_bytes + self._table.total_bytes(absent) - self._most)
            if dropped is None:
                return None
            for i, unit in dropped:
                self._parts[i].drop(unit)
            self._table.expect(absent)
            missing: dict[int, list[int]] = {}
            for i, unit in absent:
                missing.setdefault(i, []).append(unit)
        return Needed(lease, missing, False)

    def _take_back(self) -> None:
        """Process the leases that have ended."""
        while self._returned:
            self._table.end_lease(self._returned.popleft())

    def fetch(self, i: int, units: Sequence[int]) -> None:
        """Fetch units that `need` found missing. Neighbours come in one request."""
        part, left = self._parts[i], list(units)
        count = self._bytes_at_once // part.unit_bytes
        try:
            while some := left[:count]:
                blocks = blocks_of(some, part.digests)
                with self._buffers.taken(len(some) * part.unit_bytes):
                    for block, data in zip(blocks, self._shards.read_blocks(i, part.digests, blocks), strict=True):
                        part.put(block, data)
                with self._lock:
                    self._table.arrive((i, unit) for unit in some)
                    del left[:count]
        finally:
            with self._lock:
                self._table.fail((i, unit) for unit in left)
