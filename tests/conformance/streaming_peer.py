"""How are datasets written and read with the real mosaicml-streaming?"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import mx8shards as mx8
from tests.strategies import Sample


@contextlib.contextmanager
def clock_at_zero() -> Iterator[None]:
    """Stop the clock at 0, so that gzip headers are reproducible and MDSWriter does not sleep for a second."""
    frozen = mock.patch("gzip.time", SimpleNamespace(time=lambda: 0))
    hurried = mock.patch("streaming.base.format.base.writer.sleep", side_effect=lambda _seconds: time.sleep(0.001))
    with frozen, hurried:
        yield


def write_theirs(
    streaming: Any, root: Path, columns: Mapping[str, str], samples: Iterable[Sample], **options: Any
) -> Path:
    """Write a dataset with MDSWriter."""
    with clock_at_zero(), streaming.MDSWriter(out=str(root), columns=dict(columns), **options) as writer:
        for sample in samples:
            writer.write(sample)
    return root


def write_ours(root: Path, columns: Mapping[str, str], samples: Iterable[Sample], **options: Any) -> Path:
    """Write the same dataset with our Writer."""
    with mx8.Writer(root, columns=columns, allow_pickle=True, **options) as writer:
        for sample in samples:
            writer.write(sample)
    return root


def read_local(streaming: Any, root: Path, split: str | None = None) -> list[Sample]:
    """All samples as LocalDataset reads them; it supports only uncompressed shards."""
    dataset = streaming.LocalDataset(str(root), split)
    return [dataset[i] for i in range(len(dataset))]


def read_remote(
    streaming: Any, root: Path, cache: Path, *, split: str | None = None, validate_hash: str | None = None
) -> list[Sample]:
    """All samples as StreamingDataset reads them; it copies each file to `cache`, verifies and decompresses it."""
    dataset = streaming.StreamingDataset(
        remote=str(root),
        local=str(cache),
        split=split,
        validate_hash=validate_hash,
        batch_size=1,
        shuffle=False,
        allow_unsafe_types=True,
    )
    try:
        return [dataset[i] for i in range(dataset.num_samples)]
    finally:
        shutil.rmtree(cache)


def files(root: Path) -> dict[str, bytes]:
    """Every shard file below a directory, by its relative path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.mds*"))}
