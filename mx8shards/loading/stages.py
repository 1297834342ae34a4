"""Who turns spans into rows? Gather is the first stage; decoders are others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.format.columns import Columns
from mx8shards.format.encodings import Encoding
from mx8shards.kernels import gather
from mx8shards.kernels.records import SPAN
from mx8shards.loading.batch import Decode
from mx8shards.loading.outputs import RAGGED, Layout, Output, Place, array_of
from mx8shards.loading.plan import Planned
from mx8shards.loading.reach import Rows

Array = npt.NDArray[Any]


class Work:
    """One batch on its way: its rows, where their payloads lie, and its bank once there is one.

    `spans` has a line per row and, in it, a span per wanted column, in the order of the columns' names. A stage that
    cannot make anything of a row writes a status into `rows`.
    """

    whole: npt.NDArray[np.uint8]
    layout: Layout

    def __init__(self, planned: Planned, shards: Array, columns: int, reads: bool) -> None:
        self.planned = planned
        self.reads = reads  # whether some rows are read, and not copied from a map
        self.rows: Rows = planned.rows
        self.padding = planned.padding
        self.shards = shards
        self.spans: Array = np.empty((len(planned.rows), columns), SPAN)
        self.notes: dict[Stage, Any] = {}  # what a stage wants to know again when it fills

    def release(self) -> None:
        """Let go of the bank."""
        del self.whole

    def place(self, key: str) -> Place:
        """Where an output lies in the bank."""
        return self.layout.places[key]

    def array(self, key: str, output: Output) -> Array:
        """An output's values, over the bank."""
        return array_of(self.whole, output, self.layout.places[key], len(self.rows))


class Stage:
    """One step that turns payloads into rows.

    It says beforehand what it will put into a batch, and from which columns; memory is reserved by that. `fill` is
    called for disjoint ranges of rows, in several threads at once, each with scratch of its own.
    """

    kind = "decode"  # what its time is counted as
    columns: Sequence[str]
    outputs: Mapping[str, Output]
    scratch_bytes = 0  # how much memory one thread's scratch has at most

    def scratch(self) -> Any:
        """What one thread needs, made once; its `close`, if it has one, is called when the thread ends."""
        return None

    def narrow(self, work: Work) -> None:
        """Shrink the spans of its columns, before any of their bytes are read."""

    def begin(self, work: Work) -> None:
        """Make ready to fill: the bank is there now."""

    def fill(self, work: Work, start: int, stop: int, scratch: Any) -> None:
        """Fill the rows from start to before stop."""
        raise NotImplementedError


class Gather(Stage):
    """Payloads as they are: stacked where all are arrays of one shape, else ragged."""

    kind = "gather"

    def __init__(self, columns: Columns, wanted: Sequence[str]) -> None:
        self.columns = tuple(wanted)
        self.decoders: dict[str, Decode] = {}
        self.outputs = {}
        self._numbers = [columns.names.index(name) for name in wanted]
        for name, number in zip(wanted, self._numbers, strict=True):
            coder = columns.coders[number]
            self.outputs[name] = _output(coder)
            self.decoders[name] = coder.decode
        self._ragged = RAGGED in self.outputs.values()

    def begin(self, work: Work) -> None:
        """Note where each column goes, and write the offsets of the ragged ones."""
        bank = int(work.whole.ctypes.data)
        targets = []
        for key, number in zip(self.columns, self._numbers, strict=True):
            place = work.place(key)
            offsets = 0 if place.offsets is None else bank + place.offsets
            targets.append((number, bank + place.values, offsets, self.outputs[key].row_bytes or 0))
        work.notes[self] = np.array(targets, np.int64).reshape(-1, gather.TARGET_FIELDS)
        if self._ragged:
            gather.place(work.spans, work.notes[self])

    def fill(self, work: Work, start: int, stop: int, scratch: Any) -> None:
        """Copy payloads."""
        gather.copy_payloads(work.shards, work.spans, work.notes[self], start, stop, work.rows)


def _output(coder: Encoding) -> Output:
    """Rows of one dtype and shape, if every payload has just their bytes; whoever registered the encoding may err."""
    if coder.dtype is None or coder.shape is None:
        return RAGGED
    output = Output(np.dtype(coder.dtype), coder.shape)
    fits = output.row_bytes == coder.size_bytes and not output.dtype.hasobject
    return output if fits else RAGGED
