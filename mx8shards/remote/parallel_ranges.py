"""How does an object come in parallel ranges? Then a batch that waits for it waits about as long as for one range.

The answer to the first range tells the ETag, and all others are asked for on the condition that it is still the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path

from mx8shards.errors import RemoteError
from mx8shards.remote.partial_file import PartialFile
from mx8shards.remote.store import Span

RANGE_BYTES = 8 << 20
_MOST_THREADS = 16  # of one object
_POLL_S = 0.25


class _Whole:
    """What the parts of one object share."""

    def __init__(self, file: PartialFile, size_bytes: int) -> None:
        self.file = file
        self.size_bytes = size_bytes
        self.parts = [Part(self, begin) for begin in range(0, size_bytes, RANGE_BYTES)]
        self.etag = ""
        self.begun = threading.Event()  # the first answer has come, or will not come
        self.stopped = threading.Event()
        self.failure: BaseException | None = None  # the first one

    def stop(self) -> None:
        """Let all parts end."""
        self.stopped.set()
        self.begun.set()


class Part:
    """A range of an object, which several attempts write into a file. Used by one thread at a time."""

    def __init__(self, whole: _Whole, begin: int) -> None:
        self._whole = whole
        self._begin = begin
        self._end = min(begin + RANGE_BYTES, whole.size_bytes)
        self.done = 0

    @property
    def missing(self) -> Span:
        """The bytes of the object that have not come yet."""
        return self._begin + self.done, self._end

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self._begin + self.done == self._end

    @property
    def arrived(self) -> int:
        """The bytes of all parts of the object that have come: it makes progress, although this part may wait."""
        return sum(part.done for part in self._whole.parts)

    @property
    def etag(self) -> str:
        """The ETag that the object must have; "" in the first request, or if the store has none."""
        return self._whole.etag

    def answered(self, etag: str) -> None:
        """An answer with this ETag begins."""
        self._whole.etag = etag
        self._whole.begun.set()

    def write(self, data: memoryview) -> None:
        """Take the next bytes. RemoteError of reason "changed", so that nobody tries again, if they are not wanted."""
        if self._whole.stopped.is_set():
            raise RemoteError("another part of the object failed", reason="changed")
        if len(data) > self._end - self._begin - self.done:
            raise RemoteError("the answer has more bytes than were asked for", reason="changed")
        self._whole.file.write_at(data, self._begin + self.done)
        self.done += len(data)

    def wait_for_first(self) -> bool:
        """Wait until the ETag is known; False if the fetch was stopped."""
        self._whole.begun.wait()
        return not self._whole.stopped.is_set()


def fetch_in_ranges(read: Callable[[Part], object], target: Path, size_bytes: int) -> None:
    """Write an object into the new file `target`. There is no file after an error, or after Ctrl-C.

    `read` asks for the missing bytes of a part and writes them, with all attempts that it takes.
    """
    with PartialFile(target) as file:
        whole = _Whole(file, size_bytes)
        first, *others = whole.parts
        try:
            ended = [_in_thread(partial(read, first), whole)]
            shares = [others[number::_MOST_THREADS] for number in range(min(len(others), _MOST_THREADS))]
            ended += [_in_thread(partial(_read_all, read, share), whole) for share in shares]
            while wait(ended, _POLL_S).not_done and whole.failure is None:
                pass  # Ctrl-C is heard between two waits
        finally:
            whole.stop()
        if whole.failure is not None:
            raise whole.failure


def _read_all(read: Callable[[Part], object], parts: list[Part]) -> None:
    """Read parts one after the other, once the object's ETag is known."""
    for part in parts:
        if part.wait_for_first():
            read(part)


def _in_thread(work: Callable[[], object], whole: _Whole) -> Future[None]:
    """Call `work` in a thread that nobody has to wait for. Its failure stops the others."""
    ended: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            whole.failure = whole.failure or error
            whole.stop()
        ended.set_result(None)

    threading.Thread(target=run, name="mx8shards-range", daemon=True).start()
    return ended
