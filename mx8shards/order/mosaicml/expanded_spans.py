"""How does py1e shuffle the rows of a canonical node? It shifts each row by a random distance, and sorts.

The rows of a span may come to lie anywhere in a range of about `block_size` around it. So a row never moves further
than a known distance: rows are sorted in windows, and only those wait that a later span can still precede.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SettingError
from mx8shards.order.mosaicml.id_chunks import AnyIds, IdQueue
from mx8shards.order.permutation import Ids

Places = npt.NDArray[np.float64]

_LEAST_WINDOW = 1 << 18  # rows that are added before the next ones are sorted; more take more memory
_KEY_BITS = 63


def expanded(queue: IdQueue, sizes: Ids, block_size: int, rng: np.random.Generator) -> Iterator[AnyIds]:
    """The ids of a canonical node, each span spread over a range.

    Args:
        queue: The node's ids, span after span, each span already shuffled.
        sizes: The size of each span.
        block_size: The mean size of the ranges over which spans are spread.
        rng: The generator of the epoch.
    """
    length = int(sizes.sum())
    if not length:
        expected = "at most the number of samples of an epoch, or of a stream if batches are made by stream"
        raise SettingError(subject="num_canonical_nodes", expected=expected, found="a canonical node without samples")
    reach = int(1.25 * block_size) / 2  # no row moves further
    places, waiting, read = np.empty(0), queue.take(0), 0
    for found in _windows(length, sizes, block_size, rng, max(int(reach) // 4, _LEAST_WINDOW)):
        places = np.concatenate([places, found])
        waiting = np.concatenate([waiting, queue.take(len(found))])
        read += len(found)
        is_ready = places < (read - reach if read < length else np.inf)
        ready, late = np.flatnonzero(is_ready), np.flatnonzero(~is_ready)  # faster than a random mask for each array
        yield waiting[ready[ascending(places[ready])]]
        places, waiting = places[late], waiting[late]


def _windows(length: int, sizes: Ids, block_size: int, rng: np.random.Generator, least: int) -> Iterator[Places]:
    """The new place of each row. An array is for the next spans, which have `least` rows or more together."""
    found, begin, offset, crowded = [], 0, 0, False
    for size in sizes.tolist():
        extent = int(rng.integers(int(0.75 * block_size), int(1.25 * block_size)))
        crowded |= extent < size
        room = max((extent - size) / 2, 0)
        found.append(rng.uniform(max(-room, -offset), min(room, length - offset - size), size))
        offset += size
        if offset - begin >= least or offset == length:
            yield np.concatenate(found) + np.arange(begin, offset)
            found, begin = [], offset
    if crowded:
        message = (
            "shuffle_block_size is smaller than some shards: their samples are not mixed with those of other shards"
        )
        warnings.warn(message, UserWarning, stacklevel=2)


def ascending(places: Places) -> Ids:
    """The indices that sort these places: a stable argsort, in a third of its time.

    The upper bits of a key are the place in fixed point, the lower ones its index, so that sorting keys needs no second
    array. Places that are equal in fixed point are then sorted by themselves; these are few.
    """
    if not len(places):
        return np.empty(0, np.int64)
    least = places.min()
    index_bits = int(len(places) - 1).bit_length()
    whole_bits = int(places.max() - least + 1).bit_length()
    keys = ((places - least) * 2.0 ** (_KEY_BITS - index_bits - whole_bits)).astype(np.int64)
    keys <<= index_bits
    keys |= np.arange(len(places))
    keys.sort()
    order: Ids = keys & ((1 << index_bits) - 1)
    keys >>= index_bits
    same = np.zeros(len(keys) + 1, bool)
    same[1:-1] = keys[1:] == keys[:-1]
    close = np.flatnonzero(same[1:] | same[:-1])
    order[close] = order[close][np.argsort(places[order[close]], kind="stable")]
    return order
