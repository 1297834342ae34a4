"""How does py1br shuffle the rows of a canonical node? In blocks of random size, which a random stagger moves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from mx8shards.order.mosaicml.id_chunks import AnyIds, IdQueue


def shuffled_blocks(
    queue: IdQueue, length: int, stagger: int, block_size: int, rng: np.random.Generator
) -> Iterator[AnyIds]:
    """The ids of a canonical node, shuffled.

    Args:
        queue: The node's ids, span after span.
        length: Their number.
        stagger: By how many rows the blocks are moved towards the beginning.
        block_size: The mean size of a block.
        rng: The generator of the epoch.
    """
    waiting, start = queue.take(0), 0
    blocks = _blocks(length, stagger, block_size, rng)
    for (begin, end), (following, _) in pairwise([*blocks, (length, length)]):
        needed = max(end, following) - start - len(waiting)
        waiting = np.concatenate([waiting, queue.take(needed)])
        rng.shuffle(waiting[begin - start : end - start])
        yield waiting[: following - start]
        waiting, start = waiting[following - start :], following


def _blocks(length: int, stagger: int, block_size: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Begin and end of each block. No block begins before the one before it.

    Streaming's artefacts are kept: the first blocks may overlap, and up to `stagger` rows at the end are in no block.
    """
    blocks, done = [], 0
    while done < length:
        size = int(rng.integers(int(0.75 * block_size), int(1.25 * block_size)))
        begin, end = max(done - stagger, 0), min(done + size - stagger, length)
        blocks.append((begin, end))
        done += end - begin
    return blocks
