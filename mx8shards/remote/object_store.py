"""How are objects in S3, Google Cloud Storage and Azure read, written and listed? By the obstore package.

Retries are ours, see retries.py: obstore retries single requests within an attempt only where it saves work, that is
for the parts of a large upload. What an error says comes from its HTTP status and code, never from obstore's text,
which contains whole URLs (those of Azure may contain a signature).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mx8shards.disk import operations
from mx8shards.disk.map import Bytes, map_path
from mx8shards.errors import FormatError, RemoteError, ShardsError, require
from mx8shards.remote import clients, faults, puts
from mx8shards.remote.access import Access, Keys
from mx8shards.remote.conditions import honours_conditions
from mx8shards.remote.connections import Connections, can_fetch
from mx8shards.remote.downloads import Get, fetch_in_one_stream, fetched_in_parallel
from mx8shards.remote.new_in_parts import IN_PARTS_FROM, InParts
from mx8shards.remote.parallel_ranges import RANGE_BYTES
from mx8shards.remote.retries import interruptibly, stall_s, until_deadline, upload_s
from mx8shards.remote.spans import Merged, merged
from mx8shards.remote.store import Fetched, Listed, Span

_T = TypeVar("_T")

_CHUNK = 1 << 18  # bytes that are written to a file at once; with more, obstore takes up to twice the CPU time
_PART_RETRIES = 5
_MOST_IDLE = 32  # connections that are kept for later downloads
_MOST_CLIENTS = 4  # with different time limits, or with earlier credentials
_ONCE_S = 3.0  # the time limit of an attempt to delete something after an error
_PAGE = 1000  # objects of a listing, or to be deleted by one request


class ObjectStore:
    """The objects of a bucket under a prefix: a Store, see store.py.

    Args:
        scheme: "s3", "gs" or "az".
        bucket: The bucket, which Azure calls container.
        prefix: All keys are relative to it. It has no slash at its ends.
        deadline_s: After this time an operation that does not succeed raises RemoteError.
        parallel: The most requests of one `read_spans`, and the most objects that are fetched concurrently.
    """

    def __init__(self, scheme: str, bucket: str, prefix: str, *, deadline_s: float, parallel: int) -> None:
        self._scheme, self._bucket, self._prefix = scheme, bucket, prefix
        self._deadline_s, self._parallel = deadline_s, parallel
        self._obstore = require("obstore", "remote")
        self._access = Access() if scheme == "s3" else None
        self._closed = threading.Event()
        self._connections: Connections | None = None
        if self._access and can_fetch(self._access):
            where = self._access, bucket, prefix
            self._connections = Connections(*where, stall_s(deadline_s), _MOST_IDLE, self._closed)
        self._lock = threading.Lock()
        self._clients: dict[tuple[Any, ...], Any] = {}
        self._in_parts = InParts(self._access, bucket, prefix, stall_s(deadline_s)) if self._access else None
        self._conditional: bool | None = None
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[Callable[..., ObjectStore], tuple[Any, ...]]:
        return _again, (self._scheme, self._bucket, self._prefix, self._deadline_s, self._parallel)

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    @property
    def url(self) -> str:
        """The URL of the prefix."""
        return f"{self._scheme}://{self._bucket}" + (f"/{self._prefix}" if self._prefix else "")

    @property
    def address(self) -> str:
        """The URL and, if there is one, the endpoint."""
        endpoint = self._access.endpoint if self._access else None
        return f"{self.url} at {endpoint}" if endpoint else self.url

    @property
    def can_put_conditionally(self) -> bool:
        """Whether `put` honours its conditions. A store that is neither AWS, Google nor Azure is tried."""
        if self._conditional is None:
            self._conditional = self._access is None or self._access.endpoint is None or honours_conditions(self)
        return self._conditional

    def close(self) -> None:
        """End operations that wait for their next attempt, and make no new ones."""
        self._closed.set()
        if self._connections:
            self._connections.close()
        with self._lock:
            self._clients.clear()

    def read(self, key: str, most: int) -> Fetched:
        """A whole object of at most `most` bytes."""

        def work(client: Any) -> Fetched:
            result = self._obstore.get(client, key)
            if result.meta["size"] > most:
                raise FormatError(
                    subject=self._url_of(key), expected=f"at most {most} bytes", found=f"{result.meta['size']}"
                )
            return Fetched(bytes(result.bytes()), result.meta["e_tag"] or "")

        return self._run(key, work)

    def read_spans(self, key: str, spans: Sequence[Span], etag: str | None) -> list[bytes]:
        """Parts of an object. Spans that lie near each other are read by one request."""
        groups = merged(spans)
        if len(groups) <= 1:
            parts = [self._read_span(key, group, etag) for group in groups]
        else:
            with ThreadPoolExecutor(min(self._parallel, len(groups))) as threads:
                parts = list(threads.map(lambda group: self._read_span(key, group, etag), groups))
        found = dict(pair for part in parts for pair in part)
        return [found[number] for number in range(len(spans))]

    def _read_span(self, key: str, group: Merged, etag: str | None) -> list[tuple[int, bytes]]:
        """The bytes of the spans of one group, each with its number."""
        begin, end = group.begin, group.end

        def work(client: Any) -> bytes:
            options = {"range": (begin, end)} | ({"if_match": etag} if etag else {})
            result = self._obstore.get(client, key, options=options)
            if etag and (found := result.meta["e_tag"] or "") not in ("", etag):  # some stores ignore the condition
                raise self._changed(key, f"the ETag {etag}", found)
            data = bytes(result.bytes())
            if len(data) != end - begin:
                raise self._changed(key, f"bytes {begin} to {end}", f"{len(data)} bytes")
            return data

        data = self._run(key, work) if end > begin else b""
        return [(number, data[first - begin : last - begin]) for number, (first, last) in group.spans]

    def head(self, key: str) -> Listed | None:
        """Size and ETag of an object; None if there is none."""
        try:
            return self._run(key, lambda client: _listed(self._obstore.head(client, key)))
        except RemoteError as error:
            if error.reason == "missing":
                return None
            raise

    def fetch(self, key: str, target: Path, size_bytes: int, *, in_ranges: bool = False, algorithm: str = "") -> str:
        """Write a whole object into the new file `target`."""
        what = partial(self._attempts, key), target, size_bytes, self._url_of(key)
        server = (self._access.endpoint if self._access else None) or self._scheme
        if in_ranges and size_bytes > RANGE_BYTES and fetched_in_parallel(*what, self._closed, server):
            return ""
        return fetch_in_one_stream(*what, algorithm)

    def _attempts(
        self,
        key: str,
        work: Callable[[Get], None],
        progress: Callable[[], int],
        stopped: threading.Event | None = None,
    ) -> None:
        """Call `work` with a function that asks for this object: over connections of our own, or with obstore."""

        def attempt(keys: Keys | None, region: str, attempt_s: float) -> None:
            if self._connections:
                work(partial(self._connections.get, key, keys, region, attempt_s))
            else:
                work(partial(self._get, self._client(keys, region, attempt_s), key))

        self._retried(key, attempt, progress=progress, stopped=stopped)

    def _get(self, client: Any, key: str, span: Span | None, etag: str) -> nullcontext[_Answer]:
        options = ({"range": span} if span else {}) | ({"if_match": etag} if etag else {})
        try:
            return nullcontext(_Answer(self._obstore.get(client, key, options=options)))
        except self._obstore.exceptions.GenericError as error:
            if not faults.ignores_ranges(error):
                raise
            return nullcontext(_Answer(self._obstore.get(client, key)))

    def put(self, key: str, source: bytes | Path, *, if_match: str | None = None, new: bool = False) -> str:
        """Store an object and return its ETag, conditionally with `if_match` or `new`."""
        with operations.disk_errors("read", source if isinstance(source, Path) else Path(key)):
            size = source.stat().st_size if isinstance(source, Path) else len(source)
        if not new and if_match is None:
            put = partial(puts.replace, key=key, source=source)
            return self._run(key, put, retries=_PART_RETRIES, upload_bytes=min(size, puts.PARTS_AT_ONCE * puts.PART))
        if new and isinstance(source, Path) and size >= IN_PARTS_FROM and (etag := self._new_in_parts(key, source)):
            return etag
        # In one request: the conditions of uploads in parts are not in obstore. A mapped file takes no memory of ours.
        data: bytes | Bytes = source if isinstance(source, bytes) else map_path(source)
        unsure = False  # whether an earlier attempt may have succeeded without our hearing of it

        def work(client: Any) -> str:
            nonlocal unsure
            try:
                return puts.send(client, key, data, "create" if new else self._version(client, key, if_match))
            except Exception as error:
                reason = error.reason if isinstance(error, RemoteError) else faults.of_client(error, "").reason
                if reason == "changed" and unsure:
                    stored = self._obstore.get(client, key)
                    if stored.meta["size"] == len(data) and bytes(stored.bytes()) == bytes(data):
                        return str(stored.meta["e_tag"] or "")
                unsure = unsure or reason == "network"
                raise

        return self._run(key, work, upload_bytes=size)

    def _new_in_parts(self, key: str, source: Path) -> str | None:
        """Store a large new object; None if that is not possible in parts."""

        def run(request: Callable[[], Any], sent_bytes: int) -> Any:
            return self._run(key, lambda _: request(), upload_bytes=sent_bytes)

        return self._in_parts.put(self, key, source, run) if self._in_parts else None

    def _version(self, client: Any, key: str, etag: str | None) -> dict[str, str | None]:
        """The condition that an object has this ETag. Google's conditions are on the generation, which is looked up."""
        if self._scheme != "gs":
            return {"e_tag": etag}
        try:
            meta = self._obstore.head(client, key)
        except FileNotFoundError:
            meta = {"e_tag": "no object"}
        if meta["e_tag"] != etag:
            raise self._changed(key, f"the ETag {etag}", meta["e_tag"])
        return {"e_tag": etag, "version": meta["version"]}

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All objects below a prefix, page by page. A broken listing is continued after its last key."""
        last: str | None = None
        pages: Any = None

        def work(client: Any) -> list[Listed]:
            nonlocal pages
            try:
                pages = pages or self._obstore.list(client, prefix or None, offset=last, chunk_size=_PAGE)
                return [_listed(meta) for meta in next(pages, [])]
            except Exception:
                pages = None
                raise

        while page := self._run(prefix, work):
            yield from page
            last = page[-1].key

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, many by one request where the store can."""
        keys = list(keys)
        for start in range(0, len(keys), _PAGE):
            some = keys[start : start + _PAGE]
            try:
                self._delete(some)
            except RemoteError as error:
                if error.reason not in ("missing", "denied"):
                    raise
                for key in some:  # the store has no such request, or reports a missing object as an error
                    try:
                        self._delete([key])
                    except RemoteError as fault:
                        if fault.reason != "missing":
                            raise

    def _delete(self, keys: Sequence[str]) -> None:
        self._run(keys[0], lambda client: self._obstore.delete(client, list(keys)))

    def delete_once(self, key: str) -> None:
        """Delete an object in one attempt of a few seconds, also if the store is closed. Errors are obstore's."""

        def attempt() -> None:
            keys, region = (self._access.keys(), self._access.region) if self._access else (None, "")
            self._obstore.delete(self._client(keys, region, _ONCE_S), [key])

        interruptibly(attempt, threading.Event(), time.monotonic() + _ONCE_S)

    def _run(self, key: str, work: Callable[[Any], _T], *, retries: int = 0, upload_bytes: int = 0) -> _T:
        """Call `work` with a client of obstore, as `_retried` does."""
        more_s = upload_s(upload_bytes)

        def attempt(keys: Keys | None, region: str, attempt_s: float) -> _T:
            return work(self._client(keys, region, attempt_s, more_s, retries))

        return self._retried(key, attempt, more_s=more_s)

    def _retried(
        self,
        key: str,
        work: Callable[[Keys | None, str, float], _T],
        *,
        more_s: float = 0.0,
        progress: Callable[[], int] = lambda: 0,
        stopped: threading.Event | None = None,
    ) -> _T:
        """Call `work`, again after transient faults until the deadline, and once with new credentials.

        It gets credentials, a region and a time limit.
        """
        if self._pid != os.getpid():
            raise RemoteError("an ObjectStore cannot be used after fork; a ForkSafe can", subject=self.url)
        subject, stopped = self._url_of(key), stopped or self._closed
        corrected = False  # only once: a program that makes new credentials for every call would have no end

        def attempt(left_s: float) -> _T:
            nonlocal corrected
            while True:
                used = (self._access.keys(), self._access.region) if self._access else (None, "")
                try:
                    return interruptibly(partial(work, *used, left_s), stopped)
                except RemoteError as error:
                    fault = error
                except ShardsError:
                    raise
                except (self._obstore.exceptions.BaseError, OSError) as error:
                    fault = faults.of_client(error, subject)
                if corrected or not self._corrected(fault, *used):
                    raise fault
                corrected = True

        return until_deadline(attempt, self._deadline_s, stopped, progress, more_s)

    def _corrected(self, fault: RemoteError, keys: Keys | None, region: str) -> bool:
        """Whether there are other credentials, or another region, with which a refused request may succeed."""
        if self._access is None or fault.reason != "denied":
            return False
        if fault.message == faults.ANOTHER_REGION:
            return self._access.find_region(self._bucket, region)
        return self._access.renew(keys)

    def _client(self, keys: Keys | None, region: str, attempt_s: float, more_s: float = 0.0, retries: int = 0) -> Any:
        """A client with these credentials whose attempts may take this long, of which sending gets `more_s`."""
        stalled_s, retry_s = stall_s(self._deadline_s) + more_s, max(attempt_s - more_s, 1.0)
        name = (keys, region, math.ceil(attempt_s), stalled_s, math.ceil(retry_s), retries)
        with self._lock:
            client = self._clients.get(name)
            if client is None:
                limits = clients.limits(attempt_s, stalled_s, retry_s, retries)
                where = self._bucket, self._prefix
                if self._access:
                    client = clients.s3_client(*where, self._access, keys, region, limits)
                else:
                    client = clients.cloud_client(self._scheme, *where, limits)
                while len(self._clients) >= _MOST_CLIENTS:
                    del self._clients[next(iter(self._clients))]
            else:
                del self._clients[name]
            self._clients[name] = client  # the most recently used one is the last
            return client

    def _url_of(self, key: str) -> str:
        return f"{self.url}/{key}" if key else self.url

    def _changed(self, key: str, expected: str, found: str) -> RemoteError:
        """The error for an object that is not of the size that it should have."""
        return RemoteError(subject=self._url_of(key), expected=expected, found=found, reason="changed")


class _Answer:
    """An Answer of downloads.py, from obstore."""

    def __init__(self, result: Any) -> None:
        self._result = result
        self.span: Span = result.range
        self.size_bytes: int = result.meta["size"]
        self.etag: str = result.meta["e_tag"] or ""

    def copy_to(self, write: Callable[[memoryview], object]) -> None:
        """Pass the body to `write`."""
        for chunk in self._result.stream(min_chunk_size=_CHUNK):
            write(memoryview(chunk))


def _again(scheme: str, bucket: str, prefix: str, deadline_s: float, parallel: int) -> ObjectStore:
    """What pickle calls: another process connects again."""
    return ObjectStore(scheme, bucket, prefix, deadline_s=deadline_s, parallel=parallel)


def _listed(meta: Any) -> Listed:
    return Listed(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"].timestamp())
