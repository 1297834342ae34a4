"""Do objects come over connections of our own: whole, in few requests, over TLS, and whatever the server does?"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.errors import RemoteError
from mx8shards.remote import connections
from mx8shards.remote.access import Access
from mx8shards.remote.connections import can_fetch
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.partial_file import PartialFile
from tests.maintenance import tree
from tests.remote.deadlines import in_time
from tests.remote.fault_server import BUCKET, FaultServer, Kind
from tests.waiting import wait_until

pytest.importorskip("obstore")

DATA = os.urandom((3 << 20) + 1)


def store_of(server: FaultServer, deadline_s: float = 20.0) -> ObjectStore:
    return ObjectStore("s3", BUCKET, "data", deadline_s=deadline_s, parallel=4)


def test_many_objects_come_by_one_request_each_over_a_connection_of_each_thread(
    tls_server: FaultServer, tmp_path: Path
) -> None:
    keys = [f"shard {number}*'\"$(x)%41+é#~.mds" for number in range(12)]
    for number, key in enumerate(keys):
        tls_server.put(f"data/{key}", DATA[number:])
    store = store_of(tls_server)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda key: store.fetch(key, tmp_path / key, len(DATA) - keys.index(key)), keys))
    assert [(tmp_path / key).read_bytes() for key in keys] == [DATA[number:] for number in range(12)]
    assert [request.key for request in tls_server.requests] != []
    assert tls_server.counts() == dict.fromkeys((f"data/{key}" for key in keys), 1)
    assert tls_server.connections == 3
    store.close()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    with mx8.Writer(root / "set", columns={"x": "bytes"}, size_limit=1 << 20, hashes=("blake3",)) as writer:
        for number in range(20):
            writer.write({"x": DATA[number : number + 100_000]})
    return root / "set"


# "replaced": the object changes while it comes. The first answer is the old object, which is right.
@pytest.mark.parametrize("kind", ["cut", "long", "hang", "flip", "replaced", "reset", "drip", 503])
def test_a_shard_that_goes_wrong_over_tls_is_right_in_the_end(
    kind: Kind, tls_server: FaultServer, dataset: Path, tmp_path: Path
) -> None:
    tls_server.put_files("set", tree(dataset))
    fault = tls_server.fail(kind, "read", key=r"set/shard\.00001\.mds")
    found = in_time(lambda: mx8.sync(tls_server.url("set"), tmp_path / "copy", deadline_s=6))
    assert fault.met > 0
    assert not isinstance(found, Exception), found
    shards = sorted(path.name for path in dataset.glob("*.mds"))
    assert [(tmp_path / "copy" / name).read_bytes() for name in shards] == [
        (dataset / name).read_bytes() for name in shards
    ]


@pytest.mark.parametrize("kind", ["cut", "long", "hang"])
def test_an_object_that_stays_wrong_over_tls_is_an_error_and_leaves_no_file(
    kind: Kind, tls_server: FaultServer, tmp_path: Path
) -> None:
    tls_server.put("data/shard", DATA)
    tls_server.fail(kind, "read", times=None, place="last" if kind == "cut" else "middle")
    found = in_time(lambda: store_of(tls_server, deadline_s=1).fetch("shard", tmp_path / "shard", len(DATA)))
    assert isinstance(found, RemoteError)
    assert found.reason == ("changed" if kind == "long" else "network")
    assert list(tmp_path.glob("shard")) == []


def test_an_object_that_breaks_off_is_continued_if_it_is_the_same(tls_server: FaultServer, tmp_path: Path) -> None:
    tls_server.put("data/shard", DATA)
    tls_server.fail("reset", "read", place="middle")
    store_of(tls_server).fetch("shard", tmp_path / "shard", len(DATA))
    assert (tmp_path / "shard").read_bytes() == DATA
    first, second = tls_server.requests
    assert second.if_match == tls_server.current("data/shard").etag  # type: ignore[union-attr]
    assert second.span.startswith("bytes=")
    assert first.sent_bytes + second.sent_bytes < 2 * len(DATA)


@pytest.mark.parametrize("kind", [None, "reset", 503])
def test_the_hash_of_an_object_is_computed_on_the_way_in_any_number_of_attempts(
    kind: Kind | None, fault_server: FaultServer, tmp_path: Path
) -> None:
    fault_server.put("data/shard", DATA)
    if kind:
        fault_server.fail(kind, "read", place="middle")
    found = store_of(fault_server).fetch("shard", tmp_path / "shard", len(DATA), algorithm="sha256")
    assert found == hashlib.sha256(DATA).hexdigest()
    assert store_of(fault_server).fetch("shard", tmp_path / "other", len(DATA), in_ranges=True) == ""


def test_a_file_that_is_begun_again_has_the_hash_of_its_bytes(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "x", "sha256") as file:
        file.write(b"wrong")
        file.restart()
        file.write(b"right")
    assert file.hash_hex == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()


def test_a_connection_on_which_more_and_more_comes_lets_others_receive() -> None:
    only_core, done = threading.Semaphore(1), threading.Event()
    pairs = [socket.socketpair() for _ in range(2)]
    busy, other = (connections.Connection(ours, only_core, threading.Event()) for ours, _ in pairs)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"

    def pour(to: socket.socket) -> None:
        to.sendall(answer % (1 << 50))
        with contextlib.suppress(OSError):
            while not done.is_set():
                to.sendall(DATA)
        to.close()

    def receive(connection: connections.Connection, length: int) -> None:
        connection.ask(b"GET / HTTP/1.1\r\n\r\n", connections.Limits(60, 60))
        with contextlib.suppress(OSError):
            connection.copy_body(length, len)

    with ThreadPoolExecutor(2) as threads:
        threads.submit(pour, pairs[0][1])
        receiving = threads.submit(receive, busy, 1 << 50)
        pairs[1][1].sendall(answer % 5 + b"he")
        ended = in_time(lambda: (pairs[1][1].sendall(b"llo"), receive(other, 5), receiving.done()))
        done.set()
    busy.close()
    other.close()
    pairs[1][1].close()
    assert ended == (None, None, False)


def test_an_object_that_waits_does_not_keep_others_from_coming(
    fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "core_count", lambda: 1)
    for key in ("slow", "other"):
        fault_server.put(f"data/{key}", DATA)
    hang = fault_server.fail("hang", "read", key="data/slow", times=None)
    store = store_of(fault_server, deadline_s=60)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(store.fetch, "slow", tmp_path / "slow", len(DATA))
        wait_until(lambda: hang.met > 0)
        store.fetch("other", tmp_path / "other", len(DATA))
        assert not slow.done()
        fault_server.heal()
    assert (tmp_path / "slow").read_bytes() == (tmp_path / "other").read_bytes() == DATA


def test_a_certificate_that_nobody_trusts_is_named_at_once(
    tls_server: FaultServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(RemoteError, match=r"certificate of the store is not trusted.*AWS_CA_BUNDLE") as caught:
        store_of(tls_server).fetch("shard", tmp_path / "shard", 1)
    assert caught.value.reason == "denied"


def test_a_proxy_and_settings_of_obstore_leave_objects_to_obstore(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert can_fetch(Access())
    for name, value in (("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"), ("ALL_PROXY", "http://proxy:1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not can_fetch(Access())
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    assert not can_fetch(Access())
    monkeypatch.setenv("NO_PROXY", "amazonaws.com")
    assert can_fetch(Access())


class Answers:
    """A server that sends fixed bytes, one answer for each connection, and then closes it."""

    def __init__(self, answers: list[bytes]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.left = list(answers)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(self.left.pop(0) if len(self.left) > 1 else self.left[0])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._listener.close()


@contextlib.contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> Iterator[Answers]:
    server = Answers(list(answers))
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint)
    try:
        yield server
    finally:
        server.close()


GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "1"\r\n\r\nhello'


def test_a_kept_connection_that_the_server_has_closed_is_no_fault(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with answering(monkeypatch, GOOD):
        store = ObjectStore("s3", BUCKET, "", deadline_s=20, parallel=4)
        monkeypatch.setattr(store._closed, "wait", lambda pause_s: pytest.fail("it is tried again"))
        for number in range(5):
            store.fetch("x", tmp_path / f"{number}", 5)
            assert (tmp_path / f"{number}").read_bytes() == b"hello"
        store.close()


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "network", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "network", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X" * 100_000, "network", "headers without end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "denied", "stated size"),
        (b"HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/5\r\n\r\nhello", "denied", "stated size"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "denied", "stated size"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello", "changed", "expected 5 bytes, got 4"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello wor", "changed", "expected 5 bytes, got 9"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 30\r\n\r\n<Code>NoSuchKey</Code>" + b" " * 8, "missing", "NoSuchKey"),
        (b"HTTP/1.1 999\r\n\r\n", "network", "999 unknown status"),
    ],
)
def test_an_odd_answer_is_a_named_error(
    answer: bytes,
    reason: str,
    message: str,
    s3_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    deadline_s = 1 if reason == "network" else 20
    with answering(monkeypatch, answer), pytest.raises(RemoteError, match=message) as caught:
        ObjectStore("s3", BUCKET, "", deadline_s=deadline_s, parallel=4).fetch("x", tmp_path / "x", 5)
    assert caught.value.reason == reason
    assert list(tmp_path.glob("x")) == []


def test_a_store_that_ignores_ranges_gives_the_whole_object(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = os.urandom((8 << 20) + 1)
    with answering(monkeypatch, f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data):
        store = ObjectStore("s3", BUCKET, "", deadline_s=20, parallel=4)
        store.fetch("x", tmp_path / "x", len(data), in_ranges=True)
    assert (tmp_path / "x").read_bytes() == data


def test_an_answer_in_small_pieces_is_put_together(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The end of the headers, and of the body, may come at any byte."""
    ours, theirs = socket.socketpair()
    connection = connections.Connection(ours, threading.Semaphore(1), threading.Event())
    answer = GOOD[:-5]

    def serve() -> None:
        theirs.recv(1 << 16)
        for byte in answer:
            theirs.sendall(bytes([byte]))
        theirs.sendall(b"he")
        theirs.sendall(b"llo")

    thread = threading.Thread(target=serve)
    thread.start()
    head = connection.ask(b"GET / HTTP/1.1\r\n\r\n", connections.Limits(20, 20))
    pieces = bytearray()
    assert head.length == 5
    connection.copy_body(5, pieces.extend)
    thread.join()
    connection.close()
    theirs.close()
    assert pieces == b"hello"
