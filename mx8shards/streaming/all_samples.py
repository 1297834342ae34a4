"""The samples of all streams of a dataset, by their number over all streams: AllSamples."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SettingError
from mx8shards.format.columns import Columns
from mx8shards.shards.providers import Eviction
from mx8shards.shards.shard import Shard
from mx8shards.streaming.mds_run import RunReader
from mx8shards.streaming.mds_samples import MdsSamples
from mx8shards.streaming.open_shards import OpenShards
from mx8shards.streaming.shard_files import Row, ShardReader, ShardReaders

if TYPE_CHECKING:
    from mx8shards.streaming.stream_opening import Samples

Ids = npt.NDArray[np.int64]


class AllSamples:
    """Reads samples. Shards and samples are numbered over all streams, in order.

    Args:
        streams: The samples of each stream.
    """

    def __init__(self, streams: Sequence[Samples]) -> None:
        self.streams = tuple(streams)
        counts = [stream.samples_per_shard for stream in streams]
        self.samples_per_shard: Ids = np.concatenate([np.zeros(0, np.int64), *counts])
        self.shards_per_stream = np.array([len(each) for each in counts], np.int64)
        self.samples_per_stream = np.array([each.sum() for each in counts], np.int64)
        self.starts: Ids = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.samples_per_shard)])
        self._first_shards = (np.cumsum(self.shards_per_stream) - self.shards_per_stream).tolist()
        self._forget()

    def _forget(self) -> None:
        self._starts = self.starts.data  # a memoryview accesses single elements faster than the array
        self._readers: dict[Columns, RunReader] = {}
        self.opened: list[Row | None] = [None] * len(self.samples_per_shard)
        self._limited_open = OpenShards(self.limited, len(self.samples_per_shard))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, sample_id: int) -> dict[str, Any]:
        if not 0 <= sample_id < self._starts[-1]:
            raise IndexError(f"sample {sample_id} of {len(self)}")
        shard = bisect_right(self._starts, sample_id) - 1
        return (self.opened[shard] or self.open(shard))(sample_id - self._starts[shard])

    def read(self, shards: Ids, rows: Ids) -> Iterator[dict[str, Any]] | None:
        """These samples, read together; None unless all shards are here, of MDS, have equal columns, and may be open.

        An error does not name the damaged sample, but those before it have been returned.
        """
        by_shard = np.argsort(shards, kind="stable")
        firsts = np.flatnonzero(np.diff(shards[by_shard], prepend=-1))
        columns, parts = None, []
        if not self._limited_open.fit(shards[by_shard[firsts]]):
            return None
        for at in np.split(by_shard, firsts[1:]):
            i = int(shards[at[0]])
            stream, number = self._of_stream(i)
            if not isinstance(stream, MdsSamples) or stream.awaits(number):
                return None
            found, shard = stream.open_for_runs(number)
            self._close(self._limited_open.opened(i))
            columns = columns or found
            if found != columns:
                return None
            parts.append((shard, at, rows[at]))
        if columns is None:
            return None
        reader = self._readers.get(columns)
        if reader is None:
            reader = self._readers[columns] = RunReader(columns)
        return reader(parts, len(rows))

    def place_of(self, sample_id: int) -> tuple[int, int]:
        """The shard of a sample, and its row there."""
        shard = bisect_right(self._starts, sample_id) - 1
        return shard, sample_id - self._starts[shard]

    def lasting(self, shard: int) -> Shard | None:
        """This shard, open, if it is of MDS, is here and stays here."""
        stream, number = self._of_stream(shard)
        if not isinstance(stream, MdsSamples) or self._limited_open.may_leave(shard) or stream.awaits(number):
            return None
        return stream.open_for_runs(number)[1]

    @property
    def mean_bytes(self) -> int:
        """The bytes of a sample of MDS, on average; at least 1."""
        streams = [stream for stream in self.streams if isinstance(stream, MdsSamples)]
        count = sum(int(stream.samples_per_shard.sum()) for stream in streams)
        return max(1, sum(stream.raw_bytes for stream in streams) // max(1, count))

    def locate(self, sample_ids: Ids) -> Ids:
        """The shard of each of these samples."""
        return np.searchsorted(self.starts, sample_ids, side="right") - 1

    def open(self, shard: int) -> Row:
        """A function from rows of this shard to samples. Fetches or decompresses the shard if necessary."""
        found = self.opened[shard]
        if found is None:
            stream, number = self._of_stream(shard)
            found = self.opened[shard] = stream.rows(number)
            self._close(self._limited_open.opened(shard))
        return found

    def _of_stream(self, shard: int) -> tuple[Samples, int]:
        which = bisect_right(self._first_shards, shard) - 1
        return self.streams[which], shard - self._first_shards[which]

    @property
    def all_here(self) -> bool:
        """Whether no shard has to be fetched or decompressed."""
        return all(stream.all_here for stream in self.streams)

    def awaits(self, shard: int) -> bool:
        """Whether this shard has to be fetched or decompressed."""
        stream, number = self._of_stream(shard)
        return stream.awaits(number)

    def provide(self, shard: int, *, ahead: bool = False) -> None:
        """Fetch or decompress this shard, unless it is here. `ahead`: NoRoomYetError if there is no room for it yet."""
        stream, number = self._of_stream(shard)
        stream.provide(number, ahead=ahead)

    @property
    def limited(self) -> list[tuple[int, Eviction]]:
        """The number of the first shard of each cache that cannot keep all shards, and what decides which stay."""
        pairs = zip(self._first_shards, self.streams, strict=True)
        found = [(begin + first, eviction) for begin, stream in pairs for first, eviction in stream.limited]
        return [(first, eviction) for first, eviction in found if eviction.limit_bytes < eviction.total_bytes]

    def release_limited(self) -> None:
        """Close all shards of caches with a limit."""
        self._close(self._limited_open.all)

    def _close(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self.release(shard)

    def release(self, shard: int) -> None:
        """Close the file of this shard, so that its disk space is free once it is evicted."""
        self._limited_open.closed(shard)
        self.opened[shard] = None
        stream, number = self._of_stream(shard)
        stream.release(number)

    @property
    def local_bytes(self) -> int:
        """The bytes of the indices and of the shards that are in the local directories."""
        return sum(stream.local_bytes for stream in self.streams)

    def evict(self, shard: int) -> None:
        """Remove the local copy of this shard; SettingError if it is no copy."""
        stream, number = self._of_stream(shard)
        stream.evict(number)
        self.release(shard)

    def evict_coldest(self) -> None:
        """Remove the local copy that was read least recently."""
        found = [pair for i in range(len(self.opened)) if (pair := (self._last_read(i), i))[0] is not None]
        if not found:
            raise SettingError(subject="evict_coldest_shard", expected="local copies of shards", found="none")
        self.evict(min(found)[1])

    def _last_read(self, shard: int) -> float | None:
        """When the local copy of this shard was read last; None if there is none."""
        stream, number = self._of_stream(shard)
        return stream.last_read(number)

    @property
    def readers(self) -> ShardReaders:
        """The facts of each shard."""
        return ShardReaders(len(self.samples_per_shard), self._reader)

    def _reader(self, shard: int) -> ShardReader:
        stream, number = self._of_stream(shard)
        return stream.reader(number)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, **dict.fromkeys(("opened", "_readers", "_starts", "_limited_open"))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
