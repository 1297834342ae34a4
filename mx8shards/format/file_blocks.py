"""Into which blocks is a stored file divided, so that a part of it can be verified? (spec: §10.5)

Small blocks let a reader fetch little more than it needs, and take more digests: 32 bytes for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mx8shards.format.hashing import hash_hex
from mx8shards.format.packet_index import VIDEOS

Bytes = npt.NDArray[np.uint8]
Sizes = TypeVar("Sizes", int, npt.NDArray[np.int64])

BLOCK_BYTES = 1 << 20
# Of shards with videos, from which clips are read. Clips of 16 frames of 480p videos (GOP 12 to 250) fetch 0.7 to 1.2
# times the bytes of their GOPs (with 1 MiB 3 to 13 times), and the digests take 2 GB for each TB.
SMALL_BLOCK_BYTES = 16 << 10
LEAST_BLOCK_BYTES = 4 << 10
DIGEST_BYTES = 32


class BlockDigests(NamedTuple):
    """The digests of the blocks of a file, one per row, and the size of these blocks."""

    rows: Bytes
    block_bytes: int

    def span(self, block: int, size_bytes: int) -> tuple[int, int]:
        """Where a block begins and ends in a file of this size."""
        begin = block * self.block_bytes
        return begin, min(begin + self.block_bytes, size_bytes)


def block_count(size_bytes: Sizes, block_bytes: int) -> Sizes:
    """The number of blocks of files with these sizes."""
    return -(-size_bytes // block_bytes)


def is_block_size(value: int) -> bool:
    """Whether blocks may have this size: a power of two from 4 KiB to 1 MiB."""
    return LEAST_BLOCK_BYTES <= value <= BLOCK_BYTES and value & (value - 1) == 0


def block_digests(data: bytes | memoryview, block_bytes: int) -> bytes:
    """The concatenated blake3 digests of a stored file's blocks."""
    view = memoryview(data)
    blocks = (view[begin : begin + block_bytes] for begin in range(0, len(data), block_bytes))
    return b"".join(bytes.fromhex(hash_hex("blake3", block)) for block in blocks)


def best_block_bytes(metadata: Mapping[str, Any], *, is_compressed: bool) -> int:
    """The size of the blocks of new shards: small if clips are read from them, which needs videos with packet indices.

    Compressed shards are never read in parts.
    """
    return SMALL_BLOCK_BYTES if metadata.get(VIDEOS) and not is_compressed else BLOCK_BYTES
