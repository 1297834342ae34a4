"""How are the units of an epoch divided among canonical nodes?

The units are put into an order that is fixed for the run, and this sequence of rows is cut into one part per canonical
node. A cut divides a unit, so a node has *spans*: ranges of rows, each within one unit. In every epoch, the spans of
each node are shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mx8shards.order.permutation import Ids

Span = tuple[int, int, int]  # unit, offset and size


@dataclass(frozen=True, eq=False, slots=True)
class Spans:
    """Spans in order: span i has `sizes[i]` rows of unit `units[i]`, from `offsets[i]` within the unit on.

    Node c has the spans from edges[c] to before edges[c + 1].
    """

    units: Ids
    offsets: Ids
    sizes: Ids
    edges: Ids

    @property
    def rows(self) -> int:
        """The number of rows of all spans."""
        return int(self.sizes.sum())

    def __iter__(self) -> Iterator[Span]:
        return zip(self.units.tolist(), self.offsets.tolist(), self.sizes.tolist(), strict=True)

    def per_node(self) -> Iterator[Spans]:
        """The spans of each node."""
        for begin, end in zip(self.edges[:-1].tolist(), self.edges[1:].tolist(), strict=True):
            edges = np.array([0, end - begin])
            yield Spans(self.units[begin:end], self.offsets[begin:end], self.sizes[begin:end], edges)

    def shuffled_per_node(self, rng: np.random.Generator) -> Spans:
        """The spans with those of each node shuffled, one node after the other."""
        order = np.arange(len(self.units))
        for begin, end in zip(self.edges[:-1].tolist(), self.edges[1:].tolist(), strict=True):
            rng.shuffle(order[begin:end])
        return Spans(self.units[order], self.offsets[order], self.sizes[order], self.edges)


def canonical_spans(unit_sizes: Ids, nodes: int, rng: np.random.Generator) -> Spans:
    """The spans of all nodes: the units are shuffled, and cut at rows c · rows // nodes."""
    order = np.arange(len(unit_sizes))
    rng.shuffle(order)
    unit_ends = np.cumsum(unit_sizes[order])
    cuts = np.arange(1, nodes + 1) * unit_ends[-1] // nodes
    ends = np.union1d(unit_ends, cuts[cuts > 0])
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    at = np.searchsorted(unit_ends, starts, side="right")
    units = order[at]
    edges = np.concatenate([np.zeros(1, np.int64), np.searchsorted(ends, cuts, side="right")])
    return Spans(units, starts - (unit_ends[at] - unit_sizes[units]), ends - starts, edges)
