"""How does a batch on its way look to its stages, and how are payloads gathered, as they are?"""

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
from mx8shards.kernels.records import OK, SPAN
from mx8shards.loading.memory.batch_layout import Layout, Place, array_of
from mx8shards.loading.planning.batch_plan import Group, Step
from mx8shards.loading.planning.shard_table import Rows
from mx8shards.loading.ragged import Decode, EncodingDecoder
from mx8shards.stages import RAGGED, Output, Stage
from mx8shards.stages import Work as AnyWork

Array = npt.NDArray[Any]

_LARGE_BYTES = 4 << 10  # smaller rows are not copied past the caches in any batch
# So large a batch has left the caches before anybody reads it: if it waits for its turn, beside others that are made
# ahead, or if it is used at once.
_WAITING_BYTES, _AT_ONCE_BYTES = 2 << 20, 8 << 20


class Work:
    """A group of batches on its way: its rows, where their payloads lie, and its bank once there is one.

    `spans` has a line per row and, in it, a span per wanted column, in the order of the columns' names.
    """

    whole: npt.NDArray[np.uint8]
    layout: Layout
    sample_ids: npt.NDArray[np.int64]

    def __init__(self, group: Group, shards: Array, columns: int, reads: bool) -> None:
        self.epoch = group.epoch
        self.steps: tuple[Step, ...] = group.steps
        self.reads = reads  # whether some rows are read, and not copied from a map
        self.rows: Rows = group.rows
        self.padding = group.padding
        self.extras = group.extras
        self._absent = group.absent
        self.shards = shards
        self.spans: Array = np.empty((len(group.rows), columns), SPAN)
        self.notes: dict[Any, Any] = {}

    def conclude(self) -> int:
        """Take down which samples these are. How many of them went wrong?"""
        if self._absent is not None:
            self.rows["status"][self._absent] = OK  # there is nothing that could have gone wrong
        self.sample_ids = np.empty(len(self.rows), np.int64)
        bad = np.empty(1, np.int64)
        gather.conclude(self.rows, self.sample_ids, bad)
        return int(bad[0])

    def release(self) -> None:
        """Let go of the bank."""
        del self.whole

    def place(self, key: str) -> Place:
        """Where an output lies in the bank."""
        return self.layout.places[key]

    def array(self, key: str, output: Output) -> Array:
        """An output's values, over the bank."""
        return array_of(self.whole, output, self.layout.places[key], len(self.rows))


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

    def begin(self, work: AnyWork) -> None:
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
            gather.place(work.spans, table)

    def fill(self, work: AnyWork, start: int, stop: int, resource: Any) -> None:
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

    def costs(self, work: AnyWork) -> Array:
        """Only headers are looked at."""
        return np.zeros(len(work.rows), np.int64)

    def fill(self, work: AnyWork, start: int, stop: int, resource: Any) -> None:
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
