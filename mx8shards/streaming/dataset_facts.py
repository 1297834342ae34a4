"""What do StreamingDataset and LocalDataset tell about their samples, shards and streams?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from mx8shards.streaming.all_samples import AllSamples
from mx8shards.streaming.iteration import read_samples
from mx8shards.streaming.reading_ahead import read_ahead
from mx8shards.streaming.sample_array import Array
from mx8shards.streaming.sample_locations import Spanner
from mx8shards.streaming.shard_files import ShardReaders


class SampleFacts(Array):
    """A sequence of the samples in `_samples`."""

    _samples: AllSamples
    _plain_get_item: Callable[..., Any]  # the class's own `get_item`, which reads `_samples`

    def __getitems__(self, at: Sequence[Any]) -> list[Any]:
        """The items of a batch, as DataLoaders and `Subset` ask for them: many at once, if these are plain samples."""
        if self._is_overridden or not all(isinstance(each, int | np.integer) for each in at):
            return [self[each] for each in at]
        ids = np.array(at, np.int64)
        ids[ids < 0] += len(self._samples)
        if ids.min(initial=0) < 0 or ids.max(initial=-1) >= len(self._samples):
            return [self[each] for each in at]  # one of them raises the error
        read_ahead(self._samples, ids)
        return list(read_samples(self._samples, ids, None))

    @property
    def _is_overridden(self) -> bool:
        """Whether a subclass, or a program, changes what a sample is."""
        kind = type(self)
        own = kind.__getitem__ is not Array.__getitem__ or kind.get_item is not kind._plain_get_item
        return own or "get_item" in vars(self)

    @property
    def size(self) -> int:
        """The number of samples, of all streams."""
        return len(self._samples)

    @property
    def num_samples(self) -> int:
        """The number of samples, of all streams."""
        return len(self._samples)

    @property
    def shards(self) -> ShardReaders:
        """The facts of each shard, over all streams."""
        return self._samples.readers

    @cached_property
    def spanner(self) -> Spanner:
        """Maps the number of a sample to its shard, and to its row in it."""
        return Spanner(self._samples.samples_per_shard)


class StreamFacts(SampleFacts):
    """The numbers of samples and shards of each stream, as arrays."""

    @property
    def index(self) -> Any:
        """The number of samples as `index.total_samples`, as old versions of Streaming had it."""
        return SimpleNamespace(total_samples=len(self._samples))

    @property
    def num_shards(self) -> int:
        """The number of shards of all streams."""
        return len(self._samples.samples_per_shard)

    @property
    def samples_per_shard(self) -> Any:
        """The number of samples of each shard."""
        return self._samples.samples_per_shard

    @property
    def sample_offset_per_shard(self) -> Any:
        """The number of the first sample of each shard."""
        return self._samples.starts[:-1]

    @property
    def samples_per_stream(self) -> Any:
        """The number of samples of each stream."""
        return self._samples.samples_per_stream

    @property
    def sample_offset_per_stream(self) -> Any:
        """The number of the first sample of each stream."""
        return np.cumsum(self.samples_per_stream) - self.samples_per_stream

    @property
    def shards_per_stream(self) -> Any:
        """The number of shards of each stream."""
        return self._samples.shards_per_stream

    @property
    def shard_offset_per_stream(self) -> Any:
        """The number of the first shard of each stream."""
        return np.cumsum(self.shards_per_stream) - self.shards_per_stream

    @property
    def stream_per_shard(self) -> Any:
        """The stream of each shard."""
        return np.repeat(np.arange(len(self.shards_per_stream)), self.shards_per_stream)

    # copies of shards -------------------------------------------------------------------------------------------

    @property
    def cache_usage(self) -> int:
        """The bytes of the indices and of the shards that are in the local directories."""
        return self._samples.local_bytes

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """Fetch and decompress a shard, unless it is here.

        Args:
            shard_id: The number of the shard, over all streams.
            blocking: Ignored: the shard is here afterwards.
        """
        self._samples.provide(shard_id)

    def evict_shard(self, shard_id: int) -> None:
        """Remove the local copy of a shard; an error if its stream has no remote to fetch it from again.

        Args:
            shard_id: The number of the shard, over all streams.
        """
        self._samples.evict(shard_id)

    def evict_coldest_shard(self) -> None:
        """Remove the local copy of the shard that was read least recently, of streams with a remote."""
        self._samples.evict_coldest()
