"""Which samples does each worker of each rank read in an epoch, and in which batches?

All functions are pure: equal arguments give equal ids in every process. An id is the position of a sample among those
of all streams in order; -1 is padding, which has no sample.

The batches of an epoch are in *training order*: the first batch of worker 0 of every rank, that of worker 1, and so
on, then their second batches. A position is an index into that sequence, which runs over (batch, worker, node, rank,
sample).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mx8shards.errors import SettingError, whole_number
from mx8shards.order.mosaicml.epoch_samples import Samples, epoch_samples
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.partitions import Partition, partition
from mx8shards.order.mosaicml.stream_batches import Layout, per_device, per_stream, stratified
from mx8shards.order.mosaicml.training_world import World
from mx8shards.order.orders import PADDING
from mx8shards.order.permutation import Ids

_RUN = 1 << 18  # positions that are computed at a time


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """Samples that are shuffled and partitioned together: those of all streams, or of one."""

    division: Partition
    samples: Samples

    def at(self, positions: Ids) -> Ids:
        """The ids at these positions of the partition, or PADDING."""
        rows = self.division.at(positions)
        real = rows != PADDING
        return np.where(real, self.samples.at(np.where(real, rows, 0)), PADDING)


@dataclass(frozen=True, eq=False, slots=True)
class EpochPlan:
    """The samples of one epoch, from where it was resumed. It holds 4 bytes per sample; threads may share it.

    Args:
        world: The world that reads the epoch.
        batch_size: The number of samples in a batch of one rank.
        batches: The number of batches of each rank, over all its workers.
        sources: The samples of each stream, or of all streams together.
        layout: Where the samples of a batch come from; None if all streams are one source.
        first: The number of global batches of the layout that were already read.
    """

    world: World
    batch_size: int
    batches: int
    sources: Sequence[Source]
    layout: Layout | None = None
    first: int = 0

    def __len__(self) -> int:
        return self.batches * self.world.ranks * self.batch_size

    def at(self, positions: Ids) -> Ids:
        """The ids at these positions of the epoch in training order."""
        if self.layout is None:
            return self.sources[0].at(positions)
        batch, sample = np.divmod(positions, self.world.ranks * self.batch_size)
        batch += self.first
        ids = np.full(len(positions), PADDING, np.int64)
        real = np.flatnonzero(batch < self.layout.batches)
        streams, within = self.layout.locate(batch[real], sample[real])
        for stream in np.unique(streams[streams != PADDING]).tolist():
            mine = streams == stream
            ids[real[mine]] = self.sources[stream].at(within[mine])
        return ids

    def rank_batches(self, node: int, rank: int, start: int, stop: int) -> Ids:
        """The ids int64[stop - start, batch_size] of these batches of a rank.

        Worker w of the rank reads the batches w, w + workers_per_rank, and so on.

        Args:
            node: The node.
            rank: The rank within the node.
            start: The first batch.
            stop: The batch after the last one, at most `batches`.
        """
        return self._batches(node, rank, np.arange(start, stop))

    def worker_ids(self, node: int, rank: int, worker: int) -> Ids:
        """The ids int64[batches per worker, batch_size] that one worker reads in the epoch.

        Args:
            node: The node.
            rank: The rank within the node.
            worker: The worker within the rank.
        """
        batches = np.arange(worker, self.batches, self.world.workers_per_rank)
        ids = np.empty((len(batches), self.batch_size), np.int64)
        run = max(_RUN // self.batch_size, 1)
        for start in range(0, len(batches), run):
            ids[start : start + run] = self._batches(node, rank, batches[start : start + run])
        return ids

    def _batches(self, node: int, rank: int, batches: Ids) -> Ids:
        first = ((batches * self.world.nodes + node) * self.world.ranks_per_node + rank) * self.batch_size
        positions = first[:, None] + np.arange(self.batch_size)
        return self.at(positions.ravel()).reshape(positions.shape)


def plan_epoch(
    settings: EpochSettings, world: World, epoch: int, sample_in_epoch: int = 0, *, initial_nodes: int | None = None
) -> EpochPlan:
    """The plan of an epoch; SettingError (a ValueError) where Streaming raises a ValueError.

    Args:
        settings: The settings of the dataset.
        world: The world, replicated if there is a `replication`.
        epoch: The epoch, from 0.
        sample_in_epoch: The number of samples of this epoch that all ranks had read when it was interrupted.
        initial_nodes: The number of nodes that the run was started with, from the state that it resumes from; None if
            it does not resume.
    """
    epoch = whole_number("epoch", epoch, 0)
    sample_in_epoch = whole_number("sample_in_epoch", sample_in_epoch, 0)
    if settings.batching_method == "random":
        return _all_streams(settings, world, epoch, sample_in_epoch, initial_nodes)
    sources = _source_per_stream(settings, world, epoch, initial_nodes)
    size = world.ranks * settings.batch_size
    layout = _layout(settings, world, epoch, [source.division for source in sources])
    first = sample_in_epoch // size
    workers = world.workers_per_rank
    batches = -(-max(layout.batches - first, 0) // workers) * workers
    return EpochPlan(world, settings.batch_size, batches, sources, layout, first)


def epoch_ids(
    settings: EpochSettings, world: World, epoch: int, sample_in_epoch: int = 0, *, initial_nodes: int | None = None
) -> Ids:
    """The ids of the whole world: int64[nodes, ranks_per_node, workers_per_rank, batches per worker, batch_size].

    The arguments are those of `plan_epoch`, whose plan gives the same ids in half the memory, or those of one worker.
    """
    plan = plan_epoch(settings, world, epoch, sample_in_epoch, initial_nodes=initial_nodes)
    shape = (-1, world.workers_per_rank, world.nodes, world.ranks_per_node, settings.batch_size)
    if not plan.batches:
        return np.empty((*shape[2:4], shape[1], 0, shape[4]), np.int64)
    ids = np.empty(len(plan), np.int64)
    for start in range(0, len(ids), _RUN):
        stop = min(start + _RUN, len(ids))
        ids[start:stop] = plan.at(np.arange(start, stop))
    return ids.reshape(shape).transpose(2, 3, 1, 0, 4)


def _all_streams(
    settings: EpochSettings, world: World, epoch: int, sample_in_epoch: int, initial_nodes: int | None
) -> EpochPlan:
    division = partition(
        settings.partition_algo,
        settings.shares.epoch_size,
        settings.num_canonical_nodes,
        world,
        settings.batch_size,
        drop=sample_in_epoch,
        initial_nodes=initial_nodes,
    )
    samples = epoch_samples(settings, epoch, range(settings.streams), settings.shuffle_block_size)
    return EpochPlan(world, settings.batch_size, division.batches, [Source(division, samples)])


def _source_per_stream(settings: EpochSettings, world: World, epoch: int, initial_nodes: int | None) -> list[Source]:
    """The streams by themselves. A stream's part of the epoch is also its part of the shuffle's block."""
    nodes = settings.num_canonical_nodes
    if settings.batching_method == "device_per_stream" and nodes % world.nodes:
        expected = f"a multiple of the number of nodes, {world.nodes}, with device_per_stream"
        raise SettingError(subject="num_canonical_nodes", expected=expected, found=f"{nodes}")
    batch_size = settings.batch_size if settings.batching_method == "per_stream" else 1
    world = {
        "per_stream": world,
        "stratified": replace(world, nodes=1),
        "device_per_stream": replace(world, nodes=nodes),
    }[settings.batching_method]
    sources = []
    for stream, proportion in enumerate(settings.shares.proportion.tolist()):
        block_size = int(settings.shuffle_block_size * proportion)
        if settings.batching_method == "device_per_stream" and settings.shuffle and not block_size:
            expected = f"a part of shuffle_block_size, {settings.shuffle_block_size}"
            raise SettingError(subject=f"stream {stream}", expected=expected, found=f"none ({proportion:.2g} of it)")
        samples = epoch_samples(settings, epoch, range(stream, stream + 1), block_size)
        count = int(settings.shares.choose[stream])
        division = partition(settings.partition_algo, count, nodes, world, batch_size, initial_nodes=initial_nodes)
        sources.append(Source(division, samples))
    return sources


def _layout(settings: EpochSettings, world: World, epoch: int, partitions: Sequence[Partition]) -> Layout:
    size = world.ranks * settings.batch_size
    seed = settings.shuffle_seed + epoch if settings.draws_by_epoch else settings.shuffle_seed
    if settings.batching_method == "stratified":
        return stratified(partitions, settings.shares.proportion, size)
    if settings.batching_method == "per_stream":
        return per_stream(partitions, size, seed)
    return per_device(partitions, world, settings.batch_size, seed)
