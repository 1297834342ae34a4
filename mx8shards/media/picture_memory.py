"""How much memory may decoding a picture take? Each thread has scratch, and all share room for one large picture."""

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

_FIRST_BYTES = 2 << 20  # of a thread's scratch, which grows as pictures ask for it
_RETURNED_BYTES = 1 << 20  # smaller pictures leave little behind, and the call takes longer than they
_MOST_BYTES = 64 << 20  # of a thread's; larger pictures take turns


def thread_bytes(scratch_bytes: int, threads: int) -> int:
    """How much memory each thread may have of its own: half of what there is for all."""
    return min(_MOST_BYTES, scratch_bytes // 2 // threads)


class LargeMemory:
    """Memory for one picture at a time that is too large for a thread's own. All stages of a pool share it."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.lock = RLock()
        self._memory = decoding.room(0)

    def memory(self, size_bytes: int) -> Bytes:
        """At least so many bytes; the lock is held."""
        if len(self._memory) < size_bytes:
            self._memory = decoding.room(0)
            self._memory = decoding.room(min(2 * size_bytes, self.most_bytes))
        return self._memory

    @contextmanager
    def alone(self, size_bytes: int) -> Iterator[None]:
        """The thread's turn to allocate so many bytes or more in its own way; everything is freed when that ends."""
        with self.lock:
            self._memory = decoding.room(0)
            try:
                yield
            finally:
                if size_bytes >= _RETURNED_BYTES:
                    decoding.return_freed_memory()


class ThreadMemory:
    """What one thread has for a stage: a record that kernels work on, and memory, which its stages share."""

    def __init__(self, workspace: Any, own_bytes: int, large: LargeMemory) -> None:
        self.workspace = workspace
        self.large = large
        self._own_bytes = own_bytes
        self._room = getattr(_of_thread, "room", lambda: None)() or _Room(min(_FIRST_BYTES, own_bytes))
        _of_thread.room = weakref.ref(self._room)

    @property
    def memory(self) -> Bytes:
        """The thread's own memory, as large as it is now."""
        return self._room.memory

    def grow(self, size_bytes: int) -> bool:
        """Have at least so many bytes, unless that is more than a thread may have."""
        if size_bytes > self._own_bytes:
            return False
        self.free()
        self._room.memory = decoding.room(min(2 * size_bytes, self._own_bytes))
        return True

    def free(self) -> None:
        """Free the thread's own memory, until a kernel asks for it again."""
        self._room.memory = decoding.room(0)

    def take(self, size_bytes: int, turn: ExitStack, kept_bytes: int = 0) -> None:
        """Called before a library takes so many bytes: out of the thread's own, or else of those for a large picture.

        For the latter, threads take turns: this one's lasts as long as `turn`. Of the thread's own memory, `kept_bytes`
        stay in use. DecodeError for more than there is.
        """
        if size_bytes > self.large.most_bytes:
            raise DecodeError("a picture that takes more memory than there is")
        if size_bytes + kept_bytes > self._own_bytes:
            turn.enter_context(self.large.alone(size_bytes))
        elif size_bytes + len(self.memory) > self._own_bytes:
            self.free()

    def close(self) -> None:
        """Let go of the thread's memory, which is freed with the last stage of the thread."""
        self._room = _Room(0)


class _Room:
    """A thread's memory, for as long as a stage of it lives."""

    def __init__(self, size_bytes: int) -> None:
        self.memory = decoding.room(size_bytes)


_of_thread = threading.local()
