"""How does an SPDL pipeline read samples?

SPDL has no format, only threads and queues. So its users would have to compute the offsets of the samples in the mapped
shards; here they are given. Each operation makes a whole batch in one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from spdl.pipeline import PipelineBuilder

from benchmarks.adapters import spans

AHEAD = 4  # finished batches in the pipeline's last queue


class PipelineLoader:
    """Builds a pipeline for every epoch, as SPDL's own loaders do."""

    def __init__(self, root: Path, batch_size: int, threads: int) -> None:
        self._spans = spans.find(root)
        self._maps = [np.memmap(path, np.uint8, "r").data for path in self._spans.paths]
        self._random = np.random.default_rng(17)
        self._batch_size = batch_size
        self._threads = threads

    def __iter__(self) -> Iterator[list[Any]]:
        order = self._random.permutation(len(self._spans))
        rows = np.split(order, range(self._batch_size, len(order), self._batch_size))
        builder: Any = PipelineBuilder()
        builder.add_source(rows).pipe(self._batch, concurrency=self._threads, output_order="input")
        pipeline = builder.add_sink(AHEAD).build(num_threads=self._threads)
        with pipeline.auto_stop():
            yield from pipeline

    def _batch(self, rows: npt.NDArray[np.int64]) -> list[Any]:
        """The bytes of each column as one tensor, with their sizes."""
        found = self._spans
        shards, columns = found.shards[rows].tolist(), []
        for column in range(found.sizes.shape[1]):
            begins, sizes = found.begins[rows, column], found.sizes[rows, column]
            ends = (begins + sizes).tolist()
            parts = [self._maps[shard][a:b] for shard, a, b in zip(shards, begins.tolist(), ends, strict=True)]
            columns.append((torch.frombuffer(bytearray().join(parts), dtype=torch.uint8), sizes))
        return columns

    def close(self) -> None:
        """Nothing to do: each pipeline ends with its epoch."""


def open_loader(root: Path, batch_size: int, threads: int) -> PipelineLoader:
    """All columns of all samples."""
    return PipelineLoader(root, batch_size, threads)
