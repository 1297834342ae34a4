"""A store over a local directory, in this process: it counts what is fetched, and a test may let operations fail."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mx8shards.errors import RemoteError
from mx8shards.remote.store import Fetched, Listed, Span

Fault = Callable[[str, bytes], bytes]  # of the key and the bytes: other bytes, or an exception


class FolderStore:
    """Objects are the files below `root`."""

    def __init__(self, root: Path, url: str = "s3://folder/data") -> None:
        self.root = root
        self.url = url
        self.address = url
        self.can_put_conditionally = True
        self.asked: list[str] = []  # the keys of all requests
        self.fault: Fault = lambda key, data: data

    def _data(self, key: str) -> bytes:
        self.asked.append(key)
        path = self.root / key
        if not path.is_file():
            raise RemoteError("no such object", subject=f"{self.url}/{key}", reason="missing")
        return self.fault(key, path.read_bytes())

    def read(self, key: str, most: int) -> Fetched:
        data = self._data(key)
        return Fetched(data, hashlib.md5(data).hexdigest())

    def read_spans(self, key: str, spans: Sequence[Span], etag: str | None) -> list[bytes]:
        data = self._data(key)
        return [data[begin:end] for begin, end in spans]

    def head(self, key: str) -> Listed | None:
        self.asked.append(key)
        path = self.root / key
        if not path.is_file():
            return None
        found = path.stat()
        return Listed(key, found.st_size, hashlib.sha256(path.read_bytes()).hexdigest(), found.st_mtime)

    def fetch(self, key: str, target: Path, size_bytes: int, *, in_ranges: bool = False, algorithm: str = "") -> str:
        data = self._data(key)
        with open(target, "xb") as file:
            file.write(data)
        return ""

    def put(self, key: str, source: bytes | Path, *, if_match: str | None = None, new: bool = False) -> str:
        raise NotImplementedError

    def list(self, prefix: str = "") -> Iterator[Listed]:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def delete(self, keys: Iterable[str]) -> None:
        raise NotImplementedError
