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
    """The lengths in these columns, each of variable size, by name."""
    found: dict[str, list[int]] = {name: [] for name, _ in columns}
    chosen = _chosen_shards(index)
    for i in chosen if columns else ():
        shard = shards.open_shard(i)
        numbers = [shard.columns.names.index(name) for name, _ in columns]
        for row in _spread(shard.samples, MOST_SAMPLES // len(chosen)):
            for (name, coder), payload in zip(columns, shard.payloads(row, numbers), strict=True):
                found[name].append(_length(coder, payload, shard, row, name))
    return {
        name: _lengths(values, coder) for (name, coder), values in zip(columns, found.values(), strict=True) if values
    }


def _chosen_shards(index: Index) -> list[int]:
    """The numbers of the shards that are looked at: those with samples, or a few of them, evenly spread."""
    filled = np.flatnonzero(index.samples)
    most = _MOST_COMPRESSED if index.compressed.any() else _MOST_SHARDS
    return [int(filled[k]) for k in _spread(len(filled), most)]


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spread."""
    taken = min(count, most)
    return [k * count // taken for k in range(taken)]


def _length(coder: Encoding, payload: bytes | memoryview, shard: Shard, row: int, name: str) -> int:
    if not isinstance(coder, DynamicArray):
        return len(payload)
    try:
        return int(coder.decode(payload).size)
    except FormatError as error:
        raise error.at(subject=shard.name, place=f"sample {row}, column {name!r}") from error.__cause__


def _lengths(values: list[int], coder: Encoding) -> Lengths:
    return Lengths(
        unit="values" if isinstance(coder, DynamicArray) else "bytes",
        minimum=min(values),
        median=float(np.median(values)),
        mean=float(np.mean(values)),
        maximum=max(values),
        samples=len(values),
    )
