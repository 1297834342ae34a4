"""Where do samples and payloads lie in MDS shards? Rows to spans, from offset tables and size headers.

MDS is one kind of shard. Another kind, such as the members of a tar, needs a module like this one. Code that uses only
the spans does not depend on the format.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.format.columns import Columns
from mx8shards.kernels import gather

Array = npt.NDArray[Any]

_MAX_SPANS_WITH_GIL = 16_384  # finding this many spans takes as long as releasing the GIL and acquiring it again


def find_samples(shards: Array, rows: Array) -> None:
    """Find the span of each row's sample from the offset tables: an upper bound of the bytes that the row needs."""
    gather.sample_spans(shards, rows)


class MdsSpanFinder:
    """Finds the payload spans of the wanted columns, in shards whose column layouts may differ.

    kinds   the column layouts, indexed by a shard's `kind`
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
        """Whether all other columns have fixed sizes: then a sample's length gives the total size of these columns."""
        kinds = [zip(kind.names, kind.sizes, strict=True) for kind in self._kinds]
        return all(name in ragged or size is not None for kind in kinds for name, size in kind)

    def overhead(self, ragged: Container[str]) -> int:
        """A lower bound of the bytes of a sample outside of these columns."""
        return min((_overhead(kind, ragged) for kind in self._kinds), default=0)

    def find_payloads(self, shards: Array, rows: Array, spans: Array, totals: Array) -> None:
        """Find the span of each wanted column in each row, and the bytes of each column in all rows."""
        if self.header_bytes or spans.size > _MAX_SPANS_WITH_GIL:
            header = np.empty(self.header_bytes, np.uint8)
            gather.payload_spans(shards, self._sizes, self._layouts, header, rows, spans, totals)
        else:
            gather.fixed_spans(shards, self._sizes, self._layouts, rows, spans, totals)


def _overhead(columns: Columns, ragged: Container[str]) -> int:
    sizes = zip(columns.names, columns.sizes, strict=True)
    return columns.header_bytes + sum(size for name, size in sizes if size is not None and name not in ragged)


def _fields(columns: Columns, name: str) -> tuple[int, int, int]:
    """One column of the `layouts` argument of `payload_spans` and `fixed_spans`."""
    number = columns.names.index(name)
    before = columns.sizes[:number]
    size = columns.sizes[number]
    return sum(s for s in before if s is not None), sum(s is None for s in before), -1 if size is None else size
