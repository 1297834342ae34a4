"""How many nodes, ranks and workers read an epoch together?"""

from __future__ import annotations

from dataclasses import dataclass

from mx8shards.errors import SettingError, whole_number

MOST_PROCESSES = 1 << 20  # of each kind: all positions then fit into int64


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The processes among which an epoch is divided.

    Args:
        nodes: The number of nodes (machines).
        ranks_per_node: The number of ranks (devices) of each node.
        workers_per_rank: The number of DataLoader workers of each rank; 1 if the rank reads without workers.
    """

    nodes: int = 1
    ranks_per_node: int = 1
    workers_per_rank: int = 1

    def __post_init__(self) -> None:
        for name in ("nodes", "ranks_per_node", "workers_per_rank"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1, MOST_PROCESSES))

    @property
    def ranks(self) -> int:
        """The number of ranks of all nodes."""
        return self.nodes * self.ranks_per_node

    def replicated(self, replication: int) -> World:
        """The world in which `replication` consecutive ranks count as one, because they read the same samples.

        If its ranks do not fill whole nodes, it has one node. Rank r of this world is there rank r // replication.
        """
        replication = whole_number("replication", replication, 1)
        ranks, rest = divmod(self.ranks, replication)
        if rest:
            expected = f"a divisor of the number of ranks, {self.ranks}"
            raise SettingError(subject="replication", expected=expected, found=f"{replication}")
        nodes = 1 if ranks % self.ranks_per_node else ranks // self.ranks_per_node
        return World(nodes=nodes, ranks_per_node=ranks // nodes, workers_per_rank=self.workers_per_rank)

    def place(self, rank: int) -> tuple[int, int]:
        """The node of a rank, and its number within the node."""
        return divmod(rank, self.ranks_per_node)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """One process of a world, or one rank with all its workers.

    Args:
        node: The node.
        rank: The rank within the node.
        worker: The worker within the rank; None for all of them.
    """

    node: int = 0
    rank: int = 0
    worker: int | None = None

    def share_of(self, world: World) -> float:
        """The part of a world's samples that it reads."""
        return 1 / world.ranks / (1 if self.worker is None else world.workers_per_rank)
