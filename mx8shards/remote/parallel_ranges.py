"""How is an object downloaded in parallel ranges, so that a batch waits for it about as long as for one range?

The answer to the first range tells the ETag, and all others are asked for on the condition that it is still the same.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from mx8shards.errors import RemoteError
from mx8shards.remote.partial_file import PartialFile
from mx8shards.remote.retries import interruptibly
from mx8shards.remote.store import Span

RANGE_BYTES = 8 << 20
MOST_RANGES = 16  # requests to one server at a time, for all objects and datasets of this process


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
        """The bytes of the whole object that have come: it may make progress while this part waits."""
        return sum(part.done for part in self._whole.parts)

    @property
    def etag(self) -> str:
        """The ETag that the object must have; "" in the first request, or if the store has none."""
        return self._whole.etag

    @property
    def stopped(self) -> threading.Event:
        """Set when the object is not wanted any more, such as when another part has failed: then nothing is asked."""
        return self._whole.stopped

    def answered(self, etag: str) -> None:
        """Note the ETag of an answer that begins, and let the other parts be asked for."""
        self._whole.etag = etag
        self._whole.go_on()

    def write(self, data: memoryview) -> None:
        """Take the next bytes. RemoteError of reason "changed", so that nobody tries again, if they are not wanted."""
        if self._whole.stopped.is_set():
            raise RemoteError("another part of the object failed", reason="changed")
        if len(data) > self._end - self._begin - self.done:
            raise RemoteError("the answer has more bytes than were asked for", reason="changed")
        self._whole.file.write_at(data, self._begin + self.done)
        self.done += len(data)


class _Whole:
    """What the parts of one object share."""

    def __init__(self, file: PartialFile, size_bytes: int, read: Callable[[Part], object], crew: _Crew) -> None:
        self._crew = crew
        self.file = file
        self.size_bytes = size_bytes
        self.etag = ""
        self.stopped = threading.Event()
        self.parts = [Part(self, begin) for begin in range(0, size_bytes, RANGE_BYTES)]
        self._read = read
        self._lock = threading.Lock()
        self._first, *self._others = self.parts  # the others: as long as nobody has asked for them
        self._left = len(self.parts)
        self._ended = threading.Event()
        self._failure: BaseException | None = None  # the first one

    def fetch(self) -> None:
        """Fetch all parts, and raise the first failure."""
        self._crew.submit([partial(self._fetch, self._first)])
        self._ended.wait()
        if self._failure is not None:
            raise self._failure

    def go_on(self) -> None:
        """Ask for the other parts, as the ETag is known."""
        with self._lock:
            others, self._others = self._others, []
        self._crew.submit(partial(self._fetch, part) for part in others)

    def stop(self) -> None:
        """End all parts."""
        self.stopped.set()
        self._ended.set()

    def _fetch(self, part: Part) -> None:
        if self.stopped.is_set():
            return
        try:
            self._read(part)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for the object
            self._failure = self._failure or error
            self.stop()
        with self._lock:
            self._left -= 1
            if not self._left:
                self._ended.set()


class _Crew:
    """At most `MOST_RANGES` threads, which nobody has to wait for, make calls in the order in which they come.

    Not used by the main thread: Ctrl-C may come between a thread's start and its count.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], None]] = deque()
        self._threads = 0

    def submit(self, calls: Iterable[Callable[[], None]]) -> None:
        """Queue calls, none of which raises."""
        with self._lock:
            self._calls.extend(calls)
            for _ in range(min(len(self._calls), MOST_RANGES - self._threads)):
                threading.Thread(target=self._work, name="mx8shards-range", daemon=True).start()
                self._threads += 1

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._threads -= 1
                    return
                call = self._calls.popleft()
            call()


# Of each server: those of one that hangs must not keep ranges of another from being asked for. A forked child has none
# of its parent's threads, but may inherit a lock that one of them held.
_crews: dict[str, _Crew] = {}
os.register_at_fork(after_in_child=_crews.clear)


def fetch_in_ranges(
    read: Callable[[Part], object],
    target: Path,
    size_bytes: int,
    closed: threading.Event | None = None,
    server: str = "",
) -> None:
    """Write an object into the new file `target`. There is no file after an error, or after Ctrl-C.

    Args:
        read: Asks for the missing bytes of a part and writes them, with all attempts that it takes.
        target: The file.
        size_bytes: The size of the object.
        closed: If it is set, nothing is asked for any more, and RemoteError is raised.
        server: Which server is asked.
    """
    with PartialFile(target) as file:
        whole = _Whole(file, size_bytes, read, _crews.setdefault(server, _Crew()))
        try:
            interruptibly(whole.fetch, closed or threading.Event())
        finally:
            whole.stop()
