"""How does the answer to a GET request come from a socket, with time limits and little CPU time?

OpenSSL returns a record of at most 16 KiB, and after each a thread waits for the GIL. So no more threads receive at
once than there are cores: the sockets do not block, and a thread goes on until nothing is there, or until others have
waited long. On two cores this saved a fifth of the CPU time of 16 connections. Taking turns at each piece cost half of
that again, because a semaphore wakes a thread each time it is released, mostly in vain.
"""

from __future__ import annotations

import email.message
import http.client
import io
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from mx8shards.remote.retries import PROGRESS

# With 1 MiB, and little free memory, the kernel needs half as much CPU time again to find room for what is written.
_BUFFER = 1 << 18
_MOST_HEAD = 1 << 16  # bytes of status line and headers
_MOST_ERROR = 1 << 16  # bytes that are read of the body of an error
_HEAD_END = b"\r\n\r\n"
_MOST_INTERIM = 8  # answers of status 1xx that come before the answer
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?\r\n")
_ERROR_END = re.compile(rb"</Code>|(?:^|\n)0\r\n")  # the code has come, or the last chunk
_POLL_S = 0.25
_LONGEST_TURN_S = 0.5  # time after which a thread lets others receive
_LONGEST_PIECE_S = 0.5  # time after which received bytes are passed on, so that slow progress is seen


class Head(NamedTuple):
    """Status and headers of an answer. `length` is that of its body; None if the headers do not tell it."""

    status: int
    headers: email.message.Message
    length: int | None
    is_chunked: bool
    keeps_open: bool


class Limits(NamedTuple):
    """Seconds after which an attempt ends: with no byte at all, and with less than `PROGRESS` bytes."""

    stall_s: float
    attempt_s: float


class Connection:
    """An open connection, used by one thread at a time. Any failure is an OSError, and ends its use.

    Args:
        plain: A connected socket, under TLS if the store is.
        cores: As many threads may receive at once.
        closed: If it is set, nobody waits any longer.
    """

    def __init__(self, plain: socket.socket, cores: threading.Semaphore, closed: threading.Event) -> None:
        self._socket, self._cores, self._closed = plain, cores, closed
        # SSLSocket.read does what its recv_into does, with half of the calls
        self._read: Callable[[int, memoryview], Any] = (
            plain.read if isinstance(plain, ssl.SSLSocket) else partial(_received, plain)
        )
        self._poll = select.poll()
        self._poll.register(plain, select.POLLIN)
        self._view = memoryview(bytearray(_BUFFER))
        self._filled = 0  # bytes in the buffer
        self._ahead = b""  # bytes of the body that came with the headers
        self._limits, self._end = Limits(0, 0), 0.0
        self._came = 0  # bytes since the time limit was renewed
        self._passed_on = 0.0  # when bytes were last passed on
        self.idle_since = 0.0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come behind the last answer. Otherwise the server has closed the connection, or what has
        come would be taken for the next answer: OpenSSL may have decrypted it already.
        """
        pending = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        return not (self._ahead or pending or self._poll.poll(0))

    def ask(self, request: bytes, limits: Limits, spent_s: float = 0.0) -> Head:
        """Send a request, and wait for the head of its answer. Connecting took `spent_s` of the attempt's time."""
        self._limits, self._end, self._came = limits, time.monotonic() + limits.attempt_s - spent_s, 0
        if spent_s >= limits.attempt_s:
            raise TimeoutError
        self._socket.settimeout(min(limits.stall_s, limits.attempt_s - spent_s))
        self._socket.sendall(request)
        self._socket.setblocking(False)
        self._filled, self._ahead = 0, b""
        for _ in range(_MOST_INTERIM + 1):
            head = _head(self._head_text())
            if head.status >= 200:
                return head
        raise ConnectionError("interim answers without end")

    def _head_text(self) -> bytes:
        """Status line and headers of the next answer. `_ahead` keeps the bytes that have come after them."""
        while (end := self._ahead.find(_HEAD_END)) < 0:
            if len(self._ahead) >= _MOST_HEAD:
                raise ConnectionError("headers without end")
            self._wait()
            self._receive(_MOST_HEAD)
            self._ahead, self._filled = self._ahead + bytes(self._view[: self._filled]), 0
        end += len(_HEAD_END)
        text, self._ahead = self._ahead[:end], self._ahead[end:]
        return text

    def copy_body(self, length: int, write: Callable[[memoryview], object]) -> None:
        """Pass a body of this length to `write`, piece by piece. What came before an error is passed on, too."""
        ahead = memoryview(self._ahead)[:length]
        self._ahead = self._ahead[len(ahead) :]
        write(ahead)
        length -= len(ahead)
        self._passed_on = time.monotonic()
        try:
            while length:
                asked = time.monotonic()
                with self._cores:
                    self._end += time.monotonic() - asked  # this time was not spent waiting for the server
                    length -= self._copy_what_is_there(length, write)
                if length:
                    self._wait()
        finally:
            self._pass_on(write)

    def _copy_what_is_there(self, length: int, write: Callable[[memoryview], object]) -> int:
        """Receive for one turn, and return how many bytes were passed on: full buffers, and what has waited long."""
        done, end = 0, time.monotonic() + _LONGEST_TURN_S
        while done < length and time.monotonic() < end:
            size = min(length - done, _BUFFER)
            self._receive(size)
            if self._filled < size and time.monotonic() < self._passed_on + _LONGEST_PIECE_S:
                break
            done += self._filled
            self._pass_on(write)
        return done

    def _pass_on(self, write: Callable[[memoryview], object]) -> None:
        """Pass on what is in the buffer, once."""
        piece, self._filled, self._passed_on = self._view[: self._filled], 0, time.monotonic()
        if piece:
            write(piece)

    def error_text(self, head: Head) -> str:
        """The beginning of an error's body. If it is chunked, as from S3, no more than up to its code is read."""
        text = bytearray()
        if head.is_chunked:
            text += self._ahead
            while len(text) < _MOST_ERROR and not _ERROR_END.search(text):
                self._wait()
                self._receive(_MOST_ERROR)
                self._pass_on(text.extend)
        else:
            self.copy_body(min(head.length or 0, _MOST_ERROR), text.extend)
        return text.decode(errors="replace")

    def _receive(self, size: int) -> None:
        """Receive what is there, until the buffer has this number of bytes."""
        before = self._filled
        try:
            while self._filled < size:
                count = self._read(size - self._filled, self._view[self._filled : size])
                if not count and self._filled == before:
                    raise ConnectionError("the connection was closed")
                if not count:  # next time it is an error
                    break
                self._filled += count
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        self._came += self._filled - before
        if self._came >= PROGRESS:
            self._came, self._end = 0, time.monotonic() + self._limits.attempt_s

    def _wait(self) -> None:
        """Wait until something comes."""
        stalled = time.monotonic() + self._limits.stall_s
        while True:
            left = min(stalled, self._end) - time.monotonic()
            if left <= 0 or self._closed.is_set():
                raise TimeoutError
            if self._poll.poll(1000 * min(left, _POLL_S)):
                return


def _received(plain: socket.socket, size: int, into: memoryview) -> int:
    return plain.recv_into(into, size)


def _head(text: bytes) -> Head:
    found = _STATUS.match(text)
    if found is None:
        raise ConnectionError("an answer that is not HTTP")
    try:
        headers = http.client.parse_headers(io.BytesIO(text[found.end() :]))
    except http.client.HTTPException:
        raise ConnectionError("headers that are not HTTP") from None
    lengths = set(headers.get_all("Content-Length", []))
    if len(lengths) > 1:
        raise ConnectionError("an answer with several lengths")
    told, is_chunked = "".join(lengths), "Transfer-Encoding" in headers
    plain = not is_chunked and told.isascii() and told.isdigit() and len(told) < 20
    keeps_open = found[1] == b"1" and "close" not in headers.get("Connection", "").lower()
    return Head(int(found[2]), headers, int(told) if plain else None, is_chunked, keeps_open)
