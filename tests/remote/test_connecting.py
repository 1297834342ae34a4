"""Do name resolution, connect and TLS handshake end with the attempt, and when the store is closed?"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mx8shards.errors import RemoteError
from mx8shards.remote.connecting import connected
from mx8shards.remote.connection import Connection, Limits
from mx8shards.remote.object_store import ObjectStore
from tests.remote.deadlines import in_time
from tests.waiting import wait_until

pytest.importorskip("obstore")

NEVER = threading.Event()


class DeadResolver:
    """It answers no question until the end of the test."""

    def __init__(self) -> None:
        self.asked = 0
        self.over = threading.Event()

    def getaddrinfo(self, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked += 1
        self.over.wait()
        return []


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch, s3_environment: None) -> Iterator[DeadResolver]:
    found = DeadResolver()
    monkeypatch.setenv("S3_ENDPOINT_URL", "https://store.example")
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    yield found
    found.over.set()


def test_a_name_that_nobody_resolves_is_no_answer_until_the_deadline(resolver: DeadResolver, tmp_path: Path) -> None:
    store = ObjectStore("s3", "bucket", "", deadline_s=1, parallel=4)
    error = in_time(lambda: store.fetch("x", tmp_path / "x", 5))
    store.close()
    assert isinstance(error, RemoteError)
    assert (error.reason, error.message) == ("network", "no answer in time")
    assert resolver.asked > 1


def test_a_closed_store_waits_for_no_name(resolver: DeadResolver, tmp_path: Path) -> None:
    store = ObjectStore("s3", "bucket", "", deadline_s=3600, parallel=4)
    with ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(store.fetch, "x", tmp_path / "x", 5)
        wait_until(lambda: resolver.asked)
        store.close()
        error = in_time(fetching.result)
    assert isinstance(error, RemoteError)
    assert "closed" in str(error)


def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        full, good = (stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=most)) for most in (0, 8))
        for _ in range(4):  # fill the queue of connections that nobody accepts; the next ones get no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", each.getsockname()) for each in (full, good)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: addresses)
        with connected("both", 1, None, time.monotonic() + 2, NEVER) as found:
            assert found.getpeername() == good.getsockname()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: addresses[:1])
        with pytest.raises(TimeoutError):
            connected("full", 1, None, time.monotonic() + 0.2, NEVER)


def test_a_name_that_is_none_is_an_oserror() -> None:
    with pytest.raises(OSError, match=r"\w"):
        connected("a..b", 80, None, time.monotonic() + 30, NEVER)


def test_the_time_that_connecting_took_is_not_left_for_the_answer() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, threading.Semaphore(1), threading.Event())
    with theirs, contextlib.closing(connection), pytest.raises(TimeoutError):
        connection.ask(b"GET / HTTP/1.1\r\n\r\n", Limits(3600, 3600), spent_s=3600)
