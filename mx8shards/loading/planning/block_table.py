"""Which blocks of shards are in memory or under way, who uses them, and which make room first?

Only these blocks are in the table: its size depends on the memory, not on the dataset. A block is named by the number
of its shard and its number in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

Block = tuple[int, int]

_ABSENT, _AWAITED, _HERE = 0, 1, 2  # states of a block


@dataclass(slots=True)
class _Entry:
    size_bytes: int
    users: int = 0
    state: int = _ABSENT


class BlockTable:
    """The blocks in memory. It is not thread-safe.

    An entry stays until its block is absent and nobody uses it. `size_bytes` are those of blocks here or awaited.
    """

    def __init__(self) -> None:
        self._entries: dict[Block, _Entry] = {}
        self._idle: OrderedDict[Block, int] = OrderedDict()  # blocks that are here and not used, and their sizes
        self._idle_bytes = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def lease(self, blocks: Iterable[Block], size_bytes: int) -> None:
        """Count a user of each of these blocks, which have this size."""
        for block in blocks:
            if block not in self._entries:
                self._entries[block] = _Entry(size_bytes)
            self._entries[block].users += 1
            self._idle_bytes -= self._idle.pop(block, 0)

    def end_lease(self, blocks: Iterable[Block]) -> None:
        """These blocks have a user less."""
        for block in blocks:
            self._entries[block].users -= 1
            self._settle(block)

    def has_awaited(self, blocks: Iterable[Block]) -> bool:
        """Whether one of these blocks is under way."""
        return any(self._entries[block].state == _AWAITED for block in blocks)

    def absent(self, blocks: Iterable[Block]) -> list[Block]:
        """Those of these blocks that are neither here nor under way."""
        return [block for block in blocks if self._entries[block].state == _ABSENT]

    def total_bytes(self, blocks: Iterable[Block]) -> int:
        """The bytes of these blocks."""
        return sum(self._entries[block].size_bytes for block in blocks)

    def expect(self, blocks: Iterable[Block]) -> None:
        """These absent blocks are under way now."""
        for block in blocks:
            entry = self._entries[block]
            entry.state = _AWAITED
            self.size_bytes += entry.size_bytes

    def arrive(self, blocks: Iterable[Block]) -> None:
        """These awaited blocks are here."""
        for block in blocks:
            self._entries[block].state = _HERE
            self._settle(block)

    def fail(self, blocks: Iterable[Block]) -> None:
        """These awaited blocks will not come."""
        for block in blocks:
            self._drop(block)

    def make_room(self, size_bytes: int) -> list[Block] | None:
        """Drop the blocks that were unused for longest, until these bytes are free. None if too many are in use."""
        if size_bytes > self._idle_bytes:
            return None
        dropped = []
        while size_bytes > 0:
            block, freed = self._idle.popitem(last=False)
            self._idle_bytes -= freed
            size_bytes -= freed
            self._drop(block)
            dropped.append(block)
        return dropped

    def in_use(self) -> set[int]:
        """The shards of which blocks are used or under way."""
        return {block[0] for block in self._entries.keys() - self._idle.keys()}

    def forget_shards(self, shards: Collection[int]) -> None:
        """Drop all blocks of these shards, of which none is in use."""
        for block in [block for block in self._idle if block[0] in shards]:
            self._idle_bytes -= self._idle.pop(block)
            self._drop(block)

    def _drop(self, block: Block) -> None:
        """This block, which was here or awaited, is absent."""
        entry = self._entries[block]
        entry.state = _ABSENT
        self.size_bytes -= entry.size_bytes
        self._settle(block)

    def _settle(self, block: Block) -> None:
        """If nobody uses this block, it is idle if it is here, and forgotten if it is absent."""
        entry = self._entries[block]
        if entry.users == 0 and entry.state == _HERE:
            self._idle[block] = entry.size_bytes
            self._idle_bytes += entry.size_bytes
        elif entry.users == 0 and entry.state == _ABSENT:
            del self._entries[block]
