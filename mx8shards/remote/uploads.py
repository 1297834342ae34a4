"""How are files sent to a store in the background, with a bounded number of them waiting?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mx8shards.disk.map import ReadFile
from mx8shards.errors import RemoteError
from mx8shards.remote.store import Store

PARALLEL = 8
_WAITING = 2 * PARALLEL  # files that are being sent or wait to be sent: more would only take disk space
_CHUNK_BYTES = 8 << 20


class Uploads:
    """Sends files, several at a time. An existing object is never overwritten, unless `overwrite` is set.

    After a failure, `send` and `wait` raise the first error. All methods are thread-safe, but only one thread may call
    `wait` or `stop`.
    """

    def __init__(self, store: Store, *, overwrite: bool) -> None:
        self._store = store
        self._overwrite = overwrite
        self._slots = threading.Semaphore(_WAITING)
        self._pool = ThreadPoolExecutor(PARALLEL, "mx8shards-upload")
        self._failure: BaseException | None = None
        self.attempted: list[str] = []  # keys that this has created, or that it may have created

    def send(self, key: str, source: Path, done: Callable[[], object]) -> None:
        """Send a file, and call `done` then, or if it is not sent. Waits while too many files wait."""
        self._slots.acquire()
        try:
            self._raise()
            future = self._pool.submit(self._send, key, source)
        except BaseException:
            self._slots.release()
            done()
            raise
        future.add_done_callback(lambda future: self._ended(future, done))

    def _send(self, key: str, source: Path) -> None:
        if self._failure is None:
            put_file(self._store, key, source, overwrite=self._overwrite, attempted=self.attempted)

    def _ended(self, future: Future[None], done: Callable[[], object]) -> None:
        try:
            if not future.cancelled() and self._failure is None:
                self._failure = future.exception()
            done()
        finally:
            self._slots.release()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        """Wait until all files are sent; raises the first error."""
        for _ in range(_WAITING):  # all slots are free only if nothing is being sent
            self._slots.acquire()
        self._slots.release(_WAITING)
        self._raise()

    def stop(self) -> None:
        """Wait for the files that are being sent, and send no others."""
        self._pool.shutdown(cancel_futures=True)


def put_file(store: Store, key: str, source: Path, *, overwrite: bool, attempted: list[str]) -> None:
    """Send a file as a new object, and append its key to `attempted` unless another object of this name is there.

    A put whose answer was lost is sent again, and then finds its own object: that is success.
    """
    attempt = [key]
    try:
        store.put(key, source, new=not overwrite)
    except RemoteError as error:
        if error.reason != "changed":
            raise
        if not has_bytes_of(store, key, source):
            attempt = []
            hint = "another program writes to this dataset, or an upload was broken off here"
            raise RemoteError(
                "another object of this name is there", subject=f"{store.url}/{key}", hint=hint, reason="changed"
            ) from error
    finally:
        attempted += attempt


def has_bytes_of(store: Store, key: str, source: Path) -> bool:
    """Whether an object has the bytes of a file. Reads both."""
    file = ReadFile(source)
    size = file.size_bytes
    found = store.head(key)
    if found is None or found.size_bytes != size:
        return False
    for begin in range(0, size, _CHUNK_BYTES):
        end = min(begin + _CHUNK_BYTES, size)
        if store.read_spans(key, [(begin, end)], found.etag) != [file.read(begin, end - begin)]:
            return False
    return True
