"""Upper bound of cold reading: random preads of the samples' sizes with several threads, into their own buffers."""

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
    """Reads every sample once, in random order, each with one preadv into a buffer of the thread."""

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
        """Read all samples, then yield one batch that stands for the whole epoch."""
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
        """Close the files."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def open_loader(root: Path, batch_size: int, depth: int) -> RandomReader:
    """The reader, with its files open."""
    return RandomReader(root, batch_size, depth)
