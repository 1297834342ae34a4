"""A provider whose compressed shards are decompressed by a method that a subclass of Stream overrides."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from mx8shards.disk import operations
from mx8shards.format.entries import Entry
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.remote.provider import RemoteFiles
from mx8shards.shards.local_files import existing_raw_file, shard_path
from mx8shards.shards.providers import Cause, Eviction, Fetches, Provider
from mx8shards.shards.snapshots import Snapshot
from mx8shards.streaming.shard_files import FileInfo

if TYPE_CHECKING:
    from mx8shards.streaming.stream import Stream


class OwnDecompression:
    """Provides compressed files as another provider does, and lets the stream decompress them beside those.

    Args:
        inner: The provider of the compressed files.
        snapshot: The snapshot.
        stream: The stream whose `_decompress_shard_part` is overridden.
    """

    def __init__(self, inner: Provider, snapshot: Snapshot, stream: Stream) -> None:
        self._inner = inner
        self._snapshot = snapshot
        self._stream = stream

    @property
    def all_here(self) -> bool:
        """Whether no shard is compressed, or has to be fetched."""
        return self._inner.all_here

    @property
    def parallel(self) -> int | None:
        """As the provider of the compressed files."""
        return self._inner.parallel

    @property
    def fetched(self) -> Fetches:
        """What was fetched."""
        return self._inner.fetched

    @property
    def eviction(self) -> Eviction | None:
        """None: what the stream makes is not counted, so nothing is evicted for it."""
        return None

    def is_copy(self, entry: Entry) -> bool:
        """As the provider of the compressed files."""
        return self._inner.is_copy(entry)

    def awaits(self, entry: Entry) -> Cause | None:
        """Why the raw file is not there."""
        if entry.zip is not None and existing_raw_file(self._snapshot, entry) is not None:
            return None
        return self._inner.awaits(entry) or ("unpack" if entry.zip is not None else None)

    def provide(self, entry: Entry, *, ahead: bool = False) -> Path:
        """The raw file, decompressed by the stream under another name, and renamed when it is whole."""
        if entry.zip is None:
            return self._inner.provide(entry, ahead=ahead)
        beside = existing_raw_file(self._snapshot, entry)
        if beside is not None:
            return beside
        stored = shard_path(self._snapshot, entry.zip)
        if isinstance(self._inner, RemoteFiles):
            found = self._inner.provide_stored(entry)
            if found.name == Path(entry.raw.basename).name:
                return found
        target = self._snapshot.root / entry.raw.basename
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        info = FileInfo(entry.zip.basename, entry.zip.size_bytes, dict(entry.zip.hashes))
        try:
            self._stream._decompress_shard_part(info, str(stored), str(draft), entry.kind.compression)
            operations.rename(draft, target)
        finally:
            operations.unlink(draft)
        if stored.exists() and not self._stream.safe_keep_zip:
            operations.unlink(stored)
        return target

    def provide_sidecar(self, sidecar: Sidecar) -> None:
        """As the provider of the compressed files."""
        self._inner.provide_sidecar(sidecar)

    def close(self) -> None:
        """Close the provider of the compressed files."""
        self._inner.close()
