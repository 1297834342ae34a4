"""How is a long operation run in threads, and how does it report progress?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

from mx8shards.shards.cores import core_count

_A = TypeVar("_A")
_R = TypeVar("_R")

Progress = Callable[[int, int], object]
"""Called with the number of bytes done and the total number of bytes, never by two threads at once."""


class Ticker:
    """Adds up the progress of several threads and calls a progress function."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._lock = Lock()
        self.done = 0

    def tick(self, size_bytes: int) -> None:
        """Report that another `size_bytes` bytes are done."""
        with self._lock:
            self.done += size_bytes
            if self._progress is not None:
                self._progress(self.done, self._total)


def thread_count(most: int = 8) -> int:
    """One thread per core that this process may use."""
    return min(most, core_count())


@contextlib.contextmanager
def map_in_threads(function: Callable[[_A], _R], items: Iterable[_A], threads: int) -> Iterator[Iterator[_R]]:
    """The results of `function` for all items, in order, computed in threads. Leaving cancels the remaining items."""
    pool = ThreadPoolExecutor(threads, "mx8shards-maintain")
    try:
        yield pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
