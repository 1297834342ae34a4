"""How are many ids passed on without holding them all? In arrays that follow each other, called chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.order.permutation import Ids

AnyIds = npt.NDArray[np.integer[Any]]  # many ids, in a dtype that is no larger than they need

_LEAST = 1 << 16  # ids in a chunk


def id_dtype(count: int) -> np.dtype[Any]:
    """The dtype of numbers from 0 to `count`: 4 bytes where they suffice."""
    return np.dtype(np.uint32 if count < 1 << 32 else np.int64)


class IdQueue:
    """The ids of chunks, in this dtype, of which any number is taken at a time."""

    def __init__(self, chunks: Iterable[Ids], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._chunks = iter(chunks)
        self._left = np.empty(0, dtype)

    def take(self, count: int) -> AnyIds:
        """The next `count` ids. At least as many must be left."""
        parts, found = [self._left], len(self._left)
        while found < count:
            parts.append(next(self._chunks))
            found += len(parts[-1])
        ids: AnyIds = np.concatenate(parts, dtype=self.dtype, casting="unsafe")
        self._left = ids[count:].copy()
        return ids[:count]


def joined(chunks: Iterable[AnyIds]) -> Iterator[AnyIds]:
    """The chunks, joined so that they are not small."""
    parts: list[AnyIds] = []
    found = 0
    for chunk in chunks:
        parts.append(chunk)
        found += len(chunk)
        if found >= _LEAST:
            yield np.concatenate(parts)
            parts, found = [], 0
    if parts:
        yield np.concatenate(parts)


def collected(chunks: Iterable[AnyIds], count: int, dtype: np.dtype[Any]) -> AnyIds:
    """All `count` ids of the chunks in one array."""
    ids = np.empty(count, dtype)
    done = 0
    for chunk in chunks:
        ids[done : done + len(chunk)] = chunk
        done += len(chunk)
    return ids


def picked(chunks: Iterable[AnyIds], indices: AnyIds, dtype: np.dtype[Any]) -> AnyIds:
    """The ids at these indices of the chunks, which are in ascending order."""
    ids = np.empty(len(indices), dtype)
    start = done = 0
    for chunk in chunks:
        stop = start + len(chunk)
        end = done + int(np.searchsorted(indices[done:], indices.dtype.type(stop)))
        ids[done:end] = chunk[indices[done:end] - indices.dtype.type(start)]
        start, done = stop, end
    return ids
