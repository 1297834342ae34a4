"""Which samples does each worker of each rank read in an epoch, and in which batches?

All functions are pure: equal arguments give equal ids in every process. An id is the position of a sample among those
of all streams in order; -1 is padding, which has no sample. `epoch_division` says what a position of an epoch is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mx8shards.errors import whole_number
from mx8shards.order.mosaicml.epoch_division import RUN, EpochDivision, divide_epoch
from mx8shards.order.mosaicml.epoch_samples import Samples, samples_per_partition
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.training_world import Reader, World
from mx8shards.order.orders import PADDING
from mx8shards.order.permutation import Ids


@dataclass(frozen=True, eq=False, slots=True)
class EpochPlan:
    """The samples of one epoch, from where it was resumed. Threads may share it.

    Args:
        division: Which rows of which stream each position has.
        samples: The samples of each stream, or of all streams together, row by row.
    """

    division: EpochDivision
    samples: Sequence[Samples]

    @property
    def world(self) -> World:
        """The world that reads the epoch."""
        return self.division.world

    @property
    def batch_size(self) -> int:
        """The number of samples in a batch of one rank."""
        return self.division.batch_size

    @property
    def batches(self) -> int:
        """The number of batches of each rank, over all its workers: a multiple of `workers_per_rank`."""
        return self.division.batches

    def __len__(self) -> int:
        return len(self.division)

    def at(self, positions: Ids) -> Ids:
        """The ids at these positions of the epoch."""
        ids = np.full(len(positions), PADDING, np.int64)
        for index, where, rows in self.division.rows(positions):
            ids[where] = self.samples[index].at(rows)
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
        return self._ids(node, rank, range(start, stop))

    def worker_ids(self, node: int, rank: int, worker: int) -> Ids:
        """The ids int64[batches per worker, batch_size] that one worker reads.

        Args:
            node: The node.
            rank: The rank within the node.
            worker: The worker within the rank.
        """
        return self._ids(node, rank, self.division.batches_of(worker))

    def _ids(self, node: int, rank: int, batches: range) -> Ids:
        ids = np.empty((len(batches), self.batch_size), np.int64)
        run = max(RUN // self.batch_size, 1)
        for start in range(0, len(batches), run):
            positions = self.division.positions(node, rank, batches[start : start + run])
            ids[start : start + run] = self.at(positions.ravel()).reshape(positions.shape)
        return ids


def plan_epoch(
    settings: EpochSettings,
    world: World,
    epoch: int,
    sample_in_epoch: int = 0,
    *,
    initial_nodes: int | None = None,
    reader: Reader | None = None,
) -> EpochPlan:
    """The plan of an epoch; SettingError (a ValueError) where Streaming raises a ValueError.

    Args:
        settings: The settings of the dataset.
        world: The world, replicated if there is a `replication`.
        epoch: The epoch, from 0.
        sample_in_epoch: The number of samples of this epoch that all ranks had read when it was interrupted.
        initial_nodes: The number of nodes that the run was started with, from the state that it resumes from; None if
            it does not resume.
        reader: The rank or worker that the plan is for: it then holds 8 bytes for each sample of these, instead of 4
            for each sample of the epoch, and answers for no other.
    """
    epoch = whole_number("epoch", epoch, 0)
    sample_in_epoch = whole_number("sample_in_epoch", sample_in_epoch, 0)
    division = divide_epoch(settings, world, epoch, sample_in_epoch, initial_nodes)
    kept = None
    if reader is not None and settings.shuffle and reader.share_of(world) < 0.5:
        kept = division.rows_of(reader.node, reader.rank, reader.worker)
    return EpochPlan(division, samples_per_partition(settings, epoch, kept))


def epoch_ids(
    settings: EpochSettings, world: World, epoch: int, sample_in_epoch: int = 0, *, initial_nodes: int | None = None
) -> Ids:
    """The ids of the whole world: int64[nodes, ranks_per_node, workers_per_rank, batches per worker, batch_size].

    The arguments are those of `plan_epoch`, whose plan gives the same ids in half the memory, or those of one worker.
    """
    plan = plan_epoch(settings, world, epoch, sample_in_epoch, initial_nodes=initial_nodes)
    ids = np.empty(len(plan), np.int64)
    for start in range(0, len(ids), RUN):
        positions = np.arange(start, min(start + RUN, len(ids)))
        ids[start : start + RUN] = plan.at(positions)
    shape = (world.workers_per_rank, world.nodes, world.ranks_per_node, settings.batch_size)
    return ids.reshape(plan.batches // world.workers_per_rank, *shape).transpose(2, 3, 1, 0, 4)
