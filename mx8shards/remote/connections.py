"""How are objects of S3 fetched with little CPU time? Over keep-alive connections of our own.

Obstore takes more CPU time for each GB: over http, 1.6 times as much; over https, twice. Here one object is one GET
request. It is signed in its headers, and no redirect is followed. The caller tries again. Through a proxy, and with
settings that only obstore knows, objects come through obstore.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from mx8shards.disk.operations import disk_errors
from mx8shards.errors import RemoteError, ShardsError
from mx8shards.remote import faults
from mx8shards.remote.access import Access, Keys
from mx8shards.remote.connecting import connected
from mx8shards.remote.connection import Connection, Head, Limits
from mx8shards.remote.signatures import signed_headers
from mx8shards.remote.store import Span
from mx8shards.shards.cores import core_count

_LONGEST_IDLE_S = 4.0  # S3 closes connections that are idle for 5 s or longer
_OF_OBSTORE = (
    *("AWS_PROXY_URL", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_S3_EXPRESS", "AWS_ALLOW_INVALID_CERTIFICATES"),
    "AWS_SSE_CUSTOMER_KEY_BASE64",  # is sent with each request
)
_SPAN = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


def can_fetch(access: Access) -> bool:
    """Whether objects come over connections of our own: no proxy, no setting of obstore, and certificates to trust."""
    parts = urlsplit(_base(access, access.region))
    proxies = getproxies()
    if any(os.environ.get(name) for name in _OF_OBSTORE):
        return False
    if (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.netloc):
        return False
    trusted = ssl.get_default_verify_paths()
    return parts.scheme == "http" or bool(trusted.cafile or trusted.capath or access.ca_bundle)


class Connections:
    """Connections to the objects of a bucket under a prefix. It is thread-safe. Not pickled, and not used after fork.

    Args:
        access: Where the bucket is.
        bucket: Its name.
        prefix: All keys are relative to it. It has no slash at its ends.
        stall_s: An attempt ends if nothing has come for this time.
        most_idle: The most connections that are kept for later requests.
        closed: If it is set, nobody waits for an answer any longer.
    """

    def __init__(
        self, access: Access, bucket: str, prefix: str, stall_s: float, most_idle: int, closed: threading.Event
    ) -> None:
        self._access, self._bucket, self._prefix = access, bucket, prefix
        self._stall_s, self._most_idle, self._closed = stall_s, most_idle, closed
        self._cores = threading.Semaphore(core_count())
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._idle: list[tuple[str, Connection]] = []  # with the URL of the server; the most recently used one is last
        self.close = weakref.finalize(self, _close_all, self._idle)

    @contextmanager
    def get(
        self, key: str, keys: Keys | None, region: str, attempt_s: float, span: Span | None, etag: str
    ) -> Iterator[_Answer]:
        """Ask for an object with these credentials in this region. RemoteError for whatever fails, also in the block.

        Args:
            key: The object.
            keys: The credentials; None for a request that is not signed.
            region: The region of the bucket.
            attempt_s: The time limit for connecting and the first MiB of the answer, and for each further one.
            span: The part of the object; None for all of it.
            etag: The ETag that the object must have; "" for any.
        """
        subject = "/".join(part for part in (f"s3://{self._bucket}", self._prefix, key) if part)
        base = _base(self._access, region)
        limits = Limits(self._stall_s, attempt_s)
        connection = None
        try:
            connection, head = self._asked(base, self._request(base, key, keys, region, span, etag), limits)
            answer = _answer(connection, head, span, region, subject)
            yield answer
            if answer.is_read and head.keeps_open:
                self._keep(base, connection)
                connection = None
        except ShardsError:
            raise
        except OSError as error:
            raise faults.of_connection(error, subject) from None
        finally:
            if connection:
                connection.close()

    def _request(self, base: str, key: str, keys: Keys | None, region: str, span: Span | None, etag: str) -> bytes:
        """The bytes of a request."""
        parts = urlsplit(base)
        path = parts.path + "/" + quote("/".join(part for part in (self._bucket, self._prefix, key) if part), safe="/~")
        headers = {"host": parts.netloc}
        headers |= {"range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        headers |= {"if-match": etag} if etag else {}
        headers |= {"x-amz-request-payer": "requester"} if self._access.requester_pays else {}
        if keys:
            headers = signed_headers(path, headers, keys, region, datetime.now(UTC))
        headers |= {"accept-encoding": "identity", "user-agent": "mx8shards"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")

    def _asked(self, base: str, request: bytes, limits: Limits) -> tuple[Connection, Head]:
        """A connection that has sent a request, and the head of the answer.

        A server may close a kept connection at any time, even while a request is on its way. That is no fault.
        """
        begun = time.monotonic()
        while True:
            kept = self._take(base)
            connection = kept or self._connect(base, begun + min(limits))
            try:
                return connection, connection.ask(request, limits, time.monotonic() - begun)
            except BaseException as error:
                connection.close()
                if not kept or isinstance(error, TimeoutError) or not isinstance(error, OSError):
                    raise

    def _connect(self, base: str, end: float) -> Connection:
        parts = urlsplit(base)
        trust = self._trust() if parts.scheme == "https" else None
        port = parts.port or (443 if trust else 80)
        return Connection(connected(parts.hostname or "", port, trust, end, self._closed), self._cores, self._closed)

    def _trust(self) -> ssl.SSLContext:
        """Which certificates are trusted: those of the system, and those of the user."""
        with self._lock:
            if self._context is None:
                self._context = ssl.create_default_context()
                if bundle := self._access.ca_bundle:
                    with disk_errors("read", Path(bundle)):
                        self._context.load_verify_locations(bundle)
            return self._context

    def _take(self, base: str) -> Connection | None:
        """A kept connection to a server that still answers, as far as one can see."""
        oldest = time.monotonic() - _LONGEST_IDLE_S
        with self._lock:
            while self._idle:
                server, connection = self._idle.pop()
                if server == base and connection.idle_since > oldest and connection.is_quiet:
                    return connection
                connection.close()
        return None

    def _keep(self, base: str, connection: Connection) -> None:
        """Keep a connection for the next request."""
        connection.idle_since = time.monotonic()
        with self._lock:
            if len(self._idle) < self._most_idle and not self._closed.is_set():
                self._idle.append((base, connection))
            else:
                connection.close()


class _Answer:
    """An Answer of downloads.py."""

    def __init__(self, connection: Connection, span: Span, size_bytes: int, etag: str) -> None:
        self._connection = connection
        self.span, self.size_bytes, self.etag = span, size_bytes, etag
        self.is_read = False

    def copy_to(self, write: Callable[[memoryview], object]) -> None:
        """Pass the body to `write`."""
        self._connection.copy_body(self.span[1] - self.span[0], write)
        self.is_read = True


def _answer(connection: Connection, head: Head, span: Span | None, region: str, subject: str) -> _Answer:
    """The answer with this head to a request in a region; RemoteError if it is not what was asked for."""
    if 300 <= head.status < 400:
        told, location = (head.headers.get(name, "") for name in ("x-amz-bucket-region", "Location"))
        raise faults.of_redirect(head.status, told not in ("", region), location, subject)
    if head.status not in (200, 206):
        code = faults.code_in(connection.error_text(head))
        raise faults.of_status(head.status, code, subject)
    etag = head.headers.get("ETag", "")
    if head.status == 200 and head.length is not None:  # also where a part was asked for: a store may ignore ranges
        return _Answer(connection, (0, head.length), head.length, etag)
    told = head.headers.get("Content-Range", "")
    found = _SPAN.fullmatch(told)
    if span and found and int(found[1]) == span[0] and head.length == int(found[2]) + 1 - span[0] <= span[1] - span[0]:
        return _Answer(connection, (span[0], span[0] + head.length), int(found[3]), etag)
    asked = f"bytes {span[0]} to {span[1]}" if span else "a whole object of a stated size"
    raise RemoteError(
        f"the store answered {told or 'something else'} to a request for {asked}", subject=subject, reason="denied"
    )


def _base(access: Access, region: str) -> str:
    """The URL of the server."""
    return access.endpoint or f"https://s3.{region}.amazonaws.com"


def _close_all(idle: list[tuple[str, Connection]]) -> None:
    while idle:
        idle.pop()[1].close()
