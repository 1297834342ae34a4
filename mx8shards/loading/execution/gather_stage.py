"""How are payloads copied without decoding? The gather stage, and the check of array headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError
from mx8shards.format.arrays import HEADER_BYTES, DynamicArray
from mx8shards.format.columns import MAX_BYTES, Columns
from mx8shards.format.encodings import Encoding
from mx8shards.kernels import gather
from mx8shards.loading.ragged import Decode, EncodingDecoder
from mx8shards.stages import RAGGED, Output, Stage, Work

Array = npt.NDArray[Any]

_LARGE_BYTES = 4 << 10  # smaller rows are never copied with non-temporal stores
# A batch of at least this size has left the CPU caches before it is read: the first limit applies if the batch waits in
# the prefetch queue, the second if a transform reads it at once.
_WAITING_BYTES, _AT_ONCE_BYTES = 2 << 20, 8 << 20


class Gather(Stage):
    """Copies payloads: stacked where the encoding has a fixed dtype and shape, else as ragged rows."""

    kind = "gather"

    def __init__(self, columns: Columns, wanted: Sequence[str], *, at_once: bool) -> None:
        self.columns = tuple(wanted)
        self._cached_bytes = _AT_ONCE_BYTES if at_once else _WAITING_BYTES
        self.decoders: dict[str, Decode] = {}
        self.outputs = {}
        self._numbers = [columns.names.index(name) for name in wanted]
        for name, number in zip(wanted, self._numbers, strict=True):
            coder = columns.coders[number]
            self.outputs[name] = _output(coder)
            self.decoders[name] = EncodingDecoder(columns.encodings[number], varies=columns.sizes[number] is None)
        self._ragged = RAGGED in self.outputs.values()

    def begin(self, work: Work) -> None:
        """Compute the target address of each column, and write the offsets of ragged columns."""
        bank = int(work.whole.ctypes.data)
        targets, copied_bytes = [], 0
        for key, number in zip(self.columns, self._numbers, strict=True):
            region = work.region(key)
            offsets = 0 if region.offsets is None else bank + region.offsets
            targets.append((number, bank + region.values, offsets, self.outputs[key].row_bytes or 0))
            copied_bytes += region.value_bytes
        large_bytes = MAX_BYTES if copied_bytes < self._cached_bytes else _LARGE_BYTES
        table = np.array(targets, np.int64).reshape(-1, gather.TARGET_FIELDS)
        work.notes[self] = table, large_bytes
        if self._ragged:
            gather.write_offsets(work.spans, table)

    def fill(self, work: Work, start: int, stop: int, resource: Any) -> None:
        """Copy the payloads of these rows into the bank."""
        targets, large_bytes = work.notes[self]
        gather.copy_payloads(work.shards, work.spans, targets, start, stop, large_bytes, work.rows)


class ArrayCheck(Stage):
    """Marks a row as bad if its payload is not a valid array, so that `on_error` applies to it.

    `Ragged` converts all rows of a batch at once: without this check, one damaged header would spoil the whole batch.
    """

    kind = "gather"

    def __init__(self, column: str, codec: DynamicArray) -> None:
        self.columns = (column,)
        self.outputs = {}
        self._codec = codec
        self._itemsize = np.dtype(codec.dtype_name).itemsize if codec.dtype_name else 0

    def fill(self, work: Work, start: int, stop: int, resource: Any) -> None:
        """Check the headers of the payloads that the gather stage has copied into the bank."""
        bank, region = int(work.whole.ctypes.data), work.region(self.columns[0])
        gather.check_arrays(bank + region.values, bank + region.offsets, self._itemsize, start, stop, work.rows)

    def why(self, size_bytes: int, read: Callable[..., bytes]) -> Exception | None:
        """The error of the header, if it is invalid."""
        try:
            self._codec.header(read(HEADER_BYTES), size_bytes)
        except FormatError as error:
            return error
        return None


def array_checks(columns: Columns, wanted: Sequence[str]) -> list[Stage]:
    """A check for each wanted column whose payloads are arrays with headers."""
    coders = zip(columns.names, columns.coders, strict=True)
    return [ArrayCheck(name, coder) for name, coder in coders if name in wanted and isinstance(coder, DynamicArray)]


def _output(coder: Encoding) -> Output:
    """Fixed rows if the encoding's dtype and shape match its size, else ragged. A user's encoding may be wrong."""
    if coder.dtype is None or coder.shape is None:
        return RAGGED
    output = Output(np.dtype(coder.dtype), coder.shape)
    fits = output.row_bytes == coder.size_bytes and not output.dtype.hasobject
    return output if fits else RAGGED
