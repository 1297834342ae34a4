"""A store whose objects are the files of a directory, such as a mounted share: file:///mnt/share/data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from mx8shards.disk import publish
from mx8shards.disk.files import open_regular, read_bounded
from mx8shards.errors import FormatError, RemoteError
from mx8shards.remote.etags import md5
from mx8shards.remote.store import Fetched, Listed, Span, is_plain

SCHEME = "file://"


class FolderStore:
    """Reads the files below a directory. It has no client, so forked processes may use it, and writes nothing.

    Args:
        root: The absolute path of the directory.
    """

    def __init__(self, root: Path) -> None:
        self.url = self.address = f"{SCHEME}{root}"
        self.can_put_conditionally = False
        self._root = root

    def __reduce__(self) -> tuple[object, ...]:
        return FolderStore, (self._root,)

    def read(self, key: str, most: int) -> Fetched:
        """A whole file. Its ETag is its MD5."""
        try:
            data = read_bounded(self._path(key), most)
        except OSError as error:
            raise self._failed(key, error) from error
        return Fetched(data, md5(data).hex())

    def read_spans(self, key: str, spans: Sequence[Span], etag: str | None) -> list[bytes]:
        """Parts of a file. Files have no ETags, so none is compared."""
        try:
            descriptor = open_regular(self._path(key))
            try:
                return [os.pread(descriptor, end - begin, begin) for begin, end in spans]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._failed(key, error) from error

    def head(self, key: str) -> Listed | None:
        """Size and change time of a file; None if there is none."""
        try:
            found = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed(key, error) from error
        return Listed(key, found.st_size, f"{found.st_mtime_ns}-{found.st_size}", found.st_mtime)

    def fetch(self, key: str, target: Path, size_bytes: int, *, in_ranges: bool = False, algorithm: str = "") -> str:
        """Copy a file."""
        source = self._path(key)
        try:
            if source.stat().st_size != size_bytes:
                raise RemoteError(expected=f"{size_bytes} bytes", found="another size", subject=key, reason="changed")
            publish.copy_file(source.resolve(), target, hard_link=False)
            return ""
        except FileNotFoundError as error:
            raise self._failed(key, error) from error

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All files below a prefix."""
        start = self._root / prefix
        paths = publish.files_below(start) if start.is_dir() else ()
        found = (self.head(path.relative_to(self._root).as_posix()) for path in sorted(paths))
        return filter(None, found)

    def put(self, key: str, source: bytes | Path, *, if_match: str | None = None, new: bool = False) -> str:
        """RemoteError: datasets are written into a directory by its path."""
        self._refuse(key)

    def delete(self, keys: Iterable[str]) -> None:
        """RemoteError: a directory is changed by its path."""
        self._refuse(", ".join(keys))

    def close(self) -> None:
        """Nothing."""

    def _path(self, key: str) -> Path:
        if not is_plain(key):
            raise FormatError(subject=self.url, expected="a plain key", found=repr(key))
        return self._root / key

    def _failed(self, key: str, error: OSError) -> RemoteError:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        message = "no such file" if missing else f"{error.strerror or error}"
        return RemoteError(message, subject=f"{self.url}/{key}", reason="missing" if missing else "denied")

    def _refuse(self, key: str) -> NoReturn:
        raise RemoteError("this store is read only", subject=f"{self.url}/{key}", reason="denied")
