"""Where in MDS shards do samples and their payloads lie? From offset tables and size headers, for many rows at a time.

This is one kind of shards. Another one, such as the members of a tar, would answer the same questions in its own way:
whatever comes after these spans does not know the format.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.format.columns import Columns
from mx8shards.kernels import gather

Array = npt.NDArray[Any]

_MOST_BRIEF = 16_384  # so many spans are found in the time that it takes to give up the GIL and get it back


def find_samples(shards: Array, rows: Array) -> None:
    """The span of each row's sample in its shard, from the offset tables. It bounds what the row needs from above."""
    gather.sample_spans(shards, rows)


class MdsRows:
    """The way from rows to the spans of the wanted columns, in shards whose columns may differ.

    kinds   the columns of each kind of shards, by the number that shards have for their kind
    wanted  the names of the columns to load
    """

    def __init__(self, kinds: Sequence[Columns], wanted: Sequence[str]) -> None:
        self._kinds = kinds
        self._wanted = wanted
        self._sizes = np.array([(kind.variable, kind.fixed_bytes) for kind in kinds], np.int64)
        layouts = np.array([[_fields(kind, name) for name in wanted] for kind in kinds], np.int64)
        self._layouts = layouts.reshape(len(kinds), len(wanted), gather.LAYOUT_FIELDS)
        self.header_bytes = max((kind.header_bytes for kind in kinds), default=0)

    @property
    def takes_all(self) -> bool:
        """Whether all columns are wanted."""
        return all(len(kind.names) == len(self._wanted) for kind in self._kinds)

    def are_all_variable(self, ragged: Container[str]) -> bool:
        """Whether no other columns vary in size: then the length of a sample tells what these have together."""
        kinds = [zip(kind.names, kind.sizes, strict=True) for kind in self._kinds]
        return all(name in ragged or size is not None for kind in kinds for name, size in kind)

    def overhead(self, ragged: Container[str]) -> int:
        """How many bytes of each sample are in none of these columns, whatever the sample holds."""
        return min((_overhead(kind, ragged) for kind in self._kinds), default=0)

    def find_payloads(self, shards: Array, rows: Array, spans: Array, totals: Array) -> None:
        """The span of each row's wanted columns, and how many bytes each column has in all rows."""
        if self.header_bytes or spans.size > _MOST_BRIEF:
            header = np.empty(self.header_bytes, np.uint8)
            gather.payload_spans(shards, self._sizes, self._layouts, header, rows, spans, totals)
        else:
            gather.fixed_spans(shards, self._sizes, self._layouts, rows, spans, totals)


def _overhead(columns: Columns, ragged: Container[str]) -> int:
    sizes = zip(columns.names, columns.sizes, strict=True)
    return columns.header_bytes + sum(size for name, size in sizes if size is not None and name not in ragged)


def _fields(columns: Columns, name: str) -> tuple[int, int, int]:
    """A line of the layouts that `payload_spans` and `fixed_spans` want."""
    number = columns.names.index(name)
    before = columns.sizes[:number]
    size = columns.sizes[number]
    return sum(s for s in before if s is not None), sum(s is None for s in before), -1 if size is None else size
