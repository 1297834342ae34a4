"""How does a Writer's thread turn encoded samples into a shard file, its hashes and its side-car arrays?"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mx8shards.errors import ShardsError
from mx8shards.format import compression as compressions
from mx8shards.format.columns import Columns
from mx8shards.format.entries import FileInfo, MdsEntry
from mx8shards.format.file_blocks import BLOCK_BYTES, block_digests
from mx8shards.format.hashing import hash_hex, hasher
from mx8shards.format.shard_bytes import ShardKind, head
from mx8shards.shards.publication import Publication
from mx8shards.shards.sidecar_files import column_arrays


@dataclass(frozen=True)
class StoredShard:
    """The index entry and side-car data of a shard whose file is durable."""

    entry: MdsEntry
    digests: bytes  # for the side-car "blocks"
    scalars: list[bytes]  # for the side-car "columns"


class _ReusedBuffer(threading.local):
    """Each thread's buffer for a raw shard. It is reused, because writing to newly allocated memory is slower."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()

    @contextlib.contextmanager
    def joined(self, pieces: Sequence[bytes]) -> Iterator[memoryview]:
        """The concatenated pieces, valid inside the `with` block."""
        size_bytes = sum(map(len, pieces))
        self._buffer.seek(size_bytes - 1)
        self._buffer.write(b"\0")  # allocates the full size at once: growing in steps takes 1.5 times as long
        self._buffer.seek(0)
        self._buffer.writelines(pieces)
        with self._buffer.getbuffer() as whole, whole[:size_bytes] as found:
            yield found


class ShardMaker:
    """Makes shards of one kind. All methods are thread-safe.

    `block_bytes` is the size of the blocks of which digests are made. It is set before the first shard.
    """

    def __init__(self, kind: ShardKind, columns: Columns, *, match_streaming: bool) -> None:
        self.kind = kind
        self.config = kind.config_bytes()
        self._columns = columns
        self._match_streaming = match_streaming
        self._memory = _ReusedBuffer()
        self.block_bytes = BLOCK_BYTES

    def import_packages(self) -> None:
        """Import the packages for hashing and compression, before threads start; MissingPackageError without one."""
        for name in self.kind.hashes:
            hasher(name)
        if self.kind.compression is not None:
            compressions.require_package(self.kind.compression)

    def store(self, publication: Publication, basename: str, pieces: list[bytes], sizes: list[int]) -> StoredShard:
        """Store a shard of these samples, each a size header and one payload per column. Empties `pieces`."""
        if len(pieces) != len(sizes) * (1 + len(self._columns.names)):  # Ctrl-C between two statements of `write`
            raise ShardsError("write() was interrupted in the middle of a sample", subject=basename)
        scalars = column_arrays(self._columns, pieces)
        with self._memory.joined([head(self.config, sizes), *pieces]) as raw:
            pieces.clear()
            entry, data = self._compressed(basename, raw, len(sizes))
            publication.put_shard(entry.stored.basename, [data])
            return StoredShard(entry, block_digests(data, self.block_bytes), scalars)

    def _compressed(self, basename: str, raw: memoryview, samples: int) -> tuple[MdsEntry, bytes | memoryview]:
        info = self._info(basename, raw)
        if self.kind.compression is None:
            return MdsEntry(self.kind, samples, info, None), raw
        data = compressions.compress(self.kind.compression, raw, match_streaming=self._match_streaming)
        suffix = compressions.extension(self.kind.compression)
        return MdsEntry(self.kind, samples, info, self._info(f"{basename}.{suffix}", data)), data

    def _info(self, basename: str, data: bytes | memoryview) -> FileInfo:
        names = sorted({*self.kind.hashes, "blake3"})
        return FileInfo(basename, len(data), {name: hash_hex(name, data) for name in names})
