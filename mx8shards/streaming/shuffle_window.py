"""Does `cache_limit` hold the shards that a shuffle draws from at a time? If not, they are fetched again and again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from mx8shards.order.mosaicml.epoch_settings import default_block_size, default_canonical_nodes
from mx8shards.order.permutation import Ids
from mx8shards.shards.providers import Eviction

_logger = logging.getLogger("mx8shards")


class Window(NamedTuple):
    """The samples from which a node draws at a time: `parts` blocks of `block` samples; a `block` of None has all."""

    parts: int
    block: int | None


def shuffle_window(shuffle_algo: str, canonical_nodes: int | None, block_size: int | None, nodes: int) -> Window:
    """The window of a shuffle; its block is 0 where each part reads one shard after the other.

    Args:
        shuffle_algo: The algorithm.
        canonical_nodes: The number of canonical nodes; None for the default.
        block_size: The number of samples that are shuffled together in a canonical node; None for the default.
        nodes: The number of nodes.
    """
    if shuffle_algo == "naive":
        return Window(1, None)
    canonical_nodes = canonical_nodes or default_canonical_nodes(shuffle_algo, nodes)
    block_size = block_size or default_block_size(canonical_nodes)
    return Window(max(1, canonical_nodes // nodes), block_size if shuffle_algo in ("py1e", "py1br") else 0)


def warn_of_small_limit(
    limit: int, limited: Sequence[tuple[int, Eviction]], samples_per_shard: Ids, window: Window, nodes: int
) -> None:
    """Log a warning if a limit holds less than the shards of a window.

    Args:
        limit: The bytes of shards to keep on this node.
        limited: The first shard and the Eviction of each stream whose shards do not all fit.
        samples_per_shard: The numbers of samples of the shards of all streams.
        window: What the node draws from at a time.
        nodes: The number of nodes, each of which reads a part of the samples.
    """
    size = sum(int(each.sizes.sum()) for _, each in limited)
    samples = sum(int(samples_per_shard[first : first + len(each.sizes)].sum()) for first, each in limited)
    needed = size // nodes
    if window.block is not None and samples:
        shard = size // sum(len(each.sizes) for _, each in limited)
        needed = min(needed, window.parts * max(shard, window.block * size // samples))
    if limit < needed:
        hint = f", or shuffle_block_size={limit * samples // size // window.parts}" if window.block else ""
        _logger.warning(
            "cache_limit: the shuffle draws from shards of %d bytes at a time, so with a limit of %d many are fetched "
            "several times per epoch (raise the limit%s)",
            *(needed, limit, hint),
        )
