"""Helpers for loader tests: small datasets, and comparing batches row by row."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mx8shards as mx8
from tests.strategies import NUMBERED, Sample, numbered_samples, same


def write(root: Path, samples: Iterable[Sample], columns: Mapping[str, str] = NUMBERED, **options: Any) -> mx8.Dataset:
    """Write these samples in small shards, and open the dataset."""
    options = {"size_limit": 700, "threads": 1, **options}
    with mx8.Writer(root, columns=dict(columns), allow_pickle=True, **options) as writer:
        for sample in samples:
            writer.write(sample)
    return mx8.Dataset(root, allow_pickle=True)


@contextlib.contextmanager
def removed_afterwards(root: Path) -> Iterator[Path]:
    """Remove the directory after the block: Hypothesis runs many examples in one test, which would share `tmp_path`."""
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def numbered(root: Path, count: int, **options: Any) -> mx8.Dataset:
    return write(root, numbered_samples(count), **options)


def ids_of(loader: Iterable[Any]) -> list[list[int]]:
    """The sample_ids of an epoch, batch by batch, without padding."""
    return [batch.sample_ids[~batch.padding].tolist() for batch in loader]


def flat(batches: Iterable[Iterable[int]]) -> list[int]:
    return [i for batch in batches for i in batch]


def row_differs(batch: Any, row: int, wanted: Sample) -> str:
    """The name of a column with a wrong value in this row, or ""."""
    assert sorted(batch) == sorted(wanted)
    for name, value in wanted.items():
        found = batch[name]
        if hasattr(found, "padded"):
            if not same(found[row], value):
                return name
        else:
            array = np.asarray(found)[row]
            if array.shape != np.shape(value) or array.tobytes() != np.asarray(value, array.dtype).tobytes():
                return name
    return ""


def check_values(batch: Any, dataset: mx8.Dataset) -> None:
    """Assert that each row equals the dataset's sample of its sample_id. `dataset` must not be a view."""
    assert len(batch.sample_ids) == len(batch.padding)
    for row, sample_id in enumerate(batch.sample_ids.tolist()):
        assert not row_differs(batch, row, dataset[sample_id]), f"sample {sample_id}"
