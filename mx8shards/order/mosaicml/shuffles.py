"""In which order does each `shuffle_algo` put the rows of an epoch?

Every algorithm draws from NumPy's generators in the order in which Streaming does: one call more or less would change
all later draws. Shuffling ids makes the same swaps as shuffling the numbers of their rows, so ids are shuffled at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mx8shards.errors import SettingError, one_of
from mx8shards.order.mosaicml.canonical_spans import Span, Spans, canonical_spans
from mx8shards.order.mosaicml.expanded_spans import shuffle_expanded
from mx8shards.order.mosaicml.resampling import Rows
from mx8shards.order.mosaicml.staggered_blocks import shuffle_blocks
from mx8shards.order.mosaicml.swaps import AnyIds, shuffle
from mx8shards.order.permutation import Ids

Algorithm = Callable[[Rows, AnyIds, int, int, int, int], None]


def shuffle_rows(algo: str, rows: Rows, out: AnyIds, *, nodes: int, seed: int, epoch: int, block_size: int) -> None:
    """Write the ids of all rows into `out`, shuffled.

    Args:
        algo: The `shuffle_algo`.
        rows: The rows of the epoch.
        out: An array with one element per row, and a dtype for every id.
        nodes: The number of canonical nodes.
        seed: The seed of the run.
        epoch: The epoch.
        block_size: Over how many rows py1e and py1br shuffle.
    """
    one_of("shuffle_algo", algo, ALGORITHMS)
    ALGORITHMS[algo](rows, out, nodes, seed, epoch, block_size)


def _py1s(rows: Rows, out: AnyIds, nodes: int, seed: int, epoch: int, block_size: int) -> None:
    """The rows of each span are shuffled."""
    spans, rng = _epoch_spans(rows, nodes, seed, epoch)
    _fill(rows, spans, out, rng)


def _py1br(rows: Rows, out: AnyIds, nodes: int, seed: int, epoch: int, block_size: int) -> None:
    """The spans of each node are concatenated, and shuffled in blocks."""
    _check_block_size(block_size, 2)
    spans, rng = _epoch_spans(rows, nodes, seed, epoch)
    staggers = rng.integers(0, int(0.75 * block_size), (nodes,)).tolist()
    for (part, ids), stagger in zip(_nodes(spans, out), staggers, strict=True):
        _fill(rows, part, ids)
        shuffle_blocks(ids, stagger, block_size, rng)


def _py1e(rows: Rows, out: AnyIds, nodes: int, seed: int, epoch: int, block_size: int) -> None:
    """The rows of each span are shuffled, and then spread over a range that is larger than the span."""
    _check_block_size(block_size, 1)
    spans, rng = _epoch_spans(rows, nodes, seed, epoch)
    for part, ids in _nodes(spans, out):
        _fill(rows, part, ids, rng)
        shuffle_expanded(ids, part.sizes, block_size, rng)


def _py2s(rows: Rows, out: AnyIds, nodes: int, seed: int, epoch: int, block_size: int) -> None:
    """The rows of each unit are shuffled, once for the run; then, in every epoch, those of each span."""
    rng = np.random.default_rng(seed)
    spans = canonical_spans(rows.sizes, nodes, rng)
    sizes = rows.sizes
    _fill(rows, ((unit, 0, int(sizes[unit])) for unit, offset, _ in spans if offset == 0), out, rng)
    rng = np.random.default_rng(seed + epoch)
    for part, ids in _nodes(spans, out):
        _shuffle_spans(part.sizes, ids, rng)


def _naive(rows: Rows, out: AnyIds, nodes: int, seed: int, epoch: int, block_size: int) -> None:
    """All rows are shuffled together."""
    _fill(rows, ((unit, 0, size) for unit, size in enumerate(rows.sizes.tolist())), out)
    np.random.default_rng(seed + epoch).shuffle(out)


ALGORITHMS: dict[str, Algorithm] = {"py1e": _py1e, "py1br": _py1br, "py1s": _py1s, "py2s": _py2s, "naive": _naive}


def _check_block_size(block_size: int, least: int) -> None:
    if block_size < least:
        expected = f"at least {least} for each stream whose batches are its own"
        raise SettingError(subject="shuffle_block_size", expected=expected, found=f"{block_size}")


def _epoch_spans(rows: Rows, nodes: int, seed: int, epoch: int) -> tuple[Spans, np.random.Generator]:
    """The spans in the order of the epoch, and the generator that goes on from there."""
    rng = np.random.default_rng(seed + epoch)
    spans = canonical_spans(rows.sizes, nodes, np.random.default_rng(seed))
    return spans.shuffled_per_node(rng), rng


def _nodes(spans: Spans, out: AnyIds) -> Iterator[tuple[Spans, AnyIds]]:
    """The spans of each node, and its part of `out`."""
    start = 0
    for part in spans.per_node():
        stop = start + int(part.sizes.sum())
        yield part, out[start:stop]
        start = stop


def _fill(rows: Rows, spans: Iterable[Span], out: AnyIds, rng: np.random.Generator | None = None) -> None:
    """Write the ids of these spans into `out`, each span shuffled if there is a generator."""
    start = 0
    for unit, offset, size in spans:
        ids = out[start : start + size]
        rows.fill(unit, offset, ids)
        if rng is not None:
            shuffle(rng, ids)
        start += size


def _shuffle_spans(sizes: Ids, ids: AnyIds, rng: np.random.Generator) -> None:
    """Shuffle the spans of these sizes, of which `ids` consists, and then the ids of each."""
    order = np.arange(len(sizes))
    rng.shuffle(order)
    starts = np.cumsum(sizes) - sizes
    before, done = ids.copy(), 0
    for start, size in zip(starts[order].tolist(), sizes[order].tolist(), strict=True):
        span = ids[done : done + size]
        span[:] = before[start : start + size]
        shuffle(rng, span)
        done += size
