"""Are the samples of a shard well-formed, and which numbers do they hold? One pass over the shard's raw bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError
from mx8shards.format.columns import Columns
from mx8shards.format.shard_bytes import Offsets, check_offsets, check_table, read_table, table_bytes

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_INDEX_ITEMS = 1 << 20  # bytes copied by one NumPy index array, which bounds its size


class SampleWalk:
    """Checks a shard's raw bytes piece by piece. Keeps the offset table and the last few bytes in memory.

    `numbers` collects the payloads of the columns named in `scalars`, which are of fixed size.
    """

    def __init__(self, columns: Columns, samples: int, size_bytes: int, scalars: Sequence[str] = ()) -> None:
        self.bad: list[Ints] = []  # rows where the sizes of the columns do not add up to the length of the sample
        self._columns = columns
        self._samples = samples
        self._size_bytes = size_bytes
        self._head = bytearray()
        self._checked = 0  # number of offsets in `_head` that were checked, without the last one
        self._offsets: Offsets | None = None
        self._error: FormatError | None = None
        self._tail = b""
        self._begin = 0  # offset of `_tail` in the shard
        self._row = 0  # the first row whose size header was not read yet
        self._scalars = [_Scalar(columns, name) for name in scalars]
        self._keep = max([columns.header_bytes, *(scalar.width for scalar in self._scalars)], default=0)

    @property
    def numbers(self) -> list[bytes]:
        """The concatenated payloads of each scalar column."""
        return [b"".join(scalar.found) for scalar in self._scalars]

    def feed(self, piece: bytes) -> None:
        """Add the next bytes of the shard."""
        if self._error is None and self._offsets is None:
            self._head += piece
            if len(self._head) < table_bytes(self._samples):
                self._check_so_far()
                return
            piece = bytes(self._head)
            self._head.clear()
            self._take_table(piece)
        if self._error is None:
            self._scan(self._tail + piece)

    def finish(self) -> None:
        """FormatError if the offset table is invalid, or the sizes in a sample do not add up to its length."""
        if self._error is None and self._offsets is None:
            self._error = FormatError(expected=f"{table_bytes(self._samples)} bytes of offsets", found="fewer")
        if self._error is None and self.bad:
            rows = np.concatenate(self.bad)
            found = f"a different sum, in {len(rows)} samples" if len(rows) > 1 else "a different sum"
            self._error = FormatError(
                place=f"sample {rows[0]} of this shard", expected="column sizes that add up to its length", found=found
            )
        if self._error is not None:
            raise self._error

    def _check_so_far(self) -> None:
        """Check the offsets as they arrive, because a sparse file may claim a table of gigabytes."""
        there = len(self._head) // 4 - 1
        if there - self._checked < 2:
            return
        piece = np.frombuffer(bytes(self._head[4 + 4 * self._checked : 4 + 4 * there]), "<u4")
        try:
            check_offsets(piece, self._checked, self._samples, self._columns)
        except FormatError as error:
            self._error = error
            self._head.clear()
        self._checked = there - 1

    def _take_table(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            check_table(lambda begin, size: view[begin : begin + size], self._samples, self._size_bytes, self._columns)
        except FormatError as error:
            self._error = error
            return
        self._offsets = read_table(data, self._samples).copy()

    def _scan(self, data: bytes) -> None:
        """Check every size header and collect every number that is complete in `data`. Keep the rest for later."""
        assert self._offsets is not None  # set by `feed`
        view = np.frombuffer(data, np.uint8)
        end = self._begin + len(data)
        # uint32 like the offsets: any other type would make searchsorted convert the whole table for every piece
        within = np.uint32(max(0, end - self._columns.header_bytes))
        last = int(np.searchsorted(self._offsets[:-1], within, "right"))
        step = max(1, _INDEX_ITEMS // max(1, self._columns.header_bytes))
        for row in range(self._row, last, step):
            self._headers(view, row, min(last, row + step))
        self._row = max(self._row, last)
        for scalar in self._scalars:
            scalar.collect(view, self._begin, end)
        kept = max(0, len(data) - self._keep)
        self._tail = data[kept:]
        self._begin += kept

    def _headers(self, view: Bytes, start: int, stop: int) -> None:
        assert self._offsets is not None
        begins = self._offsets[start:stop].astype(np.int64)
        lengths = self._offsets[start + 1 : stop + 1].astype(np.int64) - begins
        columns = self._columns
        sizes = np.zeros((len(begins), 0), np.int64)
        if columns.variable:
            found = view[(begins - self._begin)[:, None] + np.arange(columns.header_bytes)]
            sizes = found.view("<u4").astype(np.int64)
        good = columns.header_bytes + columns.fixed_bytes + sizes.sum(axis=1) == lengths
        if not good.all():
            self.bad.append(start + np.flatnonzero(~good))
            sizes[~good] = 0  # so that numbers are read from inside the sample
        for scalar in self._scalars:
            scalar.expect(begins + scalar.before + sizes[:, : scalar.variable_before].sum(axis=1))


class _Scalar:
    """Collects the payloads of one column of fixed size."""

    def __init__(self, columns: Columns, name: str) -> None:
        number = columns.names.index(name)
        sizes = columns.sizes[:number]
        self.width = columns.sizes[number] or 0
        self.before = columns.header_bytes + sum(size for size in sizes if size is not None)
        self.variable_before = sum(size is None for size in sizes)
        self.found: list[bytes] = []
        self._begins: Ints = np.zeros(0, np.int64)

    def expect(self, begins: Ints) -> None:
        """Add offsets at which payloads begin."""
        self._begins = np.concatenate([self._begins, begins])

    def collect(self, view: Bytes, begin: int, end: int) -> None:
        """Collect the payloads that end within `view`, which holds the shard's bytes from `begin` to `end`."""
        count = int(np.searchsorted(self._begins, end - self.width, "right"))
        step = max(1, _INDEX_ITEMS // max(1, self.width))
        for start in range(0, count, step):
            begins = self._begins[start : min(count, start + step)] - begin
            self.found.append(view[begins[:, None] + np.arange(self.width)].tobytes())
        self._begins = self._begins[count:]
