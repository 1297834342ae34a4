"""How long are the values of a column whose payloads differ in size?

Their lengths stand beside the payloads, not in the index. So of a large dataset only some samples are looked at, evenly
spread over a few shards: fewer shards where they are compressed, since each has to be decompressed first.
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
    """The least, median, mean and greatest length among the samples that were looked at."""

    unit: str  # "bytes", or "values" of arrays
    minimum: int
    median: float
    mean: float
    maximum: int
    samples: int


def lengths_of(shards: Shards, index: Index, columns: Sequence[tuple[str, Encoding]]) -> dict[str, Lengths]:
    """The lengths in these columns, each of variable size, by name. Of payloads, two bytes of arrays are read."""
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
    """How many values an array has."""
    try:
        return coder.count(shard.view[begin : begin + min(2, size)], size)
    except FormatError as error:
        raise error.at(subject=shard.name, place=f"sample {row}, column {name!r}") from error.__cause__


def _chosen_shards(index: Index) -> list[int]:
    """The numbers of the shards that are looked at: those with samples, or a few of them, evenly spread."""
    filled = np.flatnonzero(index.samples)
    most = _MOST_COMPRESSED if index.compressed.any() else _MOST_SHARDS
    return [int(filled[k]) for k in _spread(len(filled), most)]


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spread."""
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
