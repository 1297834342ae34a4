"""How are payloads gathered as they are? The stage that copies them, and the check of arrays' headers."""

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

_LARGE_BYTES = 4 << 10  # smaller rows are not copied past the caches in any batch
# So large a batch has left the caches before anybody reads it: if it waits for its turn, beside others that are made
# ahead, or if it is used at once.
_WAITING_BYTES, _AT_ONCE_BYTES = 2 << 20, 8 << 20


class Gather(Stage):
    """Payloads as they are: stacked where all are arrays of one shape, else ragged."""

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
            self.decoders[name] = EncodingDecoder(columns.encodings[number])
        self._ragged = RAGGED in self.outputs.values()

    def begin(self, work: Work) -> None:
        """Note where each column goes, and write the offsets of the ragged ones."""
        bank = int(work.whole.ctypes.data)
        targets, copied_bytes = [], 0
        for key, number in zip(self.columns, self._numbers, strict=True):
            place = work.place(key)
            offsets = 0 if place.offsets is None else bank + place.offsets
            targets.append((number, bank + place.values, offsets, self.outputs[key].row_bytes or 0))
            copied_bytes += place.value_bytes
        large_bytes = MAX_BYTES if copied_bytes < self._cached_bytes else _LARGE_BYTES
        table = np.array(targets, np.int64).reshape(-1, gather.TARGET_FIELDS)
        work.notes[self] = table, large_bytes
        if self._ragged:
            gather.write_offsets(work.spans, table)

    def fill(self, work: Work, start: int, stop: int, resource: Any) -> None:
        """Copy payloads."""
        targets, large_bytes = work.notes[self]
        gather.copy_payloads(work.shards, work.spans, targets, start, stop, large_bytes, work.rows)


class ArrayCheck(Stage):
    """Refuses rows of one column whose payload is not an array, so that `on_error` holds for them.

    The header of such a row says how many numbers follow, so a damaged one would make all rows of its batch useless.
    """

    kind = "gather"

    def __init__(self, column: str, codec: DynamicArray) -> None:
        self.columns = (column,)
        self.outputs = {}
        self._codec = codec
        self._itemsize = np.dtype(codec.dtype_name).itemsize if codec.dtype_name else 0

    def costs(self, work: Work) -> Array:
        """Only headers are looked at."""
        return np.zeros(len(work.rows), np.int64)

    def fill(self, work: Work, start: int, stop: int, resource: Any) -> None:
        """Look at the headers of the payloads, which are in the bank by now."""
        bank, place = int(work.whole.ctypes.data), work.place(self.columns[0])
        gather.check_arrays(bank + place.values, bank + place.offsets, self._itemsize, start, stop, work.rows)

    def why(self, size_bytes: int, read: Callable[..., bytes]) -> Exception | None:
        """What is wrong with the header, if anything is."""
        try:
            self._codec.header(read(HEADER_BYTES), size_bytes)
        except FormatError as error:
            return error
        return None


def array_checks(columns: Columns, wanted: Sequence[str]) -> list[Stage]:
    """A check for each of the wanted columns whose payloads are arrays with headers."""
    coders = zip(columns.names, columns.coders, strict=True)
    return [ArrayCheck(name, coder) for name, coder in coders if name in wanted and isinstance(coder, DynamicArray)]


def _output(coder: Encoding) -> Output:
    """Rows of one dtype and shape, if every payload has just their bytes; whoever registered the encoding may err."""
    if coder.dtype is None or coder.shape is None:
        return RAGGED
    output = Output(np.dtype(coder.dtype), coder.shape)
    fits = output.row_bytes == coder.size_bytes and not output.dtype.hasobject
    return output if fits else RAGGED
