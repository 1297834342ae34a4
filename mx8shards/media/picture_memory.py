"""How much memory may decoding a picture take? Each thread has scratch, and all share memory for one large picture."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError
from mx8shards.media import decoding

Bytes = npt.NDArray[np.uint8]

_FIRST_BYTES = 2 << 20  # initial scratch of a thread; it grows when a picture needs more
_RETURNED_BYTES = 1 << 20  # of freed memory, before it is returned to the system: the call is slow
_MOST_BYTES = 64 << 20  # of a thread's scratch; larger pictures are decoded one at a time


def thread_bytes(scratch_bytes: int, threads: int) -> int:
    """The limit of each thread's scratch: half of the memory for all threads is divided among them."""
    return min(_MOST_BYTES, scratch_bytes // 2 // threads)


class LargeMemory:
    """Memory for pictures that are too large for a thread's scratch, one at a time. All stages of a pool share it."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.lock = RLock()
        self._scratch = decoding.aligned_scratch(0)

    def scratch(self, size_bytes: int) -> Bytes:
        """At least `size_bytes` of scratch. The caller holds the lock."""
        if len(self._scratch) < size_bytes:
            self._scratch = decoding.aligned_scratch(0)  # freed first
            self._scratch = decoding.aligned_scratch(min(2 * size_bytes, self.most_bytes))
        return self._scratch

    @contextmanager
    def alone(self, size_bytes: int) -> Iterator[None]:
        """Hold the lock while the thread allocates `size_bytes` elsewhere, and frees them."""
        with self.lock:
            self._scratch = decoding.aligned_scratch(0)
            try:
                yield
            finally:
                if size_bytes >= _RETURNED_BYTES:
                    decoding.return_freed_memory()


class ThreadMemory:
    """A thread's resource of a stage: the workspace of kernels, and scratch, which all stages of the thread share."""

    def __init__(self, workspace: Any, limit_bytes: int, large: LargeMemory) -> None:
        self.workspace = workspace
        self.large = large
        self._limit_bytes = limit_bytes
        shared = getattr(_current_thread, "scratch", lambda: None)()
        self._shared = shared or _SharedScratch(min(_FIRST_BYTES, limit_bytes))
        _current_thread.scratch = weakref.ref(self._shared)

    @property
    def scratch(self) -> Bytes:
        """The thread's scratch in its current size."""
        return self._shared.scratch

    def grow(self, size_bytes: int) -> bool:
        """Make the scratch at least this large; False if that exceeds the thread's limit."""
        if size_bytes > self._limit_bytes:
            return False
        self.free()
        self._shared.scratch = decoding.aligned_scratch(min(2 * size_bytes, self._limit_bytes))
        return True

    def free(self) -> None:
        """Free the thread's scratch, until `grow` is called."""
        self._shared.scratch = decoding.aligned_scratch(0)

    def take(self, size_bytes: int, locks: ExitStack, kept_bytes: int = 0) -> None:
        """Count `size_bytes`, before a library allocates them, against the thread's limit or as a large picture.

        Large pictures are decoded one at a time: the lock is held until `locks` is closed. `kept_bytes` of the thread's
        scratch stay in use. DecodeError if the picture exceeds both limits.
        """
        if size_bytes > self.large.most_bytes:
            raise DecodeError(expected=f"a picture decoded in {self.large.most_bytes} bytes", found=f"{size_bytes}")
        if size_bytes + kept_bytes > self._limit_bytes:
            locks.enter_context(self.large.alone(size_bytes))
        elif size_bytes + len(self.scratch) > self._limit_bytes:
            self.free()

    def close(self) -> None:
        """Release the thread's scratch. It is freed with the last stage of the thread."""
        self._shared = _SharedScratch(0)


class _SharedScratch:
    """The scratch of a thread, which lives as long as one of the thread's stages refers to it."""

    def __init__(self, size_bytes: int) -> None:
        self.scratch = decoding.aligned_scratch(size_bytes)


_current_thread = threading.local()  # `scratch`: a weak reference to the thread's _SharedScratch
