"""Which rows of which stream does each worker of each rank read in an epoch? Arithmetic only: no sample is looked up.

The batches of an epoch are in *training order*: the first batch of worker 0 of every rank, that of worker 1, and so
on, then their second batches. A position is an index into that sequence, which runs over (batch, worker, node, rank,
sample).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mx8shards.errors import SettingError
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.id_chunks import AnyIds, id_dtype
from mx8shards.order.mosaicml.partitions import Partition, partition
from mx8shards.order.mosaicml.stream_batches import Layout, per_device, per_stream, stratified
from mx8shards.order.mosaicml.training_world import World
from mx8shards.order.orders import PADDING
from mx8shards.order.permutation import Ids

RUN = 1 << 18  # positions that are computed at a time


@dataclass(frozen=True, eq=False, slots=True)
class EpochDivision:
    """An epoch, from where it was resumed, divided among the processes of a world.

    Args:
        world: The world that reads the epoch.
        batch_size: The number of samples in a batch of one rank.
        partitions: Those of each stream, or one of all streams together.
        layout: Which stream the samples of a batch belong to; None if all streams have one partition.
        first: The number of global batches of the layout that were already read.
    """

    world: World
    batch_size: int
    partitions: Sequence[Partition]
    layout: Layout | None = None
    first: int = 0

    @property
    def batches(self) -> int:
        """The number of batches of each rank, over all its workers: equally many of each worker."""
        if self.layout is None:
            return self.partitions[0].batches
        workers = self.world.workers_per_rank
        return -(-max(self.layout.batches - self.first, 0) // workers) * workers

    @property
    def filled(self) -> int:
        """The number of global batches that have samples; only padding follows them."""
        if self.layout is None:
            return self.partitions[0].filled
        return max(self.layout.filled - self.first, 0)

    @property
    def global_batch(self) -> int:
        """The number of samples in the batches of all ranks."""
        return self.batch_size * self.world.ranks

    def __len__(self) -> int:
        return self.batches * self.global_batch

    def rows(self, positions: Ids) -> Iterator[tuple[int, Ids, Ids]]:
        """For each partition that these positions use: its index, which of the positions use it, and their rows.

        Positions of padding are left out.
        """
        if self.layout is None:
            yield self._rows(0, np.arange(len(positions)), positions)
            return
        batch, sample = np.divmod(positions, self.global_batch)
        there = np.flatnonzero(batch + self.first < self.layout.batches)
        streams, within = self.layout.locate(batch[there] + self.first, sample[there])
        for stream in np.unique(streams[streams != PADDING]).tolist():
            mine = streams == stream
            yield self._rows(stream, there[mine], within[mine])

    def positions(self, node: int, rank: int, batches: range) -> Ids:
        """The positions [batches, batch_size] of these batches of a rank."""
        first = (
            np.arange(batches.start, batches.stop, batches.step) * self.global_batch
            + (node * self.world.ranks_per_node + rank) * self.batch_size
        )
        return first[:, None] + np.arange(self.batch_size)

    def batches_of(self, worker: int | None) -> range:
        """Those batches of a rank that this worker reads, or all of them."""
        first, step = (0, 1) if worker is None else (worker, self.world.workers_per_rank)
        return range(first, self.batches, step)

    def rows_of(self, node: int, rank: int, worker: int | None) -> list[AnyIds]:
        """For each partition, the rows that a rank reads, or one worker of it, in ascending order."""
        found: list[list[AnyIds]] = [[np.empty(0, id_dtype(each.canonical.count))] for each in self.partitions]
        batches = self.batches_of(worker)
        run = max(RUN // self.batch_size, 1)
        for start in range(0, len(batches), run):
            for index, _, rows in self.rows(self.positions(node, rank, batches[start : start + run]).ravel()):
                found[index].append(rows.astype(found[index][0].dtype))
        return [_ascending(parts) for parts in found]

    def _rows(self, index: int, where: Ids, positions: Ids) -> tuple[int, Ids, Ids]:
        rows = self.partitions[index].at(positions)
        real = rows != PADDING
        return index, where[real], rows[real]


def _ascending(parts: list[AnyIds]) -> AnyIds:
    rows: AnyIds = np.concatenate(parts)
    rows.sort()
    return rows


def divide_epoch(
    settings: EpochSettings, world: World, epoch: int, sample_in_epoch: int, initial_nodes: int | None
) -> EpochDivision:
    """The division of an epoch; SettingError if the numbers do not fit each other. See `plan_epoch`."""
    if settings.batching_method == "random":
        count = settings.shares.epoch_size
        whole = _partition(settings, count, world, settings.batch_size, initial_nodes, drop=sample_in_epoch)
        return EpochDivision(world, settings.batch_size, [whole])
    partitions = _partition_per_stream(settings, world, initial_nodes)
    layout = _layout(settings, world, epoch, partitions)
    first = sample_in_epoch // (settings.batch_size * world.ranks)
    return EpochDivision(world, settings.batch_size, partitions, layout, first)


def _partition(
    settings: EpochSettings, count: int, world: World, batch_size: int, initial_nodes: int | None, drop: int = 0
) -> Partition:
    nodes = settings.num_canonical_nodes
    return partition(settings.partition_algo, count, nodes, world, batch_size, drop=drop, initial_nodes=initial_nodes)


def _partition_per_stream(settings: EpochSettings, world: World, initial_nodes: int | None) -> list[Partition]:
    """The partition of each stream. Its batches have one sample, unless global batches have one stream."""
    batch_size = 1
    if settings.batching_method == "per_stream":
        batch_size = settings.batch_size
    elif settings.batching_method == "stratified":
        world = replace(world, nodes=1)
    else:
        if settings.num_canonical_nodes % world.nodes:
            expected = f"a multiple of the number of nodes, {world.nodes}, with device_per_stream"
            found = f"{settings.num_canonical_nodes}"
            raise SettingError(subject="num_canonical_nodes", expected=expected, found=found)
        world = replace(world, nodes=settings.num_canonical_nodes)
    return [_partition(settings, count, world, batch_size, initial_nodes) for count in settings.shares.choose.tolist()]


def _layout(settings: EpochSettings, world: World, epoch: int, partitions: Sequence[Partition]) -> Layout:
    size = world.ranks * settings.batch_size
    if settings.batching_method == "stratified":
        return stratified(partitions, settings.shares.proportion, size)
    if settings.batching_method == "per_stream":
        return per_stream(partitions, size, settings.seed_of(epoch))
    return per_device(partitions, world, settings.batch_size, settings.seed_of(epoch))
