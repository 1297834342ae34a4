"""Which blocks of shards that are not local are in memory? They are fetched as clips need them, within a limit.

A sparse view of clips needs little of each shard. Then only its offset table and the blocks around the clips are
fetched, each checked against its digest. A shard read so has an anonymous mapping of its whole size, of which only the
blocks that came take memory: kernels read it like the map of a file. Blocks that no batch in flight needs make room.
"""

from __future__ import annotations

import logging
import mmap
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Condition, Lock
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError, IntegrityError
from mx8shards.format.shard_bytes import check_table, table_bytes
from mx8shards.format.sidecar_bytes import BLOCK_BYTES
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.providers import Cause

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]

_logger = logging.getLogger("mx8shards")

_ABSENT, _AWAITED, _HERE = 0, 1, 2  # states of a block
_BLOCKS_AT_ONCE = 4  # of one call to the store …
_COPIES = 3  # … which are in memory so often meanwhile
_BUFFERS_PART = 4  # of the memory is for that
_NO_HUGE_PAGES = getattr(mmap, "MADV_NOHUGEPAGE", mmap.MADV_NORMAL)  # they may double the memory of a block
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE: only pages that are written count


class _Part:
    """A shard of which some blocks are in memory."""

    def __init__(self, size_bytes: int, head: Bytes) -> None:
        self.head = head
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        self.memory = mmap.mmap(-1, size_bytes, flags)
        with suppress(OSError):  # a kernel without huge pages
            self.memory.madvise(_NO_HUGE_PAGES)
        self.address = int(np.frombuffer(self.memory, np.uint8).ctypes.data)
        count = -(-size_bytes // BLOCK_BYTES)
        self.state = np.zeros(count, np.uint8)
        self.users = np.zeros(count, np.int64)
        self.used_at = np.zeros(count, np.int64)

    def put(self, block: int, data: bytes) -> None:
        """A block has come."""
        self.memory[block * BLOCK_BYTES : block * BLOCK_BYTES + len(data)] = data
        self.state[block] = _HERE

    def drop(self, block: int) -> None:
        """Free the memory of a block."""
        self.state[block] = _ABSENT
        begin = block * BLOCK_BYTES
        self.memory.madvise(mmap.MADV_DONTNEED, begin, min(BLOCK_BYTES, len(self.memory) - begin))


class _Buffers:
    """Memory for `count` blocks under way, which calls to the store share."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Take the memory for some blocks, of at most all."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()


class Lease:
    """Keeps blocks in memory for as long as it lives.

    It may end in any thread, within a garbage collection, while any lock is held. So its end only appends to a queue.
    """

    __slots__ = ("_blocks", "_returned")

    def __init__(self, blocks: list[tuple[_Part, Ids]], returned: deque[list[tuple[_Part, Ids]]]) -> None:
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
    """A lease of blocks, and those of them that have to be fetched, by shard.

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
        buffers = max(1, self.most_bytes // _BUFFERS_PART // (_COPIES * BLOCK_BYTES))  # for one block each
        self._at_once = min(buffers, _BLOCKS_AT_ONCE)
        self._buffers = _Buffers(buffers)
        self._most = self.most_bytes // BLOCK_BYTES - buffers * _COPIES
        self._parts: dict[int, _Part] = {}
        self._whole: set[int] = set()  # sparse shards that are local after all, in this epoch
        self._lock = Lock()
        self._count = 0  # of blocks that are here or awaited
        self._clock = 0
        self._returned: deque[list[tuple[_Part, Ids]]] = deque()
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
            idle = [i for i, part in self._parts.items() if not (part.users.any() or (part.state == _AWAITED).any())]
            for i in idle:
                if self._shards.awaits(i) is None:
                    self._count -= int((self._parts.pop(i).state != _ABSENT).sum())

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
        with self._buffers.taken(1):
            self._open(i, digests)

    def _digests(self, i: int) -> Bytes | None:
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

    def _open(self, i: int, digests: Bytes) -> None:
        """Fetch the offset table of a shard. Its blocks are kept if there is room: they may have the first samples."""
        snapshot, number = self._shards.snapshot_of(i)
        entry = snapshot.index.entry(number)
        end = table_bytes(entry.samples)
        pieces = self._shards.read_blocks(i, digests, range(-(-end // BLOCK_BYTES)))
        head = np.frombuffer(b"".join(pieces)[:end], np.uint8)
        size = entry.raw.size_bytes
        try:
            check_table(lambda begin, count: head[begin : begin + count], entry.samples, size, entry.kind.columns)
        except FormatError as error:
            raise error.at(subject=self.name(i)) from error.__cause__
        part = _Part(size, head)
        with self._lock:
            if i not in self._parts:
                self._parts[i] = part
                for block, data in enumerate(pieces[: max(0, self._most - self._count)]):
                    part.put(block, data)
                    self._count += 1

    # shards in parts --------------------------------------------------------------------------------------------

    def is_part(self, i: int) -> bool:
        """Whether shard `i` is read in parts now."""
        return i in self._parts and i not in self._whole

    def among(self, numbers: Ids) -> Bools:
        """Which of these shards are read in parts."""
        with self._lock:  # other threads open parts
            parts = [i for i in self._parts if i not in self._whole]
        return np.isin(numbers, parts) if parts else np.zeros(len(numbers), np.bool_)

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
        wanted = {i: _blocks(begins[shards == i], ends[shards == i]) for i in np.unique(shards).tolist()}
        with self._lock:
            self._take_back()
            self._clock += 1
            leased = [(self._parts[i], blocks) for i, blocks in wanted.items()]
            for part, blocks in leased:
                part.users[blocks] += 1
                part.used_at[blocks] = self._clock
            lease = Lease(leased, self._returned)
            if any((part.state[blocks] == _AWAITED).any() for part, blocks in leased):
                return Needed(lease, {}, True)
            missing = {i: blocks[self._parts[i].state[blocks] == _ABSENT] for i, blocks in wanted.items()}
            count = sum(map(len, missing.values()))
            if not self._make_room(count):
                return None
            self._count += count
            for i, blocks in missing.items():
                self._parts[i].state[blocks] = _AWAITED
        return Needed(lease, {i: blocks.tolist() for i, blocks in missing.items() if len(blocks)}, False)

    def _take_back(self) -> None:
        """Process the leases that have ended."""
        while self._returned:
            for part, blocks in self._returned.popleft():
                part.users[blocks] -= 1

    def _make_room(self, count: int) -> bool:
        """Drop blocks that nobody uses, the least recently used first, until `count` more fit. False if they cannot."""
        excess = self._count + count - self._most
        if excess <= 0:
            return True
        idle = [(i, np.flatnonzero((part.state == _HERE) & (part.users == 0))) for i, part in self._parts.items()]
        if sum(len(blocks) for _, blocks in idle) < excess:
            return False
        owners = np.concatenate([np.full(len(blocks), i) for i, blocks in idle])
        numbers = np.concatenate([blocks for _, blocks in idle])
        used_at = np.concatenate([self._parts[i].used_at[blocks] for i, blocks in idle])
        for k in np.argsort(used_at, kind="stable")[:excess].tolist():
            self._parts[int(owners[k])].drop(int(numbers[k]))
        self._count -= excess
        return True

    def fetch(self, i: int, blocks: Sequence[int]) -> None:
        """Fetch blocks that `need` found missing."""
        part = self._parts[i]
        try:
            digests = self._shards.block_digests(i)
            assert digests is not None
            for at in range(0, len(blocks), self._at_once):
                some = blocks[at : at + self._at_once]
                with self._buffers.taken(len(some)):
                    for block, data in zip(some, self._shards.read_blocks(i, digests, some), strict=True):
                        part.put(block, data)
        finally:
            with self._lock:
                failed = [block for block in blocks if part.state[block] == _AWAITED]
                part.state[failed] = _ABSENT
                self._count -= len(failed)


def _blocks(begins: Ids, ends: Ids) -> Ids:
    """The blocks that contain bytes of these spans, in ascending order."""
    spans = [
        np.arange(begin // BLOCK_BYTES, -(-end // BLOCK_BYTES))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        if begin < end
    ]
    found: Ids = np.unique(np.concatenate([np.zeros(0, np.int64), *spans]))
    return found
