"""How is an object written to a file, piece by piece, in several attempts?"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from mx8shards.disk import operations
from mx8shards.errors import RemoteError
from mx8shards.format.hashing import hasher


class PartialFile:
    """A new file that is filled from its start, or in parts. A `with` block that ends by an exception removes it.

    It is locked: after Ctrl-C the block may end while another thread still writes.

    Args:
        path: The file.
        algorithm: With which hash the bytes are hashed that come in order; "" for none. To read them again, and to
            hash them then, takes more CPU time.

    Attributes:
        done: The number of bytes that it has from its start.
    """

    def __init__(self, path: Path, algorithm: str = "") -> None:
        self._path, self._algorithm = path, algorithm
        self._hash = hasher(algorithm) if algorithm else None
        self._lock = threading.Lock()
        self._descriptor = operations.create(path)
        self.done = 0

    @property
    def hash_hex(self) -> str:
        """The hash of the bytes from its start; "" if there is no algorithm."""
        return self._hash.hexdigest() if self._hash else ""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        with self._lock:
            self._require_open()
            operations.write(self._descriptor, data, self._path)
            if self._hash:
                self._hash.update(data)
            self.done += len(data)

    def write_at(self, data: bytes | memoryview, begin: int) -> None:
        """Write bytes at this offset, for a file whose parts come in any order."""
        with self._lock:
            self._require_open()
            operations.overwrite(self._descriptor, data, begin, self._path)

    def restart(self) -> None:
        """Remove all bytes."""
        with self._lock:
            self._require_open()
            operations.truncate(self._descriptor, 0, self._path)
            self.done = os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._hash = hasher(self._algorithm) if self._algorithm else None

    def _require_open(self) -> None:
        if self._descriptor < 0:
            raise RemoteError("the operation was interrupted", subject=str(self._path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            with operations.disk_errors("close", self._path):
                os.close(descriptor)
            if kind is not None:
                operations.unlink(self._path)
