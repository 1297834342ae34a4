"""How do the files of JSON, CSV, TSV and XSV shards become local? They are fetched and decompressed: SplitFiles."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from mx8shards.disk import operations, publish
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DatasetNotFoundError, RemoteError
from mx8shards.format import compression as compressions
from mx8shards.format.entries import FileInfo
from mx8shards.remote import fetching
from mx8shards.remote.provider import connect
from mx8shards.remote.store import Store
from mx8shards.shards.local_files import check_hash, check_size


class SplitFiles:
    """The local directory of a stream of such shards. Each file is fetched by one of all processes that need it.

    Args:
        root: The local directory with the index and the shards.
        url: The URL that files are fetched from; None if all are local.
        deadline_s: How many seconds the store may fail to answer.
        keep_zip: Whether compressed files stay after they were decompressed. Without a URL, they always stay.
    """

    def __init__(self, root: Path, url: str | None, deadline_s: float, *, keep_zip: bool) -> None:
        self.root = root
        self._url = url
        self._deadline_s = deadline_s
        self._keep_zip = keep_zip or url is None
        self._store: Store | None = None
        if url is not None:
            fetching.sweep(root)

    @property
    def is_remote(self) -> bool:
        """Whether files are fetched."""
        return self._url is not None

    def is_here(self, info: FileInfo) -> bool:
        """Whether a file of the right size is there."""
        path = self.root / info.basename
        return path.is_file() and path.stat().st_size == info.size_bytes

    def provide(self, raw: FileInfo, packed: FileInfo | None, compression: str | None) -> None:
        """Fetch or decompress a file, unless it is here.

        Args:
            raw: The file without compression.
            packed: The compressed file, if there is one.
            compression: Its compression.
        """
        if self.is_here(raw):
            return
        if self._url is None:
            self._unpack(raw, packed, compression)
            return
        try:
            with fetching.claimed(self.root, raw.basename, self._deadline_s) as claim:
                if not self.is_here(raw):  # another process may have fetched it meanwhile
                    self._fetch(packed or raw, claim)
                    self._unpack(raw, packed, compression)
        except BlockingIOError:
            message = f"another process fetches it and has not finished after {self._deadline_s:.0f} s"
            raise RemoteError(message, subject=f"{self._url}/{raw.basename}") from None

    def place(self, basename: str, data: bytes) -> None:
        """Write a file under another name, and rename it when it is whole, so that nobody sees a part of it."""
        target = self.root / basename
        publish.make_root(self.root)
        publish.make_directories(target.parent, below=self.root)
        draft = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex}")
        try:
            publish.write_quickly(draft, data)
            operations.rename(draft, target)
        finally:
            operations.unlink(draft)

    def _fetch(self, stored: FileInfo, claim: fetching.Claim) -> None:
        if self.is_here(stored):
            return
        self._store = self._store or connect(self._url or "", self._deadline_s)
        fetching.place(fetching.fetch(self._store, stored, claim, stored.basename), stored.basename, claim)

    def _unpack(self, raw: FileInfo, packed: FileInfo | None, compression: str | None) -> None:
        """Verify the stored file, and decompress it if it is compressed."""
        stored = packed or raw
        if not self.is_here(stored):
            message = "the index names this file, but there is no such file"
            raise DatasetNotFoundError(message, subject=f"{self.root / stored.basename}")
        file = ReadFile(self.root / stored.basename)
        check_size(file, stored, stored.basename)
        check_hash(file, stored, stored.basename)
        if packed is None:
            return
        data = file.read(0, packed.size_bytes)
        self.place(raw.basename, b"".join(compressions.decompress(compression or "", data, raw.size_bytes)))
        check_hash(ReadFile(self.root / raw.basename), raw, raw.basename)
        if not self._keep_zip:
            operations.unlink(self.root / packed.basename)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}
