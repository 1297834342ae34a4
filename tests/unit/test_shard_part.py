"""Do the blocks of a part lie where they belong, and is only the memory freed that no other block needs?"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from mx8shards.format.file_blocks import BlockDigests
from mx8shards.loading.planning import shard_part
from mx8shards.loading.planning.shard_part import ShardPart, blocks_of, unit_bytes, units_of

KIB = 1 << 10


def digests(count: int, block_bytes: int) -> BlockDigests:
    return BlockDigests(np.zeros((count, 32), np.uint8), block_bytes)


def filled(size: int, each: int) -> ShardPart:
    """A part of which all blocks have come: each has its number plus 1 in every byte."""
    count = -(-size // each)
    part = ShardPart(size, np.zeros(0, np.uint8), digests(count, each))
    for block in range(count):
        part.put(block, memoryview(bytes([block + 1]) * min(each, size - block * each)))
    return part


def content(part: ShardPart, size: int) -> np.ndarray:
    return np.frombuffer(ctypes.string_at(part.address, size), np.uint8)


@pytest.mark.parametrize("page_bytes", [4 * KIB, 16 * KIB, 64 * KIB])
@pytest.mark.parametrize("each", [4 * KIB, 16 * KIB, 1 << 20])
def test_freeing_a_unit_frees_whole_pages_and_none_of_its_neighbours(
    monkeypatch: pytest.MonkeyPatch, page_bytes: int, each: int
) -> None:
    monkeypatch.setattr(shard_part, "_PAGE_BYTES", page_bytes)  # of other machines
    size = 3 * max(each, 64 * KIB) + 5
    part = filled(size, each)
    assert part.unit_bytes % page_bytes == 0
    before = content(part, size)
    assert before.tolist() == (np.arange(size) // each + 1).tolist()
    part.drop(1)
    after = content(part, size)
    unit = slice(part.unit_bytes, 2 * part.unit_bytes)
    assert not after[unit].any()
    assert np.array_equal(np.delete(after, unit), np.delete(before, unit))


def test_the_last_unit_may_have_fewer_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_part, "_PAGE_BYTES", 64 * KIB)
    small = digests(10, 16 * KIB)
    assert unit_bytes(small) == 64 * KIB
    assert blocks_of([0, 2], small) == [0, 1, 2, 3, 8, 9]
    assert blocks_of([1], digests(3, 1 << 20)) == [1]


def test_units_are_those_with_bytes_of_the_spans() -> None:
    begins, ends = np.array([0, 99, 250, 40, 7]), np.array([1, 201, 250, 60, 7])
    assert units_of(begins, ends, 100).tolist() == [0, 1, 2]
