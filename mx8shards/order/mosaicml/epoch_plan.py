"""Which samples does each worker of each rank read in an epoch, and in which batches?

All functions are pure: equal arguments give equal ids in every process. An id is the position of a sample among those
of all streams in order; -1 is padding, which has no sample.

The batches of an epoch are in *training order*: the first batch of worker 0 of every rank, that of worker 1, and so
on, then their second batches. A position is an index into that sequence, which runs over (batch, worker, node, rank,
sample).
"""

from __future__ import annotations

from typing import Protocol

from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.training_world import World
from mx8shards.order.permutation import Ids


class EpochPlan(Protocol):
    """The samples of one epoch, from where it was resumed. It holds 4 bytes per sample, and is shared by threads."""

    world: World
    batch_size: int
    batches: int  # of each rank, over all its workers: a multiple of workers_per_rank

    def __len__(self) -> int:
        """The number of positions: batches · ranks · batch_size."""

    def at(self, positions: Ids) -> Ids:
        """The ids at these positions of the epoch in training order."""

    def rank_batches(self, node: int, rank: int, start: int, stop: int) -> Ids:
        """The ids int64[stop - start, batch_size] of these batches of a rank.

        Its worker w reads the batches w, w + workers_per_rank, and so on.

        Args:
            node: The node.
            rank: The rank within the node.
            start: The first batch.
            stop: The batch after the last one, at most `batches`.
        """


def plan_epoch(
    settings: EpochSettings, world: World, epoch: int, sample_in_epoch: int = 0, *, initial_nodes: int | None = None
) -> EpochPlan:
    """The plan of an epoch; ValueError where Streaming raises one.

    Args:
        settings: The settings of the dataset.
        world: The world, replicated if there is a `replication`.
        epoch: The epoch, from 0.
        sample_in_epoch: The number of samples of this epoch that all ranks had read when it was interrupted.
        initial_nodes: The number of nodes that the run was started with, from the state that it resumes from; None if
            it does not resume.
    """
    raise NotImplementedError


def epoch_ids(
    settings: EpochSettings, world: World, epoch: int, sample_in_epoch: int = 0, *, initial_nodes: int | None = None
) -> Ids:
    """The ids of the whole world: int64[nodes, ranks_per_node, workers_per_rank, batches per worker, batch_size].

    The arguments are those of `plan_epoch`. It takes 8 bytes per sample; other functions hold what one rank needs.
    """
    raise NotImplementedError


def worker_ids(plan: EpochPlan, node: int, rank: int, worker: int) -> Ids:
    """The ids int64[batches per worker, batch_size] that one worker reads.

    Args:
        plan: The plan of the epoch.
        node: The node.
        rank: The rank within the node.
        worker: The worker within the rank.
    """
    raise NotImplementedError
