"""How are the rows of an epoch divided among nodes, ranks, workers and batches? (`partition_algo`)

A partition is arithmetic: it computes the row at each position of the epoch and holds no array. Three rules fill up
what cannot be divided evenly, all of them Streaming's: a short canonical node repeats its last row, ranks repeat
earlier rows of their node, and workers get padding.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from mx8shards.errors import SettingError, one_of
from mx8shards.order.mosaicml.training_world import World
from mx8shards.order.orders import PADDING
from mx8shards.order.permutation import Ids

ALGORITHMS = ("relaxed", "orig")


@dataclass(frozen=True, kw_only=True, slots=True)
class CanonicalRows:
    """The rows of `count` samples, interleaved: the first of each of `nodes` canonical nodes, then their second ones.

    If there are more physical nodes, each canonical node serves `ratio` of them, and its rows are filled up (with
    `extra` repeats) to a multiple of it. If there are fewer rows than nodes, the rows are repeated from the beginning.
    """

    count: int
    nodes: int
    ratio: int

    @property
    def per_node(self) -> int:
        """The number of rows of a canonical node, without extra ones."""
        return -(-self.count // self.nodes)

    @property
    def extra(self) -> int:
        """The number of repeats at the end of each canonical node."""
        return -self.per_node % self.ratio

    @property
    def few(self) -> bool:
        """Whether some nodes have no row of their own."""
        return self.count < self.nodes or (self.count == self.nodes and self.ratio > 1)

    def __len__(self) -> int:
        return self.nodes * (self.per_node + self.extra)

    def at(self, indices: Ids) -> Ids:
        """The row at each index of the interleaved sequence."""
        within, node = np.divmod(indices, self.nodes)
        if self.few:
            rows: Ids = (node * (self.per_node + self.extra) + within) % self.count
            return rows
        within = np.where(within < self.per_node, within, within - (self.extra + self.ratio - 1))
        return np.minimum(node * self.count // self.nodes + within, (node + 1) * self.count // self.nodes - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """The rows of `canonical`, without the first `drop` of the sequence, divided among the processes of a world."""

    canonical: CanonicalRows
    world: World
    batch_size: int
    drop: int = 0

    @property
    def per_node(self) -> int:
        """The number of rows that each physical node reads, without repeats for its ranks."""
        return max(len(self.canonical) - self.drop, 0) // self.world.nodes

    @property
    def repeats(self) -> int:
        """The number of repeats that give all ranks of a node equally many rows."""
        return -self.per_node % self.world.ranks_per_node

    @property
    def per_rank(self) -> int:
        """The number of rows that each rank reads."""
        return -(-self.per_node // self.world.ranks_per_node)

    @property
    def batches(self) -> int:
        """The number of batches of each rank: equally many of each worker, the last ones padded."""
        workers = self.world.workers_per_rank
        return -(-self.per_rank // (workers * self.batch_size)) * workers

    @property
    def filled(self) -> int:
        """The number of batches of each rank that have samples."""
        return -(-self.per_rank // self.batch_size)

    def __len__(self) -> int:
        return self.batches * self.batch_size * self.world.ranks

    @property
    def few(self) -> bool:
        """Whether a node has too few rows to take the repeats of its ranks from its end."""
        return self.per_node < self.world.ranks_per_node + self.repeats - 1

    def at(self, positions: Ids) -> Ids:
        """The rows at these positions of the epoch, in training order; PADDING behind the last row of a rank."""
        batch, rank = np.divmod(positions // self.batch_size, self.world.ranks)
        node, rank = np.divmod(rank, self.world.ranks_per_node)
        number = batch * self.batch_size + positions % self.batch_size
        real = number < self.per_rank
        index = self._unrepeated(np.where(real, number, 0) * self.world.ranks_per_node + rank)
        rows = self.canonical.at(self.drop + index * self.world.nodes + node)
        return np.where(real, rows, PADDING)

    def _unrepeated(self, index: Ids) -> Ids:
        """The indices among a node's rows, with those of repeats replaced by those of the rows that are repeated."""
        if not self.repeats:
            return index
        if self.few:
            return index % self.per_node
        back = self.world.ranks_per_node + self.repeats - 1
        return np.where(index < self.per_node, index, index - back)


def partition(
    algo: str,
    count: int,
    canonical_nodes: int,
    world: World,
    batch_size: int,
    *,
    drop: int = 0,
    initial_nodes: int | None = None,
) -> Partition:
    """The partition of `count` rows; SettingError if the numbers do not fit each other.

    Args:
        algo: The `partition_algo`. A "relaxed" one may go on with a number of nodes that does not fit the canonical
            nodes: it is the partition for the nodes that the run was started with, which the new nodes share.
        count: The number of rows.
        canonical_nodes: The number of canonical nodes.
        world: The processes.
        batch_size: The number of samples in a batch of one rank.
        drop: How many rows at the beginning were already read.
        initial_nodes: The number of nodes that the run was started with, if it was resumed.
    """
    one_of("partition_algo", algo, ALGORITHMS)
    if drop > count + world.ranks - count % world.ranks:
        raise SettingError(subject="sample_in_epoch", expected=f"at most the epoch's {count} samples", found=f"{drop}")
    if algo == "relaxed" and initial_nodes is not None and not _fit(canonical_nodes, world.nodes):
        world, batch_size = _initial(world, batch_size, initial_nodes)
    if not _fit(canonical_nodes, world.nodes):
        expected = f"a divisor or a multiple of the number of nodes, {world.nodes}"
        raise SettingError(subject="num_canonical_nodes", expected=expected, found=f"{canonical_nodes}")
    canonical = CanonicalRows(count=count, nodes=canonical_nodes, ratio=max(world.nodes // canonical_nodes, 1))
    found = Partition(canonical=canonical, world=world, batch_size=batch_size, drop=drop - drop % world.nodes)
    _check(found)
    return found


def _fit(canonical_nodes: int, nodes: int) -> bool:
    return canonical_nodes % nodes == 0 or nodes % canonical_nodes == 0


def _initial(world: World, batch_size: int, nodes: int) -> tuple[World, int]:
    """The world with the nodes that the run was started with, and the batch size that gives equal global batches."""
    initial = World(nodes=nodes, ranks_per_node=world.ranks_per_node, workers_per_rank=world.workers_per_rank)
    batch, rest = divmod(batch_size * world.ranks, initial.ranks)
    if rest:
        expected = f"the global batch size to be a multiple of the {initial.ranks} ranks that the run was started with"
        raise SettingError(subject="batch_size", expected=expected, found=f"{batch_size} · {world.ranks} ranks")
    return initial, batch


def _check(found: Partition) -> None:
    """SettingError if there are too few rows to repeat; a warning if many are repeated."""
    rows = found.canonical
    if not rows.few and rows.extra and rows.per_node < rows.extra + rows.ratio - 1:
        expected = f"more samples than {rows.count} for {found.world.nodes} nodes"
        raise SettingError(subject="epoch_size", expected=expected, found="a node without samples to repeat")
    if rows.few or (found.repeats and found.few):
        divided = f"{rows.nodes} canonical nodes" if rows.few else f"{found.world.ranks} ranks"
        message = f"{rows.count} samples are divided among {divided}: many are repeated, and batches may be left out"
        warnings.warn(message, UserWarning, stacklevel=3)
