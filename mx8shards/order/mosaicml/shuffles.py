"""In which order does each `shuffle_algo` put the rows of an epoch?

Every algorithm draws from NumPy's generators in the order in which Streaming does: one call more or less would change
all later draws. Shuffling ids makes the same swaps as shuffling the numbers of their rows, so ids are shuffled at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mx8shards.errors import SettingError, one_of
from mx8shards.order.mosaicml.canonical_spans import Span, Spans, canonical_spans
from mx8shards.order.mosaicml.expanded_spans import expanded
from mx8shards.order.mosaicml.id_chunks import AnyIds, IdQueue, collected, id_dtype, joined
from mx8shards.order.mosaicml.resampling import Rows
from mx8shards.order.mosaicml.staggered_blocks import shuffled_blocks
from mx8shards.order.permutation import Ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Shuffling:
    """How the rows of an epoch are shuffled.

    Args:
        nodes: The number of canonical nodes.
        seed: The seed of the run.
        epoch: The epoch.
        block_size: Over how many rows py1e and py1br shuffle.
    """

    nodes: int
    seed: int
    epoch: int
    block_size: int

    def run_rng(self) -> np.random.Generator:
        """The generator of what is equal in all epochs."""
        return np.random.default_rng(self.seed)

    def epoch_rng(self) -> np.random.Generator:
        """The generator of the epoch."""
        return np.random.default_rng(self.seed + self.epoch)


def shuffled(algo: str, rows: Rows, how: Shuffling) -> Iterator[AnyIds]:
    """The ids of all rows, shuffled, in chunks.

    For that, py1s, py1br and py1e hold no more than a few blocks, py2s a canonical node, and naive the epoch.

    Args:
        algo: The `shuffle_algo`.
        rows: The rows of the epoch.
        how: The settings of the shuffle.
    """
    one_of("shuffle_algo", algo, ALGORITHMS)
    return ALGORITHMS[algo](rows, how)


def _py1s(rows: Rows, how: Shuffling) -> Iterator[AnyIds]:
    """The rows of each span are shuffled."""
    spans, rng = _epoch_spans(rows, how)
    return joined(_ids(rows, spans, rng))


def _py1br(rows: Rows, how: Shuffling) -> Iterator[AnyIds]:
    """The spans of each node are concatenated, and shuffled in blocks."""
    _check_block_size(how.block_size, 2)
    spans, rng = _epoch_spans(rows, how)
    staggers = rng.integers(0, int(0.75 * how.block_size), (how.nodes,)).tolist()
    queue = IdQueue(_ids(rows, spans), np.dtype(np.int64))  # NumPy shuffles 8-byte elements twice as fast as others
    for part, stagger in zip(spans.per_node(), staggers, strict=True):
        yield from shuffled_blocks(queue, part.rows, stagger, how.block_size, rng)


def _py1e(rows: Rows, how: Shuffling) -> Iterator[AnyIds]:
    """The rows of each span are shuffled, and then spread over a range that is larger than the span.

    Streaming shuffles all spans of a node before it spreads the first one. Here both are done together, without an
    array of the node: one generator shuffles, and another one, which was advanced by as many draws, spreads.
    """
    _check_block_size(how.block_size, 1)
    spans, rng = _epoch_spans(rows, how)
    for part in spans.per_node():
        shuffling = copy.deepcopy(rng)
        _advance(rng, part.sizes)
        queue = IdQueue(_ids(rows, part, shuffling), id_dtype(rows.count))
        yield from expanded(queue, part.sizes, how.block_size, rng)


def _py2s(rows: Rows, how: Shuffling) -> Iterator[AnyIds]:
    """The rows of each unit are shuffled, once for the run; then, in every epoch, those of each span."""
    run_rng, epoch_rng = how.run_rng(), how.epoch_rng()
    sizes = rows.sizes
    spans = canonical_spans(sizes, how.nodes, run_rng)
    units = ((unit, 0, int(sizes[unit])) for unit, offset, _ in spans if offset == 0)
    queue = IdQueue(_ids(rows, units, run_rng), id_dtype(rows.count))
    for part in spans.per_node():
        yield from joined(_shuffled_spans(part.sizes, queue.take(part.rows), epoch_rng))


def _naive(rows: Rows, how: Shuffling) -> Iterator[AnyIds]:
    """All rows are shuffled together."""
    units = ((unit, 0, size) for unit, size in enumerate(rows.sizes.tolist()))
    ids = collected(_ids(rows, units), len(rows), id_dtype(rows.count))
    how.epoch_rng().shuffle(ids)
    yield ids


ALGORITHMS: dict[str, Callable[[Rows, Shuffling], Iterator[AnyIds]]] = {
    "py1e": _py1e,
    "py1br": _py1br,
    "py1s": _py1s,
    "py2s": _py2s,
    "naive": _naive,
}


def _check_block_size(block_size: int, least: int) -> None:
    if block_size < least:
        expected = f"at least {least} for each stream whose batches are its own"
        raise SettingError(subject="shuffle_block_size", expected=expected, found=f"{block_size}")


def _epoch_spans(rows: Rows, how: Shuffling) -> tuple[Spans, np.random.Generator]:
    """The spans in the order of the epoch, and the generator that goes on from there."""
    rng = how.epoch_rng()
    return canonical_spans(rows.sizes, how.nodes, how.run_rng()).shuffled_per_node(rng), rng


def _ids(rows: Rows, spans: Iterable[Span], rng: np.random.Generator | None = None) -> Iterator[Ids]:
    """The ids of each of these spans, shuffled if there is a generator."""
    for unit, offset, size in spans:
        ids = rows.ids(unit, offset, size)
        if rng is not None:
            rng.shuffle(ids)
        yield ids


def _advance(rng: np.random.Generator, sizes: Ids) -> None:
    """Draw what shuffling spans of these sizes draws."""
    anything = np.zeros(int(sizes.max(initial=0)), np.int64)
    for size in sizes.tolist():
        rng.shuffle(anything[:size])


def _shuffled_spans(sizes: Ids, ids: AnyIds, rng: np.random.Generator) -> Iterator[AnyIds]:
    """The spans of these sizes, of which `ids` consists, in random order, each shuffled."""
    order = np.arange(len(sizes))
    rng.shuffle(order)
    starts = np.cumsum(sizes) - sizes
    for start, size in zip(starts[order].tolist(), sizes[order].tolist(), strict=True):
        span = ids[start : start + size]
        rng.shuffle(span)
        yield span
