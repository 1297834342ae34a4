"""Which streams share a batch, and in which order do their batches follow each other? (`batching_method`)

Each stream is partitioned by itself. A *layout* then says, for each position of the epoch, which stream it belongs to,
and which position of that stream's partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mx8shards.errors import SettingError
from mx8shards.order.mosaicml.partitions import Partition
from mx8shards.order.mosaicml.stream_weights import Floats
from mx8shards.order.mosaicml.training_world import World
from mx8shards.order.orders import PADDING
from mx8shards.order.permutation import Ids


class Layout(Protocol):
    """Where the samples of global batches come from."""

    @property
    def batches(self) -> int:
        """The number of global batches."""

    @property
    def filled(self) -> int:
        """The number of those that have samples: the first ones."""

    def locate(self, batch: Ids, sample: Ids) -> tuple[Ids, Ids]:
        """The stream of each sample of these global batches, or PADDING, and the position in its partition."""


@dataclass(frozen=True, eq=False, slots=True)
class StratifiedLayout:
    """Every global batch has a fixed number of samples of each stream, one stream after the other."""

    batches: int
    portions: Ids

    @property
    def filled(self) -> int:
        """All global batches have samples."""
        return self.batches

    def locate(self, batch: Ids, sample: Ids) -> tuple[Ids, Ids]:
        """The stream and its position."""
        ends = np.cumsum(self.portions)
        stream = np.searchsorted(ends, sample, side="right")
        portion = self.portions[stream]
        return stream, batch * portion + sample - (ends[stream] - portion)


@dataclass(frozen=True, eq=False, slots=True)
class PerStreamLayout:
    """Every global batch, of `size` samples, is the next one of a stream: `streams` has the stream of each batch."""

    size: int
    streams: Ids
    numbers: Ids

    @property
    def batches(self) -> int:
        """The number of global batches."""
        return len(self.streams)

    @property
    def filled(self) -> int:
        """All global batches have samples."""
        return self.batches

    def locate(self, batch: Ids, sample: Ids) -> tuple[Ids, Ids]:
        """The stream and its position."""
        return self.streams[batch], self.numbers[batch] * self.size + sample


@dataclass(frozen=True, eq=False, slots=True)
class PerDeviceLayout:
    """Every batch of a rank is the next one of a stream, from the canonical nodes of a node.

    The batches of the nodes are interleaved, and each rank takes the next of them. So a node reads batches of other
    nodes too: that is Streaming's order. `streams[node]` has the stream of each batch of that node.
    """

    world: World
    batch_size: int
    canonical_nodes: int
    streams: Ids
    numbers: Ids

    @property
    def batches(self) -> int:
        """The number of global batches: those of a node are filled up to a multiple of all ranks, by one at least."""
        ranks, per_node = self.world.ranks, int(self.streams.shape[1])
        return (per_node + ranks - per_node % ranks) // self.world.ranks_per_node

    @property
    def filled(self) -> int:
        """The number of global batches that have samples."""
        return -(-int(self.streams.shape[1]) // self.world.ranks_per_node)

    def locate(self, batch: Ids, sample: Ids) -> tuple[Ids, Ids]:
        """The stream and its position; PADDING behind the last batch of a node."""
        device, sample = np.divmod(sample, self.batch_size)
        number, node = np.divmod(batch * self.world.ranks + device, self.world.nodes)
        real = number < self.streams.shape[1]
        number = np.where(real, number, 0)
        stream = np.where(real, self.streams[node, number], PADDING)
        return stream, self._position(node, self.numbers[node, number] * self.batch_size + sample)

    def _position(self, node: Ids, index: Ids) -> Ids:
        """The position in a stream's partition, which has a node per canonical node, and batches of one sample."""
        ranks, canonical = self.world.ranks_per_node, self.canonical_nodes // self.world.nodes
        within, rank = np.divmod(index, ranks)
        number, mine = np.divmod(within, canonical)
        position: Ids = (number * self.canonical_nodes + node * canonical + mine) * ranks + rank
        return position


def stratified(partitions: Sequence[Partition], proportions: Floats, size: int) -> StratifiedLayout:
    """The layout in which global batches of `size` samples have samples of all streams."""
    portions = (proportions * size).astype(np.int64)
    missing = size - int(portions.sum())
    if missing:  # for those streams that rounding down took most from
        portions[np.flip(np.argsort(size * proportions - portions))[:missing]] += 1
    for stream in np.flatnonzero(portions <= 0):
        expected = "a global batch that has samples of every stream"
        raise SettingError(subject=f"stream {stream}", expected=expected, found=f"{portions[stream]} of {size} samples")
    counts = [_real(found) // portion for found, portion in zip(partitions, portions.tolist(), strict=True)]
    return StratifiedLayout(min(counts), portions)


def per_stream(partitions: Sequence[Partition], size: int, seed: int) -> PerStreamLayout:
    """The layout in which each global batch of `size` samples has samples of one stream."""
    counts = [_checked(stream, found.per_rank // found.batch_size, size) for stream, found in enumerate(partitions)]
    streams, numbers = _shuffled_streams(counts, np.random.default_rng(seed))
    return PerStreamLayout(size, streams, numbers)


def per_device(partitions: Sequence[Partition], world: World, batch_size: int, seed: int) -> PerDeviceLayout:
    """The layout in which each batch of a rank has samples of one stream."""
    canonical_nodes = partitions[0].world.nodes
    counts = [
        _checked(stream, _real(found) // world.nodes // batch_size, batch_size)
        for stream, found in enumerate(partitions)
    ]
    rng = np.random.default_rng(seed)
    drawn = [_shuffled_streams(counts, rng) for _ in range(world.nodes)]
    streams, numbers = (np.stack(each) for each in zip(*drawn, strict=True))
    return PerDeviceLayout(world, batch_size, canonical_nodes, streams, numbers)


def _real(found: Partition) -> int:
    """The number of positions of a partition before its padding, if its batches have one sample."""
    return found.per_rank * found.world.ranks


def _checked(stream: int, batches: int, size: int) -> int:
    if not batches:
        expected = f"enough samples for a batch of {size}"
        raise SettingError(subject=f"stream {stream}", expected=expected, found="too few")
    return batches


def _shuffled_streams(counts: list[int], rng: np.random.Generator) -> tuple[Ids, Ids]:
    """The stream of each batch, shuffled, and its number among the batches of that stream."""
    streams = np.repeat(np.arange(len(counts)), counts)
    numbers = np.empty(len(streams), np.int64)
    rng.shuffle(streams)
    numbers[np.argsort(streams, kind="stable")] = np.concatenate([np.arange(count) for count in counts])
    return streams, numbers
