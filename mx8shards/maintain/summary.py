"""What is in a dataset, seen from afar?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.dataset import Dataset
from mx8shards.format.columns import Columns
from mx8shards.format.index import Index
from mx8shards.format.sidecars import scalar_columns
from mx8shards.maintain.statistics import Numbers, describe
from mx8shards.shards.links import Link, parse_link
from mx8shards.shards.snapshots import load


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSummary:
    """One column: how it is encoded, how long its payloads are where that is fixed, and how its numbers are spread."""

    name: str
    encoding: str
    payload_bytes: int | None  # of each sample; None: they differ
    numbers: Numbers | None = None  # for columns of one number per sample

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self) | {"numbers": self.numbers and self.numbers.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts, sizes and distributions of one snapshot."""

    snapshot: str
    sealed: bool
    samples: int
    shards: int
    raw_bytes: int
    stored_bytes: int
    samples_per_shard: tuple[int, float, int]  # least, median, most
    stored_bytes_per_shard: tuple[int, float, int]
    bytes_per_sample: float  # raw, offsets and all
    columns: tuple[ColumnSummary, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"columns": [column.to_json() for column in self.columns]}


def summary(link: str | os.PathLike[str]) -> Summary:
    """Counts and sizes of a snapshot, and of each column of numbers its range, mean and histogram.

    These come from side-cars where there are some; otherwise each sample's number is read from its shard.
    """
    where = parse_link(link)
    snapshot = load(where)
    index = snapshot.index
    pinned = Link(where.root, snapshot.id)  # the very snapshot, whatever is published meanwhile
    samples = int(index.samples.sum())
    return Summary(
        snapshot=snapshot.id,
        sealed=index.sealed,
        samples=samples,
        shards=index.shards,
        raw_bytes=int(index.raw.size_bytes.sum()),
        stored_bytes=int(index.stored_bytes.sum()),
        samples_per_shard=_spread(index.samples),
        stored_bytes_per_shard=_spread(index.stored_bytes),
        bytes_per_sample=float(index.raw.size_bytes.sum() / samples) if samples else 0.0,
        columns=tuple(_columns(pinned, index)),
    )


def _columns(link: Link, index: Index) -> Iterator[ColumnSummary]:
    columns = _shared_columns(index)
    scalars = scalar_columns(columns)
    with Dataset(str(link), columns=scalars) as dataset:
        for name, encoding, size in zip(columns.names, columns.encodings, columns.sizes, strict=True):
            numbers = describe(np.asarray(dataset.column(name))) if name in scalars else None
            yield ColumnSummary(name=name, encoding=encoding, payload_bytes=size, numbers=numbers)


def _shared_columns(index: Index) -> Columns:
    """The columns that are the same in all shards."""
    kinds = [set(zip(kind.columns.names, kind.columns.encodings, strict=True)) for kind in index.kinds]
    shared = set.intersection(*kinds) if kinds else set()
    return index.columns([name for name, _ in shared])


def _spread(values: npt.NDArray[np.int64]) -> tuple[int, float, int]:
    return (int(values.min()), float(np.median(values)), int(values.max())) if values.size else (0, 0.0, 0)
