"""How does a whole object come into a file? In one stream or in parallel ranges, with all attempts that it takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from mx8shards.errors import RemoteError
from mx8shards.remote.parallel_ranges import Part, fetch_in_ranges
from mx8shards.remote.partial_file import PartialFile
from mx8shards.remote.store import Span

_logger = logging.getLogger("mx8shards")


class Answer(Protocol):
    """The answer to a request for an object, or for a part of one. A store that ignores ranges gives all of it."""

    @property
    def span(self) -> Span:
        """Which bytes of the object the body has."""

    @property
    def size_bytes(self) -> int:
        """The size of the whole object."""

    @property
    def etag(self) -> str:
        """The ETag of the object; "" if the store has none."""

    def copy_to(self, write: Callable[[memoryview], object]) -> None:
        """Pass the body to `write`, piece by piece. What came before an error is passed on, too."""


# Asks for an object, or for a span of it; if an ETag is given, on the condition that the object has it.
Get = Callable[[Span | None, str], AbstractContextManager[Answer]]


class Attempts(Protocol):
    """Calls `work` with a `Get`, again after transient faults.

    `progress` tells how many bytes have come. If `stopped` is set, there is no further attempt.
    """

    def __call__(
        self, work: Callable[[Get], None], progress: Callable[[], int], stopped: threading.Event | None = None, /
    ) -> None: ...


def fetch_in_one_stream(attempts: Attempts, target: Path, size_bytes: int, subject: str, algorithm: str) -> str:
    """Write an object of this size into the new file `target`, and return its hash; "" without an algorithm.

    A broken attempt is continued where it stopped, or begun again if the store gives only whole objects.
    """
    etag = ""
    with PartialFile(target, algorithm) as file:

        def attempt(get: Get) -> None:
            nonlocal etag
            goes_on = bool(etag) and 0 < file.done < size_bytes
            with get((file.done, size_bytes), etag) if goes_on else get(None, "") as answer:
                begin = answer.span[0]
                _require_same(answer, size_bytes, etag if begin else "", subject)
                if begin != file.done:
                    file.restart()
                etag = answer.etag
                answer.copy_to(file.write)
            if file.done != size_bytes:
                raise RemoteError(f"the answer ended after {file.done} of {size_bytes} bytes", subject=subject)

        attempts(attempt, lambda: file.done)
        return file.hash_hex


def fetched_in_parallel(
    attempts: Attempts, target: Path, size_bytes: int, subject: str, closed: threading.Event, server: str
) -> bool:
    """Write an object into the new file `target`; False, and no file, if the store gives no ranges of it."""

    def read(part: Part) -> None:
        def attempt(get: Get) -> None:
            if part.is_whole:  # the connection broke behind the last byte
                return
            wanted = part.etag
            with get(part.missing, wanted) as answer:
                _require_same(answer, size_bytes, wanted, subject)
                begin, end = part.missing
                if answer.span[0] != begin or answer.span[1] > end:
                    raise RemoteError("the store gives no ranges", subject=subject, reason="denied")
                if not answer.etag:
                    raise RemoteError("the store gives no ETag", subject=subject, reason="denied")
                part.answered(answer.etag)
                answer.copy_to(part.write)
            if not part.is_whole:
                raise RemoteError("the answer ended too early", subject=subject)

        attempts(attempt, lambda: part.arrived, part.stopped)

    try:
        fetch_in_ranges(read, target, size_bytes, closed, server)
    except RemoteError as error:
        if error.reason == "network":
            raise
        _logger.info("%s comes in one piece, as a range of it failed: %s", subject, error)
        return False
    return True


def _require_same(answer: Answer, size_bytes: int, etag: str, subject: str) -> None:
    """RemoteError of reason "changed" unless it is of an object of this size. Some stores ignore If-Match."""
    if answer.size_bytes != size_bytes:
        found = f"{answer.size_bytes} bytes"
        raise RemoteError(subject=subject, expected=f"{size_bytes} bytes", found=found, reason="changed")
    if etag and answer.etag not in ("", etag):
        raise RemoteError(subject=subject, expected=f"the ETag {etag}", found=answer.etag, reason="changed")
