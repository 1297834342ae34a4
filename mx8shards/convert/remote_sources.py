"""How are the pictures below a URL, or in a tar in a store, listed and read? The counterpart of a local folder or tar.

The listing is asked for once, by the process that starts the conversion. It tells the size and the ETag of each object;
a read carries them, so that an object that was replaced meanwhile is an error. Reads begin before their pictures are
needed, some at a time. The store tries a failed read again until its deadline. Then the conversion ends with
RemoteError, and running the same command again resumes it: a failed read is never a reject.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, NamedTuple

from mx8shards.convert.file_kinds import FileKind
from mx8shards.convert.tarball import Tar
from mx8shards.errors import RemoteError, SettingError, SourceError
from mx8shards.remote.open_store import DEADLINE_S, open_store
from mx8shards.remote.store import Store
from mx8shards.shards.links import RemoteLink, parse_any

_AHEAD = 16  # reads that are begun before they are needed …
_AHEAD_BYTES = 64 << 20  # … of at most this size together; a larger object is read alone
_BLOCK_BYTES = 1 << 20  # of a tar, while its headers are read
_NEAR = 4  # blocks: up to this distance to the next header, the blocks in between are read too, in parallel
_AGAIN = "running the same command again converts the changed files and reuses the rest"


_deadline_s = ContextVar("deadline_s", default=DEADLINE_S)  # of sources that are opened in this context


@contextlib.contextmanager
def reads_fail_after(deadline_s: float) -> Iterator[None]:
    """Set how long sources opened in the `with` block wait for a store that does not answer, also in workers.

    A recipe opens its source itself, so the setting cannot be one of its arguments.
    """
    token = _deadline_s.set(deadline_s)
    try:
        yield
    finally:
        _deadline_s.reset(token)


def open_remote(text: str, kind: FileKind) -> RemoteFolder | RemoteTar:
    """Open the URL of a folder or, if it is the key of an object, of a tar."""
    link = parse_any(text)
    assert isinstance(link, RemoteLink)
    if link.snapshot is not None or link.refresh:
        raise SettingError(subject="src", expected="the URL of a folder or of a tar", found=f"{link}, a dataset's link")
    above, _, name = link.url.rpartition("/")
    if not above.endswith("/") and not above.endswith(":"):  # not the root of a bucket
        with contextlib.closing(open_store(above, deadline_s=_deadline_s.get())) as store:
            found = store.head(name)
        if found is not None and found.size_bytes:
            return RemoteTar(above, name, found.size_bytes, found.etag, kind)
    return RemoteFolder(link.url, kind)


class _Read(NamedTuple):
    """A part of an object to be read."""

    key: str
    begin: int
    size: int
    etag: str


class _Reader:
    """Reads parts of objects; those given to `expect` are read ahead. A copy in another process opens its own store."""

    def __init__(self, url: str, deadline_s: float) -> None:
        self.url = url
        self._deadline_s = deadline_s
        self._store: Store | None = None
        self._begun: dict[str, tuple[int, Future[bytes]]] = {}
        self._expected: deque[tuple[str, _Read]] = deque()

    def __reduce__(self) -> tuple[Callable[[str, float], _Reader], tuple[str, float]]:
        return _Reader, (self.url, self._deadline_s)

    @property
    def store(self) -> Store:
        """The store, opened when it is first needed."""
        if self._store is None:
            self._store = open_store(self.url, deadline_s=self._deadline_s)
        return self._store

    def expect(self, reads: Iterable[tuple[str, _Read]]) -> None:
        """Begin these reads, each with a name, some at a time. Those that were expected before are forgotten."""
        self._begun.clear()
        self._expected = deque(reads)
        self._begin_more()

    def _begin_more(self) -> None:
        under_way = sum(size for size, _ in self._begun.values())
        while self._expected and len(self._begun) < _AHEAD:
            name, read = self._expected[0]
            if self._begun and under_way + read.size > _AHEAD_BYTES:
                break
            self._expected.popleft()
            under_way += read.size
            self._begun[name] = read.size, self.begin(read)

    def begin(self, read: _Read) -> Future[bytes]:
        """Read in another thread. It is a daemon, so that the process can end while a store does not answer."""
        store = self.store
        result: Future[bytes] = Future()

        def run() -> None:
            try:
                result.set_result(_bytes_of(store, read))
            except BaseException as error:  # noqa: BLE001 - it is raised where the bytes are needed
                result.set_exception(error)

        threading.Thread(target=run, name="mx8shards-convert-read", daemon=True).start()
        return result

    def read(self, name: str, read: _Read) -> bytes:
        """The bytes of a read, which may have been begun under this name."""
        _, begun = self._begun.pop(name, (0, None))
        self._begin_more()
        return begun.result() if begun is not None else _bytes_of(self.store, read)


def _bytes_of(store: Store, read: _Read) -> bytes:
    """RemoteError if the object is not the one that was listed, or the store does not answer."""
    try:
        (data,) = store.read_spans(read.key, [(read.begin, read.begin + read.size)], read.etag or None)
    except RemoteError as error:
        if error.reason not in ("changed", "missing"):
            raise
        subject = f"{store.url}/{read.key}"
        message = "the object changed while it was converted"
        raise RemoteError(message, subject=subject, hint=_AGAIN, reason=error.reason) from error
    return data


class RemoteFolder:
    """The objects below a URL, as the files of a folder."""

    state = None  # the size and ETag of each object are in its item

    def __init__(self, url: str, kind: FileKind) -> None:
        self._reader = _Reader(url, _deadline_s.get())
        self._kind = kind
        self._listed: dict[str, tuple[int, str]] = {}
        self._list()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_listed": {}}  # workers get items with all that they need

    def _list(self) -> None:
        """Hidden objects are skipped, and so are those without bytes that consoles make for folders."""
        found = {each.key: (each.size_bytes, each.etag) for each in self._reader.store.list()}
        folders = {""}
        for key in found:
            while (key := key.rpartition("/")[0]) not in folders:
                folders.add(key)
        self._folders = sorted(name for name in folders if name and "/" not in name and not name.startswith("."))
        for key, facts in found.items():
            if "/." not in f"/{key}" and (facts[0] or key not in folders):
                self._listed[key] = facts
        if not self._listed:
            expected = f"a folder of {self._kind.name}, or the key of a .tar"
            raise SourceError(subject=self._reader.url, expected=expected, found="no objects below this URL")

    def names(self) -> list[str]:
        """The keys of all objects, relative to the URL, sorted."""
        return sorted(self._listed)

    def folders(self) -> list[str]:
        """The top-level folders, including those with hidden objects only."""
        return self._folders

    def facts(self, name: str) -> tuple[int, str]:
        """Size and ETag of an object."""
        return self._listed[name]

    def stamp(self, name: str) -> object:
        """None: the facts are in the item."""
        return None

    def expect(self, items: Iterable[Sequence[Any]]) -> None:
        """Begin to read these items, given by names and facts."""
        fitting = ((name, _Read(name, 0, size, etag)) for name, size, etag in items if size <= self._kind.most_bytes)
        self._reader.expect(fitting)

    def read(self, name: str, size: int, etag: str) -> bytes:
        """Read an object. SourceError for one that is too large."""
        if size > self._kind.most_bytes:
            raise self._kind.too_large(size)
        return self._reader.read(name, _Read(name, 0, size, etag))


class RemoteTar(Tar):
    """The files in an uncompressed tar that is an object."""

    def __init__(self, url: str, key: str, size: int, etag: str, kind: FileKind) -> None:
        self._reader = _Reader(url, _deadline_s.get())
        self._kind = kind
        self._object = _Read(key, 0, size, etag)
        self._scan(f"{url}/{key}")

    def _opened(self) -> tuple[io.RawIOBase, object]:
        return _Blocks(self._reader, self._object), self._state_now()

    def _state_now(self) -> object:
        return [self._object.etag, self._object.size]  # each read carries the ETag

    def expect(self, items: Iterable[Sequence[Any]]) -> None:
        """Begin to read these items, given by names."""
        places = ((name, self._found(name)) for (name,) in items)
        self._reader.expect(
            (name, self._read_of(place.begin, place.stored)) for name, place in places if not place.fault
        )

    def _stored(self, name: str, begin: int, size: int) -> bytes:
        return self._reader.read(name, self._read_of(begin, size))

    def _read_of(self, begin: int, size: int) -> _Read:
        return _Read(self._object.key, begin, size, self._object.etag)


class _Blocks(io.RawIOBase):
    """An object as a file. Blocks are read in parallel while it is read from its start to its end."""

    def __init__(self, reader: _Reader, whole: _Read) -> None:
        self._reader = reader
        self._whole = whole
        self._at = 0
        self._last = -1
        self._blocks: dict[int, Future[bytes]] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._whole.size}[whence]
        return self._at

    def readinto(self, target: Any, /) -> int:
        if self._at >= self._whole.size:
            return 0
        number, begin = divmod(self._at, _BLOCK_BYTES)
        data = self._block(number)[begin : begin + len(target)]
        target[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        ahead = _AHEAD if 0 <= number - self._last <= _NEAR else 1
        self._last = number
        kept = {i: block for i, block in self._blocks.items() if i >= number}
        for i in range(number, min(number + ahead, -(-self._whole.size // _BLOCK_BYTES))):
            if i not in kept:
                begin = i * _BLOCK_BYTES
                size = min(_BLOCK_BYTES, self._whole.size - begin)
                kept[i] = self._reader.begin(self._whole._replace(begin=begin, size=size))
        self._blocks = kept
        return kept[number].result()
