"""How are datasets on the Hugging Face Hub read? Over HTTPS, with the standard library only.

The first `read` (of the index) asks for the revision as it is now, and notes the commit in the answer. All that follows
comes from that commit, so a push in between does not mix two versions.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mx8shards.errors import FormatError, RemoteError, SettingError
from mx8shards.remote.access import checked_endpoint
from mx8shards.remote.hub_requests import Answer, ask
from mx8shards.remote.partial_file import PartialFile
from mx8shards.remote.retries import stall_s, until_deadline
from mx8shards.remote.spans import merged
from mx8shards.remote.store import Fetched, Listed, Span, is_plain

_T = TypeVar("_T")

_REPOSITORY = re.compile(r"datasets/([\w.-]+/[\w.-]+)(?:@([^/@]+))?(?:/(.*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NEXT = re.compile(r'<([^>]+)>; *rel="next"')
_LIST_BYTES = 64 << 20  # the most bytes of one page of a listing


class Hub:
    """The files of a dataset repository under a prefix: a Store that only reads. It works after fork.

    Args:
        rest: The URL behind hf://, that is datasets/OWNER/NAME[@REVISION][/PREFIX].
        deadline_s: After this time an operation that does not succeed raises RemoteError.
    """

    def __init__(self, rest: str, *, deadline_s: float, commit: str = "") -> None:
        found = _REPOSITORY.fullmatch(rest)
        if not found:
            raise SettingError(subject="url", expected="hf://datasets/OWNER/NAME[@REVISION]/PATH", found="another URL")
        self._rest, self._deadline_s = rest, deadline_s
        self._repository, self._prefix = found[1], (found[3] or "").strip("/")
        self._revision = urllib.parse.unquote(found[2] or "main")
        self._commit = commit
        self._endpoint = checked_endpoint("HF_ENDPOINT", os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
        self._closed = threading.Event()

    def __reduce__(self) -> tuple[Callable[..., Hub], tuple[Any, ...]]:
        return _again, (self._rest, self._deadline_s, self._commit)

    def __repr__(self) -> str:
        return f"Hub({self.url!r})"

    @property
    def url(self) -> str:
        """The URL of the prefix."""
        return f"hf://{self._rest.rstrip('/')}"

    @property
    def address(self) -> str:
        """The URL and the endpoint."""
        return f"{self.url} at {self._endpoint}"

    @property
    def can_put_conditionally(self) -> NoReturn:
        """Refused: it cannot put at all."""
        self._read_only()

    def close(self) -> None:
        """End operations that wait for their next attempt."""
        self._closed.set()

    def read(self, key: str, most: int) -> Fetched:
        """A whole file of at most `most` bytes. If it is the first, everything else comes from its commit."""

        def work(end: float) -> Fetched:
            with self._get(key, end) as answer:
                if (answer.size_bytes or 0) > most:
                    raise self._too_large(key, most, f"{answer.size_bytes}")
                data = answer.read(most + 1)
                if len(data) > most:
                    raise self._too_large(key, most, "more")
                answer.require_whole(len(data))
                self._commit = self._commit or (answer.commit if _COMMIT.fullmatch(answer.commit) else "")
                return Fetched(data, answer.etag, self._source)

        return self._run(work)

    def read_spans(self, key: str, spans: Sequence[Span], etag: str | None) -> list[bytes]:
        """Parts of a file. The ETag in each answer must be `etag`, if one is given."""
        found: dict[int, bytes] = {}
        for group in merged(spans):
            data = self._span(key, group.begin, group.end, etag) if group.end > group.begin else b""
            for number, (begin, end) in group.spans:
                found[number] = data[begin - group.begin : end - group.begin]
        return [found[number] for number in range(len(spans))]

    def _span(self, key: str, begin: int, last: int, etag: str | None) -> bytes:
        def work(end: float) -> bytes:
            with self._get(key, end, (begin, last)) as answer:
                self._require_etag(key, answer, etag)
                answer.require_range(begin)
                data = answer.read(last - begin)
            if len(data) != last - begin:
                self._changed(key, f"bytes {begin} to {last}", f"{len(data)} bytes")
            return data

        return self._run(work)

    def head(self, key: str) -> Listed | None:
        """Size and ETag of a file; None if there is none."""

        def work(end: float) -> Listed:
            with ask("HEAD", self._file_url(key), self._subject(key), end, self._stall_s) as answer:
                return Listed(key, answer.size_bytes or 0, answer.etag, answer.modified_s)

        try:
            return self._run(work)
        except RemoteError as error:
            if error.reason == "missing":
                return None
            raise

    def fetch(self, key: str, target: Path, size_bytes: int, *, in_ranges: bool = False, algorithm: str = "") -> str:
        """Write a whole file into the new file `target`. A broken attempt is continued where it stopped.

        `in_ranges` changes nothing: each range would be redirected to a storage server anew.
        """
        etag = ""
        with PartialFile(target, algorithm) as file:

            def work(end: float) -> None:
                nonlocal etag
                resume = (file.done, size_bytes) if 0 < file.done < size_bytes and etag else None
                if resume is None:
                    file.restart()
                with self._get(key, end, resume) as answer:
                    if resume:
                        self._require_etag(key, answer, etag)
                        answer.require_range(file.done)
                    etag = answer.etag
                    if answer.size_bytes not in (None, size_bytes):
                        self._changed(key, f"{size_bytes} bytes", f"{answer.size_bytes} bytes")
                    for piece in answer.pieces(size_bytes - file.done):
                        file.write(piece)
                    answer.require_whole(file.done)
                if file.done != size_bytes:
                    self._changed(key, f"{size_bytes} bytes", f"{file.done} bytes")

            self._run(work, lambda: file.done)
            return file.hash_hex

    def put(self, key: str, source: bytes | Path, *, if_match: str | None = None, new: bool = False) -> NoReturn:
        """Refused: the Hub is read only."""
        self._read_only()

    def delete(self, keys: Iterable[str]) -> None:
        """Refused: the Hub is read only."""
        self._read_only()

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All files below a prefix. The Hub does not tell when they were changed: `modified_s` is 0."""
        path = "/".join(part for part in (self._prefix, prefix.strip("/")) if part)
        tree = f"{self._endpoint}/api/datasets/{self._repository}/tree/{_quoted(self._pinned, safe='')}"
        url = f"{tree}/{_quoted(path)}?recursive=true"
        while url:
            page, url = self._page(url, prefix)
            yield from page

    def _page(self, url: str, prefix: str) -> tuple[Sequence[Listed], str]:
        """The files on one page of a listing, and the URL of the next page or ""."""

        def work(end: float) -> tuple[Sequence[Listed], str]:
            with ask("GET", url, self._subject(prefix), end, self._stall_s) as answer:
                data = answer.read(_LIST_BYTES)
                answer.require_whole(len(data))
                following = _NEXT.search(answer.header("Link"))
            try:
                files = [entry for entry in json.loads(data) if entry["type"] == "file"]
                found = [
                    Listed(self._key(entry["path"]), int(entry["size"]), f'"{_content_id(entry)}"', 0.0)
                    for entry in files
                ]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RemoteError("the listing is not what the Hub's documentation says", subject=self.url) from error
            return found, urllib.parse.urljoin(url, following[1]) if following else ""

        try:
            return self._run(work)
        except RemoteError as error:
            if error.reason == "missing" and "EntryNotFound" in error.message:
                return [], ""  # no such folder
            raise

    def _key(self, path: str) -> str:
        """The key of a listed path; RemoteError unless it is a plain path below the prefix."""
        below = f"{self._prefix}/" if self._prefix else ""
        key = path.removeprefix(below)
        if not path.startswith(below) or not is_plain(key):
            expected = "paths below the prefix in the Hub's listing"
            raise RemoteError(subject=self.url, expected=expected, found=repr(path)[:200], reason="denied")
        return key

    @property
    def _source(self) -> str:
        """The URL of the prefix at the commit that was noted; "" if none was."""
        parts = (f"hf://datasets/{self._repository}@{self._commit}", self._prefix)
        return "/".join(part for part in parts if part) if self._commit else ""

    @property
    def _pinned(self) -> str:
        return self._commit or self._revision

    @property
    def _stall_s(self) -> float:
        return stall_s(self._deadline_s)

    def _get(self, key: str, end: float, span: Span | None = None) -> Answer:
        return ask("GET", self._file_url(key), self._subject(key), end, self._stall_s, span)

    def _file_url(self, key: str) -> str:
        path = "/".join(part for part in (self._prefix, key) if part)
        return f"{self._endpoint}/datasets/{self._repository}/resolve/{_quoted(self._pinned, safe='')}/{_quoted(path)}"

    def _run(self, work: Callable[[float], _T], progress: Callable[[], int] = lambda: 0) -> _T:
        """Call `work` with the time at which its attempt must end, again after transient faults."""
        return until_deadline(lambda left_s: work(time.monotonic() + left_s), self._deadline_s, self._closed, progress)

    def _subject(self, key: str) -> str:
        return f"{self.url}/{key}" if key else self.url

    def _require_etag(self, key: str, answer: Answer, etag: str | None) -> None:
        if etag and answer.etag != etag:
            self._changed(key, f"the ETag {etag}", answer.etag)

    def _changed(self, key: str, expected: str, found: str) -> NoReturn:
        raise RemoteError(subject=self._subject(key), expected=expected, found=found, reason="changed")

    def _too_large(self, key: str, most: int, found: str) -> FormatError:
        return FormatError(subject=self._subject(key), expected=f"at most {most} bytes", found=found)

    def _read_only(self) -> NoReturn:
        hint = "upload with the huggingface_hub package"
        raise RemoteError("the Hugging Face Hub is read only here", subject=self.url, reason="denied", hint=hint)


def _again(rest: str, deadline_s: float, commit: str) -> Hub:
    """What pickle calls. Another process reads the same commit."""
    return Hub(rest, deadline_s=deadline_s, commit=commit)


def _quoted(text: str, safe: str = "/") -> str:
    return urllib.parse.quote(text, safe=safe)


def _content_id(entry: dict[str, Any]) -> str:
    """The hash that the Hub uses as ETag: that of a large file's content, or of a small file in git."""
    return str((entry.get("lfs") or entry)["oid"])
