"""How quick is the disk, read at random in pieces of the samples' sizes, with so many requests at a time?"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters import spans

SETTINGS: dict[str, object] = {"checks": "none"}


class RandomReader:
    """Every sample once, whole, in random order, each by one preadv into a buffer that its thread has."""

    def __init__(self, root: Path, batch_size: int, depth: int) -> None:
        found = spans.find(root)
        self._descriptors = [os.open(path, os.O_RDONLY) for path in found.paths]
        begins, sizes = found.begins[:, 0], found.sizes.sum(axis=1)
        order = np.random.default_rng(17).permutation(len(found))
        self._reads = list(
            zip(found.shards[order].tolist(), begins[order].tolist(), sizes[order].tolist(), strict=True)
        )
        self._buffers = [np.ones(int(sizes.max()), np.uint8) for _ in range(depth)]
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All is read by the time the one batch comes, which stands for them all."""
        reads = iter(self._reads)  # next() of a list's iterator is atomic
        threads = [threading.Thread(target=self._read, args=(reads, buffer)) for buffer in self._buffers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield {"samples": len(self._reads)}

    def _read(self, reads: Iterator[tuple[int, int, int]], buffer: Any) -> None:
        view, descriptors = memoryview(buffer), self._descriptors
        for shard, begin, size in reads:
            os.preadv(descriptors[shard], [view[:size]], begin)

    def close(self) -> None:
        """No file is open."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def open_loader(root: Path, batch_size: int, depth: int) -> RandomReader:
    """The reader, its files open."""
    return RandomReader(root, batch_size, depth)
