"""Where in memory are the blocks of a shard that is read in parts?

Blocks are fetched and freed in units: of one block or, because memory is freed in whole pages, of the blocks of a page.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from mx8shards.format.file_blocks import BlockDigests

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]

_PAGE_BYTES = mmap.PAGESIZE
_NO_HUGE_PAGES = getattr(mmap, "MADV_NOHUGEPAGE", mmap.MADV_NORMAL)  # they may double the memory of a block
_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE: only pages that are written count


class ShardPart:
    """A shard of which some units are in memory.

    head     its number of samples and its offset table
    digests  those of all its blocks
    """

    def __init__(self, size_bytes: int, head: Bytes, digests: BlockDigests) -> None:
        self.head = head
        self.digests = digests
        self.unit_bytes = unit_bytes(digests)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        self._memory = mmap.mmap(-1, size_bytes, flags)
        with suppress(OSError):  # a kernel without huge pages
            self._memory.madvise(_NO_HUGE_PAGES)
        self.address = int(np.frombuffer(self._memory, np.uint8).ctypes.data)

    def put(self, block: int, data: memoryview) -> None:
        """A block has come."""
        begin = block * self.digests.block_bytes
        self._memory[begin : begin + len(data)] = data

    def drop(self, unit: int) -> None:
        """Free the memory of a unit."""
        begin = unit * self.unit_bytes
        self._memory.madvise(mmap.MADV_DONTNEED, begin, min(self.unit_bytes, len(self._memory) - begin))


def unit_bytes(digests: BlockDigests) -> int:
    """The size of the units of a shard."""
    return max(digests.block_bytes, _PAGE_BYTES)


def blocks_of(units: Iterable[int], digests: BlockDigests) -> list[int]:
    """The blocks of these units."""
    each, count = unit_bytes(digests) // digests.block_bytes, len(digests.rows)
    return [block for unit in units for block in range(unit * each, min((unit + 1) * each, count))]


def units_of(begins: Ids, ends: Ids, size_bytes: int) -> Ids:
    """The units of this size that contain bytes of these spans, in ascending order."""
    spans = [
        np.arange(begin // size_bytes, -(-end // size_bytes))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        if begin < end
    ]
    found: Ids = np.unique(np.concatenate([np.zeros(0, np.int64), *spans]))
    return found
