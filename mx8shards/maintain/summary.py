"""What does a dataset contain: counts, sizes and the distribution of each column (`mx8shards summary`)?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import finite_seconds
from mx8shards.format.columns import Columns
from mx8shards.format.index import Index
from mx8shards.format.sidecar_bytes import scalar_columns
from mx8shards.maintain.lengths import Lengths, lengths_of
from mx8shards.maintain.remote_links import open_snapshot
from mx8shards.maintain.statistics import MAX_VALUES, Numbers, describe
from mx8shards.shards.column_values import stacked_column
from mx8shards.shards.open_shard import ProvidedSnapshot, Shards

_RUN = 1 << 20
_MOST_CLASSES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSummary:
    """One column: its encoding, the lengths of its payloads, and the distribution of its numbers."""

    name: str
    encoding: str
    payload_bytes: int | None  # the size of every payload, or None if sizes vary
    numbers: Numbers | None = None  # only for columns with one number per sample
    lengths: Lengths | None = None  # only for columns of variable size
    classes: tuple[str, ...] | None = None  # only for the column `label`: the class names

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
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
    samples_per_shard: tuple[int, float, int]  # minimum, median, maximum
    stored_bytes_per_shard: tuple[int, float, int]
    bytes_per_sample: float  # uncompressed, offsets included
    columns: tuple[ColumnSummary, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"columns": [column.to_json() for column in self.columns]}


def summary(link: str | os.PathLike[str], *, deadline_s: float = 300.0) -> Summary:
    """Summarise a snapshot: counts, sizes, and for each column the distribution of its numbers or its lengths.

    Args:
        link: The dataset's directory or URL, or `path@sha256:9f2c…`.
        deadline_s: For a URL, how many seconds the store may fail to answer before that is an error.

    Numbers are read from side-cars if there are any, and otherwise from the shards. Lengths are measured on at most
    10,000 samples. If there are class names, each label of the column `label` is counted.
    """
    opened = open_snapshot(link, finite_seconds("deadline_s", deadline_s))
    snapshot = opened.snapshot
    index = snapshot.index
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
        columns=tuple(_columns(opened)),
    )


def _columns(opened: ProvidedSnapshot) -> Iterator[ColumnSummary]:
    index = opened.snapshot.index
    columns = _shared_columns(index)
    scalars = scalar_columns(columns)
    shards = Shards.of((opened,))
    every = list(zip(columns.names, columns.encodings, columns.sizes, columns.coders, strict=True))
    lengths = lengths_of(shards, index, [(name, coder) for name, _, size, coder in every if size is None])
    for name, encoding, size, coder in every:
        runs = (np.arange(i, min(i + _RUN, shards.samples)) for i in range(0, shards.samples, _RUN))
        numbers = stacked_column(shards, name, np.dtype(coder.dtype), (), runs) if name in scalars else None
        are_labels = name == "label" and numbers is not None and numbers.dtype.kind in "iu"
        classes = _classes(index) if are_labels else None
        most = max(MAX_VALUES, len(classes or ()))
        yield ColumnSummary(
            name=name,
            encoding=encoding,
            payload_bytes=size,
            numbers=None if numbers is None else describe(numbers, most),
            lengths=lengths.get(name),
            classes=classes,
        )


def _classes(index: Index) -> tuple[str, ...] | None:
    """The class names in the metadata, if `label` is a column of integers."""
    classes = index.metadata.get("classes")
    return tuple(map(str, classes[:_MOST_CLASSES])) if isinstance(classes, list) else None


def _shared_columns(index: Index) -> Columns:
    """The columns that all shards have with equal encodings."""
    kinds = [set(zip(kind.columns.names, kind.columns.encodings, strict=True)) for kind in index.kinds]
    shared = set.intersection(*kinds) if kinds else set()
    return index.columns([name for name, _ in shared])


def _spread(values: npt.NDArray[np.int64]) -> tuple[int, float, int]:
    return (int(values.min()), float(np.median(values)), int(values.max())) if values.size else (0, 0.0, 0)
