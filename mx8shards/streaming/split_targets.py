"""Where do the files of a JSON, CSV, TSV or XSV dataset go: a local directory, a remote, or both?"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mx8shards.disk import operations, publish
from mx8shards.errors import DatasetExistsError, RemoteError
from mx8shards.remote.store import Store
from mx8shards.shards.links import absolute, is_url
from mx8shards.streaming.stored_files import place_file, store_of
from mx8shards.streaming.writer_targets import target_of


class SplitTarget:
    """The places of a dataset's files.

    Args:
        out: A directory, a URL, or a pair of a local directory and a URL or another directory.
        keep_local: Whether the local directory gets the files, too, if there is a remote place.
        exist_ok: Empty the local directory first. Otherwise it must be empty.
    """

    def __init__(self, out: Any, *, keep_local: bool, exist_ok: bool) -> None:
        found = target_of(out, None, keep_local=keep_local, exist_ok=exist_ok)
        self.remote = found.remote
        self._store: Store | None = None
        if found.remote is not None and is_url(found.remote):
            self._store = store_of(found.remote)
        local = absolute(found.local) if found.local is not None and (keep_local or found.remote is None) else None
        places = [] if local is None else [local]
        if found.remote is not None and self._store is None:
            places.append(absolute(found.remote))
        self._directories = places
        self._put: list[str] = []
        found.empty()
        if local is not None and local.is_dir() and any(local.iterdir()):
            raise DatasetExistsError("Directory is not empty", subject=str(local))
        for directory in places:
            publish.make_root(directory)

    @property
    def root(self) -> Path | None:
        """The local directory, or the remote one if that is a path."""
        return self._directories[0] if self._directories else None

    def put(self, name: str, data: bytes) -> None:
        """Write a file to all places."""
        self._put.append(name)
        for directory in self._directories:
            place_file(directory / name, data)
        if self._store is not None:
            self._store.put(name, data)

    def abandon(self) -> None:
        """Remove what was written, so that the next writer finds no part of a dataset, and close the store."""
        for name in self._put:
            for directory in self._directories:
                operations.unlink(directory / name)
        if self._store is not None:
            with suppress(RemoteError):  # the error of the block is the one to see
                self._store.delete(self._put)
        self.close()

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
