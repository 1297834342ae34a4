"""What does the helper process do that asks object stores for forked processes? It answers their requests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from mx8shards.errors import RemoteError
from mx8shards.remote import environment
from mx8shards.remote.helper_records import HelperRecords
from mx8shards.remote.store import Store
from mx8shards.remote.store_process import SERVING, is_readable

_THREADS = 32  # of each forked process
_MOST_STORES = 1024
_IDLE_S = 300.0  # it ends if no process has been connected for this time, which is longer than most validations
_LOOK_S = 1.0


def serve(serving: int, locks: int) -> None:
    """Take connections until the processes that could ask for one have ended: the helper process.

    Args:
        serving: The descriptor of the socket from which connections come.
        locks: The descriptor of the file whose locks say whether a helper runs.
    """
    fcntl.lockf(locks, fcntl.LOCK_EX, 1, SERVING)  # waits: a process that checks for a helper holds it for a moment
    with contextlib.suppress(OSError):  # without /proc
        HelperRecords(locks).add_this_process()
    connections = _Connections()
    with socket.socket(fileno=serving) as meeting:
        while not connections.are_idle:
            if is_readable(meeting, _LOOK_S):
                message, found, _, _ = socket.recv_fds(meeting, 16, 1)
                if not message:
                    break  # nobody is left
                connections.take(*found)
    os._exit(0)  # nobody waits for what is being fetched


class _Connections:
    """The connections that are open, each with a thread that reads its requests."""

    def __init__(self) -> None:
        self._open = 0
        self._lock = threading.Lock()
        self._changed = time.monotonic()

    @property
    def are_idle(self) -> bool:
        """Whether none has been open for a while."""
        with self._lock:
            return not self._open and time.monotonic() > self._changed + _IDLE_S

    def take(self, descriptor: int) -> None:
        """Serve a connection in a thread of its own."""
        self._count(1)
        threading.Thread(target=self._serve, args=(descriptor,), daemon=True).start()

    def _serve(self, descriptor: int) -> None:
        try:
            with contextlib.suppress(OSError, EOFError), socket.socket(fileno=descriptor) as connection:
                _answer_all(connection)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._open += change
            self._changed = time.monotonic()


def _answer_all(connection: socket.socket) -> None:
    """Answer the requests of one process until it closes the connection."""
    lock = threading.Lock()
    connection.sendall(b"!")  # the connection was taken

    def answer(number: int, store: bytes, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        result, failed = None, None
        try:
            result = getattr(_opened(store, variables), method)
            result = result(*args, **kwargs) if callable(result) else result
            result = list(result) if method == "list" else result
        except Exception as error:  # noqa: BLE001 — whatever it is, the asking process raises it
            failed = error.with_traceback(None)
        message = _pickled(number, result, failed)
        with contextlib.suppress(OSError), lock:  # the process may have ended
            connection.sendall(message)

    threads = ThreadPoolExecutor(_THREADS)
    try:
        with connection.makefile("rb") as requests:
            variables = tuple(pickle.load(requests).items())  # noqa: S301 — a process of our own wrote it
            while True:
                threads.submit(answer, *pickle.load(requests))  # noqa: S301
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


_opening = threading.Lock()


@lru_cache(_MOST_STORES)
def _opened(store: bytes, variables: tuple[tuple[str, str], ...]) -> Store:
    """The store, opened with the environment variables of the process that asks: its credentials come from there."""
    with _opening:
        environment.adopt(dict(variables))
        found: Store = pickle.loads(store)  # noqa: S301
        return found


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
