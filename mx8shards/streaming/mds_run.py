"""How are many samples of MDS shards read at once, so that one takes a fraction of the time?

Bounds and numbers of all samples are computed in arrays. Everything else is decoded when its sample is taken, so that
its memory is still in the processor's cache. As in a Loader, shards are mapped. Decoded values share no memory with
them, or with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError
from mx8shards.format.arrays import FixedArray
from mx8shards.format.codec import Encoding
from mx8shards.format.columns import Columns
from mx8shards.format.scalars import Bytes, Int, Number
from mx8shards.format.shard_bytes import read_table
from mx8shards.shards.shard import Shard
from mx8shards.streaming.payload_decoders import decoder_of

Ids = npt.NDArray[np.int64]
Decode = Callable[[memoryview, int, int], Any]  # of the mapped shard, and of the payload's begin and end


class RunReader:
    """Reads samples of shards that have these columns."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._numbers = [_number_type(coder) for coder in columns.coders]
        self._decoders = list(map(_decode_function, columns.coders))

    def __call__(self, parts: Sequence[tuple[Shard, Ids, Ids]], count: int) -> Iterator[dict[str, Any]]:
        """The samples at positions 0 to before `count`.

        FormatError at a damaged sample, without saying which: those before it have been returned.

        Args:
            parts: Of each shard, the positions of its samples, and their rows in the shard.
            count: The number of positions.
        """
        bounds = np.empty((len(self._columns.names) + 1, count), np.int64)
        views: list[memoryview] = [memoryview(b"")] * count
        numbers = [None if dtype is None else np.empty(count, dtype) for dtype in self._numbers]
        for shard, at, rows in parts:
            found = bounds[:, at] = self._bounds(shard, rows)
            for c, values in enumerate(numbers):
                if values is not None:
                    values[at] = _numbers_at(shard, found[c], values.dtype, 1)[:, 0]
            for position in at.tolist():
                views[position] = shard.view
        every = [self._values(c, numbers[c], views, bounds) for c in range(len(self._columns.names))]
        return map(_sample_function(self._columns.names), *every)

    def _bounds(self, shard: Shard, rows: Ids) -> Ids:
        """Where each column's payloads begin, and where the last one's end; FormatError unless they fill the sample."""
        shard.check_size()
        table = read_table(shard.head(mapped=True), shard.samples)
        begin, end = table[rows].astype(np.int64), table[rows + 1].astype(np.int64)
        sizes = iter(_numbers_at(shard, begin, np.dtype("<u4"), self._columns.variable).T)
        bounds = [begin + self._columns.header_bytes]
        for size in self._columns.sizes:
            bounds.append(bounds[-1] + (next(sizes).astype(np.int64) if size is None else size))
        if (bounds[-1] != end).any():
            raise FormatError(subject=shard.name, expected="columns that fill their samples", found="others")
        return np.array(bounds)

    def _values(self, c: int, numbers: Any, views: list[memoryview], bounds: Ids) -> Iterable[Any]:
        """The values of one column: numbers at once, others when they are taken."""
        if numbers is None:
            return map(self._decoders[c], views, bounds[c].tolist(), bounds[c + 1].tolist())
        found: list[Any] = numbers.tolist() if isinstance(self._columns.coders[c], Int) else list(numbers)
        return found


def _sample_function(names: tuple[str, ...]) -> Callable[..., dict[str, Any]]:
    """A function from the values of a sample to the sample. For few columns it takes a third of the time of a zip."""
    match names:
        case (a,):
            return lambda x: {a: x}
        case (a, b):
            return lambda x, y: {a: x, b: y}
        case (a, b, c):
            return lambda x, y, z: {a: x, b: y, c: z}
    return lambda *values: dict(zip(names, values, strict=True))


def _numbers_at(shard: Shard, begin: Ids, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    """The `count` numbers at each of these offsets."""
    where = begin[:, None] + np.arange(count * dtype.itemsize)
    return shard.data[where].view(dtype).reshape(len(begin), count)


def _number_type(coder: Encoding) -> np.dtype[Any] | None:
    """The dtype of an encoding of single numbers; None for others."""
    return np.dtype(coder.dtype).newbyteorder("<") if isinstance(coder, Int | Number) else None


def _decode_function(coder: Encoding) -> Decode:
    match coder:
        case FixedArray():
            return partial(_array, coder.shape, np.dtype(coder.dtype).newbyteorder("<"))
        case Bytes():
            return _payload
    return partial(_decoded, decoder_of(coder))


def _array(shape: tuple[int, ...], dtype: np.dtype[Any], view: memoryview, begin: int, end: int) -> Any:
    return np.ndarray(shape, dtype, bytearray(view[begin:end]))


def _payload(view: memoryview, begin: int, end: int) -> bytes:
    return bytes(view[begin:end])


def _decoded(decode: Callable[[bytes], Any], view: memoryview, begin: int, end: int) -> Any:
    return decode(bytes(view[begin:end]))
