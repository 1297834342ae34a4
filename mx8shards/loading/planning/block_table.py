"""Which blocks of shards are in memory or under way, who uses them, and which make room first?

The table has a row for each of these blocks: its length depends on the memory, not on the dataset. A block is named by
the number of its shard and its number in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]  # numbers of rows
Block = tuple[int, int]

_ABSENT, _AWAITED, _HERE = 0, 1, 2  # states of a block
_ROW = np.dtype([("size", np.int64), ("users", np.int64), ("used_at", np.int64), ("state", np.uint8)])
_FIRST_ROWS = 256


class BlockTable:
    """The blocks in memory. It is not thread-safe.

    A row stays until its block is absent and nobody uses it. `size_bytes` is that of blocks that are here or awaited.
    """

    def __init__(self) -> None:
        self._table: npt.NDArray[Any] = np.zeros(_FIRST_ROWS, _ROW)
        self._blocks: list[Block | None] = [None] * _FIRST_ROWS  # of each row; None if it is free
        self._rows: dict[Block, int] = {}
        self._free = list(range(_FIRST_ROWS))
        self._clock = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def lease(self, blocks: Iterable[Block], sizes: Sequence[int]) -> Rows:
        """Count a user of each of these distinct blocks, which have these sizes; their rows."""
        rows = np.array([self._row(block) for block in blocks], np.int64)
        self._clock += 1
        self._table["size"][rows] = sizes
        self._table["users"][rows] += 1
        self._table["used_at"][rows] = self._clock
        return rows

    def _row(self, block: Block) -> int:
        row = self._rows.get(block)
        if row is None:
            if not self._free:
                self._grow()
            row = self._rows[block] = self._free.pop()
            self._blocks[row] = block
            self._table[row] = 0
        return row

    def _grow(self) -> None:
        count = len(self._table)
        self._table = np.concatenate([self._table, np.zeros(count, _ROW)])
        self._blocks += [None] * count
        self._free += range(count, 2 * count)

    def end_lease(self, rows: Rows) -> None:
        """These rows have a user less."""
        self._table["users"][rows] -= 1
        self._forget(rows)

    def has_awaited(self, rows: Rows) -> bool:
        """Whether one of these blocks is under way."""
        return bool((self._table["state"][rows] == _AWAITED).any())

    def absent(self, rows: Rows) -> Rows:
        """Those of these rows whose blocks are neither here nor under way."""
        found: Rows = rows[self._table["state"][rows] == _ABSENT]
        return found

    def total_bytes(self, rows: Rows) -> int:
        """The bytes of these blocks."""
        return int(self._table["size"][rows].sum())

    def blocks(self, rows: Rows) -> list[Block]:
        """The blocks of these rows."""
        return [block for row in rows.tolist() if (block := self._blocks[row]) is not None]

    def expect(self, rows: Rows) -> None:
        """These absent blocks are under way now."""
        self._table["state"][rows] = _AWAITED
        self.size_bytes += self.total_bytes(rows)

    def arrive(self, blocks: Iterable[Block]) -> None:
        """These awaited blocks are here."""
        self._table["state"][[self._rows[block] for block in blocks]] = _HERE

    def fail(self, blocks: Iterable[Block]) -> None:
        """Those of these blocks that are still awaited will not come."""
        rows = np.array([self._rows[block] for block in blocks], np.int64)
        self._drop(rows[self._table["state"][rows] == _AWAITED])

    def make_room(self, size_bytes: int) -> list[Block] | None:
        """Drop the blocks that were unused for longest, until these bytes are free. None if too many are in use."""
        if size_bytes <= 0:
            return []
        idle = np.flatnonzero((self._table["state"] == _HERE) & (self._table["users"] == 0))
        idle = idle[np.argsort(self._table["used_at"][idle], kind="stable")]
        free = np.cumsum(self._table["size"][idle])
        count = int(np.searchsorted(free, size_bytes)) + 1
        if count > len(idle):
            return None
        dropped = self.blocks(idle[:count])
        self._drop(idle[:count])
        return dropped

    def in_use(self) -> set[int]:
        """The shards of which blocks are used or under way."""
        rows = np.flatnonzero((self._table["users"] > 0) | (self._table["state"] == _AWAITED))
        return {shard for shard, _ in self.blocks(rows)}

    def forget_shards(self, shards: Collection[int]) -> None:
        """Drop all blocks of these shards, of which none is in use."""
        self._drop(np.array([row for block, row in self._rows.items() if block[0] in shards], np.int64))

    def _drop(self, rows: Rows) -> None:
        """These blocks, which were here or awaited, are absent."""
        self.size_bytes -= self.total_bytes(rows)
        self._table["state"][rows] = _ABSENT
        self._forget(rows)

    def _forget(self, rows: Rows) -> None:
        """Free those of these rows whose blocks are absent and not used."""
        gone = (self._table["state"][rows] == _ABSENT) & (self._table["users"][rows] == 0)
        for row in rows[gone].tolist():
            block = self._blocks[row]
            if block is not None:
                del self._rows[block]
                self._blocks[row] = None
                self._free.append(row)
