"""Which node, rank and worker is this process? The class World, under Streaming's names."""

from __future__ import annotations

import os
import warnings
from typing import Any, Self

from mx8shards.loading.planning.machine import distributed_group, worker_share
from mx8shards.order.mosaicml import training_world


def get_rank() -> int:
    """The number of this process among all training processes."""
    return int(os.environ["RANK"]) if "RANK" in os.environ else _of_group()[0]


def get_world_size() -> int:
    """The number of training processes."""
    return int(os.environ["WORLD_SIZE"]) if "WORLD_SIZE" in os.environ else _of_group()[1]


def _of_group() -> tuple[int, int]:
    """Rank and world size of torch.distributed, for processes without torchrun's variables; (0, 1) without it.

    Streaming reads the variables only, so that each of these processes gets all samples.
    """
    return distributed_group() or (0, 1)


def get_local_rank() -> int:
    """The number of this process among those of its node."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def get_local_world_size() -> int:
    """The number of training processes of a node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class World:
    """The nodes, ranks and DataLoader workers of a run, and which of them this process is.

    All numbers of workers are those of the whole world, except where their name says otherwise.

    Args:
        num_nodes: The number of nodes.
        ranks_per_node: The number of ranks of each node.
        workers_per_rank: The number of DataLoader workers of each rank; 1 without workers.
        worker: The number of this worker, among all workers of the world.
    """

    def __init__(self, num_nodes: int, ranks_per_node: int, workers_per_rank: int, worker: int) -> None:
        self.num_nodes = num_nodes
        self.ranks_per_node = ranks_per_node
        self.workers_per_rank = workers_per_rank
        self.worker = worker
        self.workers_per_node = ranks_per_node * workers_per_rank
        self.num_ranks = num_nodes * ranks_per_node
        self.num_workers = num_nodes * self.workers_per_node
        self.node, self.worker_of_node = divmod(worker, self.workers_per_node)
        self.rank, self.worker_of_rank = divmod(worker, workers_per_rank)
        self.rank_of_node = self.rank % ranks_per_node
        self.is_multinode = num_nodes > 1
        self.is_leader = worker == 0
        self.is_local_leader = self.worker_of_node == 0

    @classmethod
    def detect(cls) -> Self:
        """The world as the environment (torchrun) describes it, and the DataLoader of this worker."""
        ranks_per_node = get_local_world_size()
        nodes = get_world_size() // ranks_per_node
        return cls(nodes, ranks_per_node, 1, get_rank()).detect_workers()

    def warn_if_late(self) -> None:
        """Warn if this process has become another rank since: its dataset was made before the ranks were known."""
        now = type(self).detect()
        if (now.rank, now.num_ranks) != (self.rank, self.num_ranks):
            message = (
                f"a dataset that was made for rank {self.rank} of {self.num_ranks} is iterated in rank {now.rank} of "
                f"{now.num_ranks}, so ranks may read the same samples: make it when torch.distributed is initialized, "
                "with Lightning in `train_dataloader`"
            )
            warnings.warn(message, stacklevel=3)

    def to_json(self) -> dict[str, Any]:
        """All attributes."""
        return dict(vars(self))

    def copy(self) -> Self:
        """The same world."""
        return type(self)(self.num_nodes, self.ranks_per_node, self.workers_per_rank, self.worker)

    def replicate(self, replication: int) -> Self:
        """The world in which consecutive ranks that read the same samples count as one.

        Args:
            replication: How many consecutive ranks read the same samples.
        """
        found = self.counts.replicated(replication)
        worker = self.rank // replication * self.workers_per_rank + self.worker_of_rank
        return type(self)(found.nodes, found.ranks_per_node, self.workers_per_rank, worker)

    def detect_workers(self) -> Self:
        """The same world with the number of this DataLoader worker, and of the workers per rank."""
        worker, workers = worker_share()
        return self.with_workers(workers, worker)

    def with_workers(self, workers_per_rank: int, worker: int = 0) -> Self:
        """The same world with other workers.

        Args:
            workers_per_rank: The number of DataLoader workers of each rank.
            worker: Which of them this process is.
        """
        first = self.rank * workers_per_rank
        return type(self)(self.num_nodes, self.ranks_per_node, workers_per_rank, first + worker)

    @property
    def counts(self) -> training_world.World:
        """The numbers of nodes, ranks and workers."""
        return training_world.World(
            nodes=self.num_nodes, ranks_per_node=self.ranks_per_node, workers_per_rank=self.workers_per_rank
        )
