"""Custom orders for `Loader(order=…)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.format.randomness import uniforms

Ids = npt.NDArray[np.int64]


class _Order:
    """Base of the orders."""

    def at(self, epoch: int, counts: Ids) -> Any:
        raise NotImplementedError

    def ids(self, epoch: int, start: int, stop: int) -> Any:
        return self.at(epoch, np.arange(start, stop))


@dataclass
class Weighted(_Order):
    """Sampling with replacement: `length` positions per epoch, drawn with the given weights."""

    weights: Sequence[float]
    length: int
    seed: int = 0

    def __len__(self) -> int:
        return self.length

    def at(self, epoch: int, counts: Ids) -> Ids:
        ends = np.cumsum(self.weights)
        drawn = uniforms(self.seed, epoch, counts, "weighted", 1)[:, 0] * ends[-1]
        return np.searchsorted(ends, drawn, side="right")

    @property
    def description(self) -> dict[str, Any]:
        return {"name": "weighted", "weights": list(self.weights), "length": self.length, "seed": self.seed}


@dataclass
class Listed(_Order):
    """A fixed list of positions, rotated by one in each epoch."""

    positions: Sequence[int]
    name: str = "listed"

    def __len__(self) -> int:
        return len(self.positions)

    def at(self, epoch: int, counts: Ids) -> Ids:
        return np.array(self.positions, np.int64)[(counts + epoch) % max(1, len(self.positions))]

    @property
    def description(self) -> dict[str, Any]:
        return {"name": self.name, "positions": list(self.positions)}


@dataclass
class OfNodes(_Order):
    """Alternates between nodes, each of which reads its own part of the positions, padded to equal lengths."""

    count: int
    nodes: int

    def __len__(self) -> int:
        return -(-self.count // self.nodes) * self.nodes

    def at(self, epoch: int, counts: Ids) -> Ids:
        part = -(-self.count // self.nodes)
        number, node = np.divmod(counts, self.nodes)
        found = node * part + (number + epoch) % part
        return np.where(found < self.count, found, -1)

    @property
    def description(self) -> dict[str, Any]:
        return {"name": "of nodes", "nodes": self.nodes, "count": self.count}
