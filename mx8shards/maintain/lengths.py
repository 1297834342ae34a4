"""How long are the values of a column of variable size? Measured on a sample of the dataset.

The lengths are stored in the shards, not in the index. So only some samples of a large dataset are read, evenly spaced
over a few shards: fewer shards if they are compressed, because each must be decompressed first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mx8shards.errors import FormatError
from mx8shards.format.arrays import DynamicArray
from mx8shards.format.codec import Encoding
from mx8shards.format.index import Index
from mx8shards.shards.column_values import payload_spans
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.shard import Shard

MOST_SAMPLES = 10_000
_MOST_SHARDS = 20
_MOST_COMPRESSED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """The minimum, median, mean and maximum length among the samples that were read."""

    unit: str  # "bytes", or "values" for arrays
    minimum: int
    median: float
    mean: float
    maximum: int
    samples: int


def lengths_of(shards: Shards, index: Index, columns: Sequence[tuple[str, Encoding]]) -> dict[str, Lengths]:
    """The lengths of these columns of variable size, by name. Reads no payloads, except two bytes of each array."""
    chosen = _chosen_shards(index) if columns else []
    found: dict[str, list[int]] = {name: [] for name, _ in columns}
    for i in chosen:
        shard = shards.open_shard(i)
        shard.check_size()
        rows = np.array(_spread(shard.samples, max(1, MOST_SAMPLES // len(chosen))), np.int64)
        for name, coder in columns:
            begins, sizes = payload_spans(shard, shard.columns.names.index(name), rows)
            if isinstance(coder, DynamicArray):
                spans = zip(rows.tolist(), begins.tolist(), sizes.tolist(), strict=True)
                found[name] += [_count(coder, shard, name, *span) for span in spans]
            else:
                found[name] += sizes.tolist()
    return {name: _lengths(found[name], coder) for name, coder in columns if found[name]}


def _count(coder: DynamicArray, shard: Shard, name: str, row: int, begin: int, size: int) -> int:
    """The number of values in an array."""
    try:
        return coder.count(shard.view[begin : begin + min(2, size)], size)
    except FormatError as error:
        raise error.at(subject=shard.name, place=f"sample {row} of this shard, column {name!r}") from error.__cause__


def _chosen_shards(index: Index) -> list[int]:
    """The numbers of the shards to read: all that have samples, or a few of these, evenly spaced."""
    filled = np.flatnonzero(index.samples)
    most = _MOST_COMPRESSED if index.compressed.any() else _MOST_SHARDS
    return [int(filled[k]) for k in _spread(len(filled), most)]


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spaced."""
    taken = min(count, most)
    return [k * count // taken for k in range(taken)]


def _lengths(values: list[int], coder: Encoding) -> Lengths:
    return Lengths(
        unit="values" if isinstance(coder, DynamicArray) else "bytes",
        minimum=min(values),
        median=float(np.median(values)),
        mean=float(np.mean(values)),
        maximum=max(values),
        samples=len(values),
    )
