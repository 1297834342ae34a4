"""How are the samples of an MDS stream read? MdsSamples, one of the sources of AllSamples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SettingError
from mx8shards.format.columns import Columns
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.providers import Eviction
from mx8shards.shards.shard import Shard
from mx8shards.shards.snapshots import INDEX
from mx8shards.streaming.mds_rows_of_shard import MdsRows
from mx8shards.streaming.payload_decoders import Decoder, decoders_of, refuse_unsafe
from mx8shards.streaming.shard_files import Row, ShardReader

if TYPE_CHECKING:
    from mx8shards.remote.provider import RemoteFiles


class MdsSamples:
    """The samples of one MDS stream, by shard and row.

    Args:
        shards: Its shards.
        directory: Its local directory, without the split.
        split: The split.
        allow_unsafe_types: Also read columns whose decoding runs code.
    """

    def __init__(self, shards: Shards, directory: str, split: str, *, allow_unsafe_types: bool) -> None:
        self.shards = shards
        self._directory = directory
        self._split = split
        (snapshot,) = shards.snapshots
        self._index = snapshot.index
        self.samples_per_shard: npt.NDArray[np.int64] = self._index.samples
        self._decoders: dict[int, tuple[Decoder, ...]] = {}  # by the number of the kind
        self._ready: set[int] = set()  # shards that were provided
        for kind in self._index.kinds if not allow_unsafe_types else ():
            refuse_unsafe(kind.columns, str(snapshot.root), "allow_unsafe_types=True accepts that")

    @property
    def root(self) -> Path:
        """The directory with the index."""
        return self.shards.snapshots[0].root

    @property
    def raw_bytes(self) -> int:
        """The bytes of all shards, unpacked."""
        return int(self._index.raw.size_bytes.sum())

    @property
    def largest_bytes(self) -> int:
        """The most bytes that one shard takes in a cache, raw and compressed."""
        sizes = self._index.raw.size_bytes + np.maximum(self._index.zip.size_bytes, 0)
        return int(sizes.max(initial=0))

    @property
    def all_here(self) -> bool:
        """Whether no shard has to be fetched or decompressed."""
        return self.shards.all_here

    def awaits(self, i: int) -> bool:
        """Whether shard `i` has to be fetched or decompressed."""
        return self.shards.awaits(i) is not None

    def provide(self, i: int, *, ahead: bool = False) -> None:
        """Fetch or decompress shard `i`, unless it is here. `ahead`: NoRoomYetError if there is no room for it yet."""
        self.shards.provide(i, ahead=ahead)

    @property
    def limited(self) -> list[tuple[int, Eviction]]:
        """The cache, if it has a limit, after the number of its first shard."""
        return self.shards.limited

    def release(self, i: int) -> None:
        """Close the file of shard `i`."""
        self._ready.discard(i)
        self.shards.release(i)

    @property
    def local_bytes(self) -> int:
        """The bytes of the index and of the shards in the local directory."""
        files = (path for i in range(self._index.shards) for path in self._paths(i))
        return sum(path.stat().st_size for path in (self.root / INDEX, *files) if path.is_file())

    def last_read(self, i: int) -> float | None:
        """When the local copy of shard `i` was read last; None if there is none, or the stream is local."""
        there = [path.stat().st_atime for path in self._paths(i) if path.is_file()]
        return max(there, default=None) if self._mirror_of(i) is not None else None

    def evict(self, i: int) -> None:
        """Remove the local copy of shard `i`; SettingError if it may be the only one."""
        mirror = self._mirror_of(i)
        if mirror is None:
            raise SettingError(
                subject="evict_shard", expected="a shard with a remote", found=f"shard {i} of {self.root}"
            )
        mirror.evict(self._index.entry(i))

    def _mirror_of(self, i: int) -> RemoteFiles | None:
        """What fetches shard `i`; None if it is local."""
        from mx8shards.remote.provider import RemoteFiles  # here, as a worker with local shards is to import little

        provider = self.shards.provider_of(i)
        return provider if isinstance(provider, RemoteFiles) else None

    def _paths(self, i: int) -> list[Path]:
        entry = self._index.entry(i)
        return [self.root / info.basename for info in (entry.raw, entry.zip) if info is not None]

    def open_for_runs(self, i: int) -> tuple[Columns, Shard]:
        """The columns of shard `i`, and the open shard."""
        return self._index.kinds[int(self._index.kind[i])].columns, self._opened(i)

    def _opened(self, i: int) -> Shard:
        """Shard `i`, open. If another thread provides it right now, this waits for that thread."""
        if i not in self._ready:
            self.shards.provide(i)
            self._ready.add(i)
        return self.shards.open_shard(i)

    def rows(self, i: int) -> Row:
        """A function from rows of shard `i` to samples."""
        kind = int(self._index.kind[i])
        if kind not in self._decoders:
            self._decoders[kind] = decoders_of(self._index.kinds[kind].columns)
        return MdsRows(self._opened(i), self._decoders[kind])

    def reader(self, i: int) -> ShardReader:
        """What is known of shard `i`."""
        entry = self._index.entry(i).to_json()
        return ShardReader(self._directory, self._split, entry, lambda: self.rows(i))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoders": {}, "_ready": set()}
