"""Which settings determine the order of an epoch, and what are their defaults?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mx8shards.errors import SettingError, one_of, shown, whole_number
from mx8shards.order.mosaicml.stream_weights import StreamShares
from mx8shards.order.mosaicml.training_world import MOST_PROCESSES
from mx8shards.order.permutation import Ids

SamplingMethod = Literal["balanced", "fixed"]
BatchingMethod = Literal["random", "stratified", "per_stream", "device_per_stream"]

DEFAULT_SEED = 9176
_LEAST_BLOCK = 1 << 18


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class EpochSettings:
    """All that the order of an epoch depends on, besides the world and the epoch. The names are those of Streaming.

    Args:
        samples_per_shard: The number of samples of each shard, over all streams in order.
        shards_per_stream: The number of shards of each stream.
        shares: What each stream contributes (`resolve_streams`).
        batch_size: The number of samples in a batch of one rank.
        num_canonical_nodes: The number of parts into which the samples are divided before they are shuffled, see
            `default_canonical_nodes`. A state has it: keep it when resuming.
        sampling_method: Which samples a stream contributes if these are not all: other ones in each epoch ("balanced"),
            or always the same ("fixed").
        sampling_granularity: How many samples at a time are taken from a shard of such a stream.
        partition_algo: How samples are divided among nodes, ranks and workers: "relaxed" or "orig".
        shuffle: Whether samples are shuffled.
        shuffle_algo: "py1e", "py1br", "py1s", "py2s" or "naive". Not looked at without `shuffle`.
        shuffle_seed: The seed of everything that is random.
        shuffle_block_size: Over how many samples py1e and py1br shuffle, see `default_block_size`.
        batching_method: Which streams share a batch: all ("random", "stratified"), or one per batch of all ranks
            ("per_stream") or of one rank ("device_per_stream").
    """

    samples_per_shard: Ids
    shards_per_stream: Ids
    shares: StreamShares
    batch_size: int
    num_canonical_nodes: int
    sampling_method: SamplingMethod = "balanced"
    sampling_granularity: int = 1
    partition_algo: str = "relaxed"
    shuffle: bool = False
    shuffle_algo: str = "py1e"
    shuffle_seed: int = DEFAULT_SEED
    shuffle_block_size: int = _LEAST_BLOCK
    batching_method: BatchingMethod = "random"

    def __post_init__(self) -> None:
        for name, least, most in (
            ("batch_size", 1, 1 << 40),
            ("num_canonical_nodes", 1, MOST_PROCESSES),
            ("sampling_granularity", 1, 1 << 62),
            ("shuffle_seed", 0, 1 << 128),
            ("shuffle_block_size", 0, 1 << 62),
        ):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least, most))
        one_of("sampling_method", self.sampling_method, ("balanced", "fixed"))
        one_of("batching_method", self.batching_method, ("random", "stratified", "per_stream", "device_per_stream"))
        for name in ("samples_per_shard", "shards_per_stream"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.int64))
        self._check_streams()

    def _check_streams(self) -> None:
        shards, streams = len(self.samples_per_shard), len(self.shares.choose)
        if self.streams != streams or int(self.shards_per_stream.sum()) != shards:
            expected = f"{shards} shards of {streams} streams, as in samples_per_shard and shares"
            raise SettingError(
                subject="shards_per_stream", expected=expected, found=shown(self.shards_per_stream.tolist())
            )
        ends = np.cumsum(np.append(0, self.samples_per_shard))[np.cumsum(np.append(0, self.shards_per_stream))]
        if self.samples_per_shard.min(initial=0) < 0 or (np.diff(ends) < 1).any():
            raise SettingError(subject="samples_per_shard", expected="at least one sample per stream", found="none")

    @property
    def streams(self) -> int:
        """The number of streams."""
        return len(self.shards_per_stream)

    @property
    def samples(self) -> int:
        """The number of samples of all streams: ids are below it."""
        return int(self.samples_per_shard.sum())

    def seed_of(self, epoch: int) -> int:
        """The seed of an epoch's number of samples per shard, and of the order in which streams follow each other."""
        by_epoch = self.shuffle and self.sampling_method == "balanced"
        return self.shuffle_seed + epoch if by_epoch else self.shuffle_seed


def default_canonical_nodes(shuffle_algo: str, nodes: int) -> int:
    """The number of canonical nodes if none is given.

    Args:
        shuffle_algo: The `shuffle_algo`.
        nodes: The number of nodes of the (replicated) world.
    """
    return 64 * nodes if shuffle_algo in ("py1s", "py2s") else nodes


def default_block_size(num_canonical_nodes: int) -> int:
    """The shuffle block size if none is given.

    Args:
        num_canonical_nodes: The number of canonical nodes.
    """
    return max(4_000_000 // num_canonical_nodes, _LEAST_BLOCK)
