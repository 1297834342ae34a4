"""Upper bound of a copying loader: memcpy from mapped shards into banks, in random order, with several threads.

Sources and destinations of all rows are computed before the measurement, so only the copying itself is measured.
"""

from __future__ import annotations

import itertools
import mmap
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adapters import spans
from mx8shards.kernels.jit import INT, MEMORY, NOTHING, array, kernel
from mx8shards.kernels.memory import memcpy

Array = npt.NDArray[Any]
SETTINGS: dict[str, object] = {"checks": "none"}


@dataclass(frozen=True, slots=True)
class _Copy:
    """One column of one batch."""

    sources: Array  # addresses
    sizes: Array
    offsets: Array


class MemcpyLoader:
    """Epochs in one fixed random order. A batch is valid until the next one is taken."""

    def __init__(self, root: Path, batch_size: int, threads: int, banks: int) -> None:
        found = spans.find(root)
        self._maps = [np.memmap(path, np.uint8, "r") for path in found.paths]
        bases = np.array([mapped.ctypes.data for mapped in self._maps], np.uint64)
        order = np.random.default_rng(17).permutation(len(found))
        parts = np.split(order, range(batch_size, len(order), batch_size))
        self._batches = [
            [_copy(bases, found, rows, column) for column in range(found.sizes.shape[1])] for rows in parts
        ]
        most = [
            max(int(batch[column].sizes.sum()) for batch in self._batches) for column in range(found.sizes.shape[1])
        ]
        self._banks = [[_memory(size) for size in most] for _ in range(banks)]
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        waiting: deque[tuple[list[Array], list[Future[None]]]] = deque()
        banks = itertools.cycle(self._banks)
        for batch in self._batches:
            if len(waiting) == len(self._banks) - 1:  # one bank is with the consumer
                yield _done(*waiting.popleft())
            bank = next(banks)
            waiting.append((bank, self._start(batch, bank)))
        while waiting:
            yield _done(*waiting.popleft())

    def _start(self, batch: list[_Copy], bank: list[Array]) -> list[Future[None]]:
        cuts = np.linspace(0, len(batch[0].sizes), self._threads + 1).astype(int).tolist()
        return [self._pool.submit(self._fill, batch, bank, a, b) for a, b in itertools.pairwise(cuts)]

    def _fill(self, batch: list[_Copy], bank: list[Array], start: int, stop: int) -> None:
        for copy, out in zip(batch, bank, strict=True):
            _copy_rows(copy.sources, copy.sizes, copy.offsets, start, stop, out)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def open_loader(root: Path, batch_size: int, threads: int, banks: int) -> MemcpyLoader:
    """All columns of all samples."""
    return MemcpyLoader(root, batch_size, threads, banks)


@kernel(NOTHING, array(np.uint64), array(np.int64), array(np.int64), INT, INT, MEMORY)
def _copy_rows(sources: Array, sizes: Array, offsets: Array, start: int, stop: int, out: Array) -> None:
    target = np.uint64(out.ctypes.data)
    for i in range(start, stop):
        memcpy(target + np.uint64(offsets[i]), sources[i], np.uint64(sizes[i]))


def _copy(bases: Array, found: spans.Spans, rows: Array, column: int) -> _Copy:
    sizes = np.ascontiguousarray(found.sizes[rows, column])
    sources = bases[found.shards[rows]] + found.begins[rows, column].astype(np.uint64)
    return _Copy(sources, sizes, np.cumsum(sizes) - sizes)


def _memory(size_bytes: int) -> Array:
    """Allocate memory and touch it; in huge pages if the kernel has them, which is fastest for copies."""
    memory = mmap.mmap(-1, max(size_bytes, 1))
    memory.madvise(mmap.MADV_HUGEPAGE)
    bank = np.frombuffer(memory, np.uint8)
    bank[:] = 1
    return bank


def _done(bank: list[Array], futures: list[Future[None]]) -> dict[str, Any]:
    for future in futures:
        future.result()
    return {str(column): out for column, out in enumerate(bank)}
