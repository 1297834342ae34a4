"""How does a forked process, such as a DataLoader worker, use an object store? It asks a helper process.

The client of an object store has threads, which do not exist in a forked process; there it would wait for ever. A
helper process starts from a fresh interpreter, so it has no such past. It ends when the pipe to it is closed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

from mx8shards.disk import operations
from mx8shards.errors import RemoteError
from mx8shards.remote.store import Fetched, Listed, Span, Store

_T = TypeVar("_T")

# The first object in the pipe is the search path for modules, the second is the store.
_MAIN = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from mx8shards.remote.store_process import serve
serve()
"""
_THREADS = 32
_ENDED = "the helper process that asks the object store has ended"


class HelperEndedError(RemoteError):
    """The helper process has ended before it answered."""


class ForkSafe:
    """A Store that also works in a process forked from the one that made it: there a helper process does the work.

    Args:
        store: The store. In the process that made it, it is asked directly.

    Attributes:
        client_is_dead: Whether this process was forked from one that had loaded obstore, which has threads.
    """

    client_is_dead: ClassVar[bool] = False

    def __init__(self, store: Store) -> None:
        self._store = store
        self._owner = -1 if self.client_is_dead else os.getpid()
        self._lock = threading.Lock()
        self._helper: StoreProcess | None = None
        _made.add(self)

    def __reduce__(self) -> tuple[Callable[[Store], ForkSafe], tuple[Store]]:
        return ForkSafe, (self._store,)

    def __repr__(self) -> str:
        return repr(self._store)

    def forked(self) -> None:
        """Forget what belongs to the parent process: its helper, and a lock that another thread may have held."""
        self._lock = threading.Lock()
        self._helper = None

    def _asked(self) -> Store:
        """Whoever does the work in this process."""
        if os.getpid() == self._owner:
            return self._store
        with self._lock:
            if self._helper is None or not self._helper.alive:
                self._helper = StoreProcess(self._store)
            return self._helper

    @property
    def url(self) -> str:
        """The URL of the prefix."""
        return self._store.url

    @property
    def address(self) -> str:
        """The URL and the endpoint."""
        return self._store.address

    @property
    def can_put_conditionally(self) -> bool:
        """Whether `put` honours `if_match`."""
        return self._answer(lambda store: store.can_put_conditionally)

    def read(self, key: str, most: int) -> Fetched:
        """A whole object of at most `most` bytes."""
        return self._answer(lambda store: store.read(key, most))

    def read_spans(self, key: str, spans: Sequence[Span], etag: str | None) -> list[bytes]:
        """Parts of an object."""
        return self._answer(lambda store: store.read_spans(key, spans, etag))

    def head(self, key: str) -> Listed | None:
        """Size and ETag of an object."""
        return self._answer(lambda store: store.head(key))

    def fetch(self, key: str, target: Path, size_bytes: int, *, in_ranges: bool = False) -> None:
        """Write a whole object into the new file `target`."""

        def fetch(store: Store) -> None:
            try:
                store.fetch(key, target, size_bytes, in_ranges=in_ranges)
            except HelperEndedError:
                operations.unlink(target)
                raise

        self._answer(fetch)

    def put(self, key: str, source: bytes | Path, *, if_match: str | None = None, new: bool = False) -> str:
        """Store an object and return its ETag."""
        return self._asked().put(key, source, if_match=if_match, new=new)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        keys = list(keys)
        self._answer(lambda store: store.delete(keys))

    def close(self) -> None:
        """End operations that wait before another attempt, and helper processes."""
        if os.getpid() == self._owner:
            self._store.close()
        elif self._helper:
            self._helper.close()

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All objects below a prefix."""
        return self._answer(lambda store: store.list(prefix))

    def _answer(self, ask: Callable[[Store], _T]) -> _T:
        """The result of an operation that may be repeated: once more if the helper is killed meanwhile."""
        try:
            return ask(self._asked())
        except HelperEndedError:
            return ask(self._asked())


_made: weakref.WeakSet[ForkSafe] = weakref.WeakSet()


def _after_fork() -> None:
    ForkSafe.client_is_dead = ForkSafe.client_is_dead or "obstore" in sys.modules
    for store in list(_made):
        store.forked()


os.register_at_fork(after_in_child=_after_fork)


class StoreProcess:
    """A Store whose operations run in another process. It is thread-safe; it is neither pickled nor used after fork."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.address = store.address
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._count = 0
        command = [sys.executable, "-c", _MAIN]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe: BinaryIO = self._process.stdin  # type: ignore[assignment]
        pickle.dump([os.fspath(path) for path in sys.path], self._pipe)
        pickle.dump(store, self._pipe)
        self._pipe.flush()
        self._ended = threading.Event()
        arguments = self._process, self._waiting, self._ended
        threading.Thread(target=_read_answers, args=arguments, daemon=True).start()
        weakref.finalize(self, _end, self._process, os.getpid())

    @property
    def can_put_conditionally(self) -> bool:
        """Whether `put` honours `if_match`."""
        return bool(self._ask("can_put_conditionally"))

    def read(self, key: str, most: int) -> Fetched:
        """A whole object of at most `most` bytes."""
        found: Fetched = self._ask("read", key, most)
        return found

    def read_spans(self, key: str, spans: Sequence[Span], etag: str | None) -> list[bytes]:
        """Parts of an object."""
        found: list[bytes] = self._ask("read_spans", key, list(spans), etag)
        return found

    def head(self, key: str) -> Listed | None:
        """Size and ETag of an object."""
        found: Listed | None = self._ask("head", key)
        return found

    def fetch(self, key: str, target: Path, size_bytes: int, *, in_ranges: bool = False) -> None:
        """Write a whole object into the new file `target`."""
        self._ask("fetch", key, target.absolute(), size_bytes, in_ranges=in_ranges)

    def put(self, key: str, source: bytes | Path, *, if_match: str | None = None, new: bool = False) -> str:
        """Store an object and return its ETag."""
        source = source.absolute() if isinstance(source, Path) else source
        return str(self._ask("put", key, source, if_match=if_match, new=new))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        self._ask("delete", list(keys))

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All objects below a prefix."""
        found: Iterator[Listed] = iter(self._ask("list", prefix))
        return found

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        return not self._ended.is_set()

    def close(self) -> None:
        """End the process."""
        _end(self._process, os.getpid())

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a method in the other process. Its exception is raised here."""
        future: Future[Any] = Future()
        with self._lock:
            number = self._count = self._count + 1
            self._waiting[number] = future
            try:
                pickle.dump((number, method, args, kwargs), self._pipe)
                self._pipe.flush()
            except BaseException as error:  # after half of a request, the helper understands nothing more
                self._waiting.pop(number, None)
                self._ended.set()
                self.close()
                if isinstance(error, (OSError, ValueError)):
                    raise HelperEndedError(_ENDED, subject=self.url) from None
                raise
        if self._ended.is_set() and not future.done():
            raise HelperEndedError(_ENDED, subject=self.url)
        return future.result()


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill the helper. In a process forked from the one that started it this does nothing."""
    if os.getpid() == owner and process.poll() is None:
        process.kill()


def _read_answers(process: subprocess.Popen[bytes], waiting: dict[int, Future[Any]], ended: threading.Event) -> None:
    """Give each answer to whoever waits for it, until the helper ends."""
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process:
        try:
            while True:
                number, result, error = pickle.load(process.stdout)  # noqa: S301 — our own process wrote it
                future = waiting.pop(number)
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        except Exception:  # noqa: BLE001 — nothing after it can be understood
            process.kill()
    ended.set()
    while waiting:
        _, future = waiting.popitem()
        future.set_exception(HelperEndedError(_ENDED))


def _pickled(number: int, result: Any, failed: Exception | None) -> bytes:
    """An answer as bytes. An exception that the asking process could not load again is replaced by its class name."""
    try:
        data = pickle.dumps((number, result, failed))
        if failed is not None:
            pickle.loads(data)  # noqa: S301 — these are our own bytes
    except Exception as error:  # noqa: BLE001 — whatever a foreign class raises
        name = type(error if failed is None else failed).__name__
        return pickle.dumps((number, None, RemoteError(f"the helper process failed: {name}", reason="denied")))
    return data


def serve() -> None:
    """Answer requests from standard input until it ends: the helper process."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    lock = threading.Lock()
    store: Store = pickle.load(sys.stdin.buffer)  # noqa: S301 — our own parent process wrote it

    def answer(number: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        result, failed = None, None
        try:
            result = getattr(store, method)
            result = result(*args, **kwargs) if callable(result) else result
            result = list(result) if method == "list" else result
        except Exception as error:  # noqa: BLE001 — whatever it is, the asking process raises it
            failed = error.with_traceback(None)
        message = _pickled(number, result, failed)
        with lock:
            answers.write(message)
            answers.flush()

    with ThreadPoolExecutor(_THREADS) as threads:
        while True:
            try:
                request = pickle.load(sys.stdin.buffer)  # noqa: S301
            except (EOFError, OSError):
                store.close()
                os._exit(0)
            threads.submit(answer, *request)
