"""How does py1br shuffle the rows of a canonical node? In blocks of random size, which a random stagger moves."""

from __future__ import annotations

import numpy as np

from mx8shards.order.mosaicml.swaps import AnyIds, shuffle


def shuffle_blocks(ids: AnyIds, stagger: int, block_size: int, rng: np.random.Generator) -> None:
    """Shuffle the ids of a canonical node in place.

    Args:
        ids: The node's ids, span after span.
        stagger: By how many rows the blocks are moved towards the beginning.
        block_size: The mean size of a block.
        rng: The generator of the epoch.
    """
    for begin, end in _blocks(len(ids), stagger, block_size, rng):
        shuffle(rng, ids[begin:end])


def _blocks(length: int, stagger: int, block_size: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Begin and end of each block.

    Streaming's artefacts are kept: the first blocks may overlap, and up to `stagger` rows at the end are in no block.
    """
    blocks, done = [], 0
    while done < length:
        size = int(rng.integers(int(0.75 * block_size), int(1.25 * block_size)))
        begin, end = max(done - stagger, 0), min(done + size - stagger, length)
        blocks.append((begin, end))
        done += end - begin
    return blocks
