"""What is a stage? The interface between the Loader and the decoders that turn payloads into rows.

A loader knows where payloads are and how to read them; a stage turns them into rows. Both depend on this module and not
on each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Output:
    """The rows that a stage produces under one key: of one dtype and shape, or ragged bytes if shape is None.

    `layout` is "CHW" or "HWC" for pictures, because a shape alone does not tell which axis holds the channels.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...] | None
    layout: str = ""

    @property
    def row_bytes(self) -> int | None:
        """The size of one row; None if rows differ in size."""
        return None if self.shape is None else self.dtype.itemsize * math.prod(self.shape)


RAGGED = Output(np.dtype(np.uint8), None)


class NeedsWholeError(Exception):
    """A stage needs more of a payload than it said in `narrow`, and its shard is read in parts."""

    def __init__(self, shard: int) -> None:
        super().__init__(shard)
        self.shard = shard


class Work(Protocol):
    """The state of one batch in preparation, as stages see it.

    `rows` and `spans` are arrays of records (kernels.records): `rows` has the access path and the status of each
    sample, `spans` the position of each requested payload in its shard. `shards` locates the shards. A stage that
    cannot decode a row writes a status into `rows`. `notes` keeps a stage's intermediate results until it fills.
    `parts` are further spans that will be read, with the rows that they belong to: a stage that needs several parts of
    a payload makes its span empty, and adds them here.
    `extras` are the arrays that the view adds to the rows by name, such as the occurrence of a repeated sample.
    `is_stopped` says whether the batch is not wanted any more, so that a stage which waits or works long can end.
    """

    rows: Array
    extras: Mapping[str, Array]
    spans: Array
    shards: Array
    notes: dict[Any, Any]
    parts: list[tuple[Array, Array]]
    whole: npt.NDArray[np.uint8]
    is_stopped: Callable[[], bool]

    @property
    def epoch(self) -> int:
        """The epoch that the batch belongs to."""

    def require_whole(self, row: int) -> None:
        """NeedsWholeError if only parts of the payloads of a row can be read. The batch is made again with all."""

    def region(self, key: str) -> Any:
        """The region of an output in the bank."""

    def array(self, key: str, output: Output) -> Array:
        """An output's values, as an array over the bank."""


@dataclass(frozen=True, slots=True)
class ClipColumns:
    """What a decoder of clips needs: which frames a clip has, and where the packet indices of videos are.

    `packets` is the number of the column, in the spans, with the packet index of the video, or a file that has it:
    `packets.read(sample_id)`. `reference` is that of the video whose frames or moments the starts of clips count.
    """

    times: Any
    packets: Any
    reference: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderContext:
    """The context in which a decoder makes its stage: a column, the number of threads, and their memory for scratch.

    `number` is the column's index in the spans. The threads run stages of several loaders; `shared` holds, by name, the
    objects that these stages share. `clips` is None unless the view has clips of this column.
    """

    column: str
    number: int
    encoding: str
    seed: int
    threads: int
    scratch_bytes: int
    shared: MutableMapping[str, Any]
    clips: ClipColumns | None = None


class Stage:
    """One step that turns payloads into rows.

    It declares its outputs and the columns it reads, and memory is reserved accordingly. `fill` is called for disjoint
    ranges of rows in several threads at once, each with its own resource. A stage does not change after construction:
    the data of one batch are in `Work.notes`, those of a thread in its resource.
    """

    kind = "decode"  # the name under which stats() counts its time
    columns: Sequence[str]
    outputs: Mapping[str, Output]
    scratch_bytes = 0  # the most scratch memory that all threads use, including that of other stages
    decoders: Mapping[str, Callable[[memoryview], Any]] = {}  # the functions that decode rows of its ragged outputs
    opens_thread = False  # whether each thread that fills needs a resource from `open_thread`
    narrows = False  # whether `narrow` may shrink spans; it is not called otherwise
    narrows_to_parts = False  # whether `narrow` adds to `Work.parts` all that is needed of payloads …
    needs_whole = False  # … whether these are whole payloads, not small parts
    measures = False  # whether `measure` gives the sizes of its ragged outputs; otherwise they are the payload sizes
    note_bytes = 0  # the most memory per row that `Work.notes` keeps of this stage, if it is much
    head_bytes = 0  # the number of leading payload bytes that `narrow` reads
    path = ""  # the name of the decoder in use, if decoders differ in pixel values; stored in states

    def open_thread(self) -> Any:
        """Create the resource of one thread, or None; called when the thread first fills rows of this stage.

        If it has a `close()` method, that is called once, in any thread: when the thread ends, or earlier when the
        loader of this stage is closed or garbage-collected. The resource must not refer to the stage.
        """
        return None

    def narrow(self, work: Work) -> bool:
        """Shrink the spans of its columns to the bytes it needs, before they are read.

        False if it could not shrink the spans of rows that have to be read, so that reading whole payloads can start.
        """
        return False

    def costs(self, work: Work) -> Array | None:
        """The cost of filling each row, in units of copying one byte. Rows are divided among threads by cost.

        None: about the cost of copying the sample.
        """
        return None

    def measure(self, work: Work) -> Mapping[str, Array]:
        """The size of each row of its ragged outputs, if the heads of payloads contain it.

        Called before memory is reserved, so the payloads may have changed when rows are filled. Rows whose status is
        not OK have size 0.
        """
        return {}

    def begin(self, work: Work) -> None:
        """Prepare to fill; called once the bank is assigned."""

    def fill(self, work: Work, start: int, stop: int, resource: Any) -> None:
        """Fill the rows from `start` to before `stop`, with the resource that `open_thread` made for this thread."""
        raise NotImplementedError

    def why(self, size_bytes: int, read: Callable[..., bytes]) -> Exception | None:
        """The error for a payload that this stage refuses; None if it accepts it.

        `read()` returns the whole payload, `read(n)` its first n bytes. Several threads may call this at once; together
        they may use at most `scratch_bytes` of memory.
        """
        return None

    def reason(self, work: Work, row: int) -> Exception | None:
        """The error of a row that this stage refused, if it keeps errors; else `why` is asked."""
        return None

    def wait(self) -> str:
        """What threads that fill wait for now, for a message; empty if they do not wait."""
        return ""

    def counts(self) -> Mapping[str, int]:
        """Further counts for stats(), by name."""
        return {}


class Decoder(Protocol):
    """A decoder that `decode=` accepts for a column."""

    def stage(self, context: DecoderContext) -> Stage:
        """The stage that decodes the column."""
