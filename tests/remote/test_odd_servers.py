"""Does a server that breaks the rules of HTTP, or ignores conditions, ever make us take bytes for what they are not?"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mx8shards.errors import RemoteError, SettingError
from mx8shards.remote.access import Access
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.parallel_ranges import MOST_RANGES, RANGE_BYTES
from tests.remote.certificates import make_certificate
from tests.waiting import wait_until

pytest.importorskip("obstore")

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "1"\r\n\r\n'


class Server:
    """Keeps connections open, and sends for each request the pieces that a function gives for its bytes."""

    def __init__(self, answer: Callable[[bytes], Iterator[bytes]], certificate: Path | None = None) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._context and certificate:
            self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1], daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            connection = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            with connection:
                while request := connection.recv(1 << 16):
                    self.requests.append(request)
                    for piece in self._answer(request):
                        connection.sendall(piece)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._listener.close()


@contextlib.contextmanager
def asking(
    monkeypatch: pytest.MonkeyPatch, server: Server, deadline_s: float = 20, prefix: str = ""
) -> Iterator[ObjectStore]:
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint)
    store = ObjectStore("s3", "bucket", prefix, deadline_s=deadline_s, parallel=4)
    try:
        yield store
    finally:
        store.close()
        server.close()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("split", [False, True])
def test_what_follows_an_answer_is_not_taken_for_the_next_answer(
    tls: bool, split: bool, s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        body = b"first" + OK + b"wrong" if b"/first " in request else b"other"
        yield OK + (b"" if split else body)
        if split:
            time.sleep(0.3)  # so that the head comes alone, and all else in one record of TLS
            yield body

    make_certificate(tmp_path / "certificate.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    with asking(monkeypatch, Server(answer, tmp_path / "certificate.pem" if tls else None)) as store:
        for key in ("first", "other"):
            store.fetch(key, tmp_path / key, 5)
            assert (tmp_path / key).read_bytes() == key.encode()


SIZE = 2 * RANGE_BYTES + 1
SPAN = re.compile(rb"range: bytes=(\d+)-(\d+)")


def _version(number: int, span: tuple[int, int] | None, etag: bool = True) -> bytes:
    """An answer with a part of one of two versions of an object."""
    begin, last = span or (0, SIZE - 1)
    lines = b"HTTP/1.1 206 Part\r\nContent-Range: bytes %d-%d/%d\r\n" % (begin, last, SIZE)
    lines = lines if span else b"HTTP/1.1 200 OK\r\n"
    lines += b'ETag: "%d"\r\n' % number if etag else b""
    lines += b"Last-Modified: Mon, 02 Mar 2026 10:00:00 GMT\r\nContent-Length: %d\r\n\r\n" % (last + 1 - begin)
    return lines + b"%d" % number * (last + 1 - begin)


def _span(request: bytes) -> tuple[int, int] | None:
    found = SPAN.search(request.lower())
    return (int(found[1]), int(found[2])) if found else None


@pytest.mark.parametrize("etag", [True, False])
def test_ranges_of_two_versions_are_not_mixed_where_if_match_is_ignored(
    etag: bool, s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        span = _span(request)
        yield _version(1 if span and span[0] == 0 else 2, span, etag)

    with asking(monkeypatch, Server(answer)) as store:
        store.fetch("x", tmp_path / "x", SIZE, in_ranges=True)
    assert (tmp_path / "x").read_bytes() == b"2" * SIZE


def test_a_broken_answer_is_not_continued_by_another_version_where_if_match_is_ignored(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        span = _span(request)
        yield _version(2, span) if span else _version(1, None)[: SIZE // 2]
        if not span:
            raise OSError("it breaks off")

    with asking(monkeypatch, Server(answer)) as store, pytest.raises(RemoteError, match="expected the ETag") as caught:
        store.fetch("x", tmp_path / "x", SIZE)
    assert caught.value.reason == "changed"
    assert list(tmp_path.glob("x")) == []


@pytest.mark.parametrize("through", ["connections of our own", "obstore"])
def test_a_broken_answer_begins_again_where_ranges_are_ignored(
    through: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        breaks = len(server.requests) == 1
        yield _version(1 if breaks else 2, None)[: SIZE // 2 if breaks else None]
        if breaks:
            raise OSError("it breaks off")

    if through == "obstore":
        monkeypatch.setenv("AWS_S3_EXPRESS", "false")
    with asking(monkeypatch, server := Server(answer)) as store:
        found = store.fetch("x", tmp_path / "x", SIZE, algorithm="sha256")
    assert (tmp_path / "x").read_bytes() == b"2" * SIZE
    assert found == hashlib.sha256(b"2" * SIZE).hexdigest()
    assert SPAN.search(server.requests[1].lower())


@pytest.mark.parametrize("ignored_from", [0, RANGE_BYTES, 2 * RANGE_BYTES])
def test_where_ranges_are_ignored_an_object_comes_in_one_piece(
    ignored_from: int, s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        span = _span(request)
        yield _version(1, span if span and span[0] < ignored_from else None)

    with asking(monkeypatch, Server(answer)) as store:
        store.fetch("x", tmp_path / "x", SIZE, in_ranges=True)
    assert (tmp_path / "x").read_bytes() == b"1" * SIZE


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"301 Moved\r\nx-amz-bucket-region: eu-west-1", "the bucket is in another region"),
        (b"307 Moved\r\nx-amz-bucket-region: eu-west-1\r\nLocation: http://eu/x", "the bucket is in another region"),
        (b"301 Moved\r\nx-amz-bucket-region: us-east-1", "the store answered 301 Moved Permanently"),
        (
            b"302 Found\r\nLocation: https://me:password@login.example:8443/?Signature=1",
            "the store answered 302 Found to login.example, and redirects are not followed",
        ),
        (b"307 Moved\r\nLocation: /elsewhere", "the store answered 307 Temporary Redirect, and redirects are not"),
        (b"302 Found\r\nLocation: http://[x/", "the store answered 302 Found, and redirects are not followed"),
        (b"304 Not Modified", "the store answered 304 Not Modified"),
    ],
)
def test_only_a_redirect_that_tells_another_region_is_one_to_another_region(
    head: bytes, message: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        status = b"403 Forbidden" if request.startswith(b"HEAD") else head  # so the bucket's region is not found out
        yield b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"

    with asking(monkeypatch, Server(answer)) as store, pytest.raises(RemoteError) as caught:
        store.fetch("x", tmp_path / "x", 5)
    assert (caught.value.reason, caught.value.message[: len(message)]) == ("denied", message)
    assert not re.search("password|Signature|8443", str(caught.value))


def test_a_part_of_another_version_is_refused_where_if_match_is_ignored(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(lambda request: iter([_version(2, _span(request))]))
    with asking(monkeypatch, server) as store, pytest.raises(RemoteError, match="expected the ETag") as caught:
        store.read_spans("x", [(0, 10)], '"1"')
    assert caught.value.reason == "changed"


@pytest.mark.parametrize(
    ("status", "code", "reason", "hint"),
    [
        (403, "ExpiredToken", "denied", "the credentials have expired"),
        (403, "RequestTimeTooSkewed", "denied", "the clock of this machine is wrong"),
        (404, "NoSuchKey", "missing", ""),
        (404, "NoSuchBucket", "missing", "check bucket and endpoint"),
        (400, "RequestTimeout", "network", ""),
    ],
)
def test_the_code_of_an_error_that_comes_in_chunks_is_read(
    status: int,
    code: str,
    reason: str,
    hint: str,
    s3_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """S3 itself sends its errors so."""
    body = f"<Error><Code>{code}</Code><Message>x</Message></Error>".encode()
    head = b"HTTP/1.1 %d Oh\r\nTransfer-Encoding: chunked\r\n\r\n" % status
    server = Server(lambda _: iter([head, b"%x\r\n%s\r\n" % (len(body), body), b"0\r\n\r\n"]))
    deadline_s = 1 if reason == "network" else 20
    with asking(monkeypatch, server, deadline_s) as store, pytest.raises(RemoteError, match=code) as caught:
        store.fetch("x", tmp_path / "x", 5)
    assert (caught.value.reason, caught.value.hint) == (reason, hint)


def test_an_error_in_chunks_without_a_code_is_not_waited_for(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Server(lambda _: iter([b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"]))
    with asking(monkeypatch, server, 600) as store, pytest.raises(RemoteError, match="403 Forbidden"):
        store.fetch("x", tmp_path / "x", 5)


def test_interim_answers_come_before_the_answer(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    with asking(monkeypatch, Server(lambda _: iter([interim[0], interim[1] + OK, b"hello"]))) as store:
        store.fetch("x", tmp_path / "x", 5)
        assert len(store._connections._idle) == 1  # type: ignore[union-attr]
    assert (tmp_path / "x").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "interim answers without end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\n", "several lengths"),
    ],
)
def test_an_answer_with_an_odd_head_is_refused(
    head: bytes, message: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Server(lambda _: iter([head + b"hello"]))
    with asking(monkeypatch, server, 3) as store, pytest.raises(RemoteError, match=message):
        store.fetch("x", tmp_path / "x", 5)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("odd", ["\r\nX-Other: 1", "\u2019"])
def test_credentials_that_do_not_fit_into_a_header_are_named_and_not_shown(
    name: str, odd: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, f"nobody-sees-this{odd}")
    with asking(monkeypatch, server := Server(lambda _: iter([OK + b"hello"]))) as store:
        for ask in (lambda: store.fetch("x", tmp_path / "x", 5), lambda: store.read("x", 5)):
            with pytest.raises(RemoteError, match="character that no key has") as caught:
                ask()
            assert caught.value.reason == "denied"
            assert "nobody" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("end", ["/a b", "/\u00fc", "?x=1", "#x", "/\r\nX: y", ":99999", ":x"])
def test_an_endpoint_that_does_not_fit_into_a_request_is_refused(
    end: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1{end}")
    with pytest.raises(SettingError, match="S3_ENDPOINT_URL"):
        Access()


def test_ranges_of_a_server_that_hangs_do_not_keep_those_of_another_from_coming(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    over = threading.Event()

    def hang(_: bytes) -> Iterator[bytes]:
        over.wait()
        yield b""

    def fetch(number: int) -> None:
        with contextlib.suppress(RemoteError):
            hanging.fetch("x", tmp_path / f"hanging-{number}", SIZE, in_ranges=True)

    with contextlib.ExitStack() as stack:
        stack.callback(over.set)
        hanging = stack.enter_context(asking(monkeypatch, server := Server(hang), 600))
        threads = [threading.Thread(target=fetch, args=(number,)) for number in range(MOST_RANGES)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(server.requests) == MOST_RANGES)
        other = stack.enter_context(asking(monkeypatch, Server(lambda asked: iter([_version(1, _span(asked))]))))
        other.fetch("x", tmp_path / "x", SIZE, in_ranges=True)
        assert any(thread.is_alive() for thread in threads)
        hanging.close()
        for thread in threads:
            thread.join()
    assert (tmp_path / "x").read_bytes() == b"1" * SIZE
