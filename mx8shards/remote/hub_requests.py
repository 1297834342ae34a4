"""How is one file of the Hugging Face Hub asked for?

The Hub answers a request for a large file by a redirect to its storage. What the redirect says of the file counts (its
hash and size), not what the storage says. The token is sent to the Hub's own host only.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

from mx8shards.errors import RemoteError, SettingError, error_text
from mx8shards.remote import faults
from mx8shards.remote.store import Span

_PIECE = 1 << 20
_HOPS = 5
_IN_URLS = "%:/?#[]@!$&'()*+,;=~"  # what has a meaning in a URL, or is escaped already
_REDIRECTS = (301, 302, 303, 307, 308)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, *args: Any, **kwargs: Any) -> None:
        """Redirects are followed by `ask`, which decides who gets the token."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


_opener = urllib.request.build_opener(_NoRedirect)


class Answer:
    """An answer of the Hub, or of its storage together with what the Hub said of the file. Use it in `with`."""

    def __init__(self, response: Any, facts: list[Any], subject: str, end: float) -> None:
        self._response, self._facts, self._subject, self._end = response, facts, subject, end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._response.close()

    def header(self, name: str) -> str:
        """The first value of this header, from the Hub's own answers first; "" if there is none."""
        return next((str(facts[name]) for facts in self._facts if facts[name]), "")

    @property
    def etag(self) -> str:
        """The ETag of the file, as the Hub says it."""
        return (self.header("X-Linked-ETag") or self.header("ETag")).removeprefix("W/")

    @property
    def commit(self) -> str:
        """The commit that the file is taken from; "" if the answer does not say."""
        return self.header("X-Repo-Commit")

    @property
    def size_bytes(self) -> int | None:
        """The size of the whole file; None if the answer does not say."""
        whole = self.header("X-Linked-Size") or self._facts[-1]["Content-Range"].rpartition("/")[2]
        text = whole or (self._facts[-1]["Content-Length"] if self._response.status == 200 else "")
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def modified_s(self) -> float:
        """Unix time of the last change; 0 if the answer does not say."""
        with contextlib.suppress(ValueError, TypeError):
            return email.utils.parsedate_to_datetime(self.header("Last-Modified")).timestamp()
        return 0.0

    def pieces(self, most: int) -> Iterator[bytes]:
        """The body as it comes, at most `most` bytes. RemoteError when the attempt must end."""
        while most > 0:
            if time.monotonic() > self._end:
                raise RemoteError("no complete answer in time", subject=self._subject)
            try:
                piece = self._response.read1(min(most, _PIECE))
            except (OSError, http.client.HTTPException) as error:
                raise _broken(error, self._subject) from None
            if not piece:
                return
            most -= len(piece)
            yield piece

    def read(self, most: int) -> bytes:
        """The body, at most `most` bytes."""
        return b"".join(self.pieces(most))

    def require_whole(self, size_bytes: int) -> None:
        """RemoteError if the whole file has more bytes than came."""
        expected = self.size_bytes
        if expected is not None and size_bytes < expected:
            raise RemoteError(f"the answer ended after {size_bytes} of {expected} bytes", subject=self._subject)

    def require_range(self, begin: int) -> None:
        """RemoteError unless the body begins at this byte of the file."""
        found = self._facts[-1]["Content-Range"]
        if self._response.status != 206 or not found.startswith(f"bytes {begin}-"):
            raise RemoteError(
                f"expected a part of the file from byte {begin}, got {found or 'the whole file'}",
                subject=self._subject,
                reason="denied",
                hint="a proxy that ignores ranges?",
            )


class _Facts:
    """The headers of one answer; a missing one is ""."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        return self._headers.get(name) or ""


def ask(method: str, url: str, subject: str, end: float, stall_s: float, span: Span | None = None) -> Answer:
    """The answer to a request, after redirects. RemoteError for all but success.

    Args:
        method: GET, or HEAD, which does not go on to the storage.
        url: A URL of the Hub.
        subject: How errors call the file: URLs of the storage are signed, so they are not shown.
        end: The time (of time.monotonic) when the attempt must end.
        stall_s: It also ends when nothing has come for this time.
        span: The bytes of the file to ask for; None for all.
    """
    hub = urlsplit(url)[:2]
    facts: list[_Facts] = []
    for _ in range(_HOPS):
        left_s = min(stall_s, max(end - time.monotonic(), 0.01))
        response = _send(method, url, subject, left_s, span, with_token=urlsplit(url)[:2] == hub)
        facts.append(_Facts(response.headers))
        try:
            url = _address(url, facts[-1]["Location"], subject)
        except RemoteError:
            response.close()
            raise
        at_hub = urlsplit(url)[:2] == hub
        if response.status in (200, 206) or (response.status in _REDIRECTS and method == "HEAD" and not at_hub):
            return Answer(response, facts, subject, end)
        response.close()
        if response.status not in _REDIRECTS:
            raise faults.of_status(response.status, facts[-1]["X-Error-Code"], subject, hint=_hint(response.status))
        if urlsplit(url).scheme not in ("https", hub[0]):
            raise RemoteError("a redirect to an insecure address", subject=subject, reason="denied")
        if at_hub:
            facts.pop()  # a renamed repository: what counts is what its new address says
    raise RemoteError("too many redirects", subject=subject, reason="denied")


def _send(method: str, url: str, subject: str, timeout_s: float, span: Span | None, *, with_token: bool) -> Any:
    """One request, without following a redirect."""
    headers = {"User-Agent": "mx8shards", "Accept-Encoding": "identity"}
    if span:
        headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    token = os.environ.get("HF_TOKEN", "").strip()
    if token and with_token:
        if not (token.isascii() and token.isprintable()):  # http.client would show it in its error
            raise SettingError(subject="HF_TOKEN", expected="a token in one line", found="another text")
        headers["Authorization"] = f"Bearer {token}"
    try:
        return _opener.open(urllib.request.Request(url, headers=headers, method=method), timeout=timeout_s)  # noqa: S310
    except urllib.error.HTTPError as answer:
        return answer
    except (OSError, http.client.HTTPException) as error:
        raise _broken(error, subject) from None


def _address(url: str, location: str, subject: str) -> str:
    """Where a redirect leads, with characters escaped that a URL must not have."""
    try:
        found = quote(urljoin(url, location), safe=_IN_URLS)
        _ = urlsplit(found).port  # checks it
    except ValueError:  # its text contains the URL
        raise RemoteError("a redirect to an address that is no URL", subject=subject, reason="denied") from None
    return found


def _broken(error: Exception, subject: str) -> RemoteError:
    """The error for a connection that failed. Texts of http.client may contain a whole URL, so they are not shown."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    text = error_text(reason) if isinstance(reason, OSError) else type(reason).__name__
    return RemoteError(f"no answer: {text}", subject=subject)


def _hint(status: int) -> str:
    if status == 404:
        return "check owner, name and revision"
    return "set HF_TOKEN, and check the name: the Hub does not tell which" if status in (401, 403) else ""
