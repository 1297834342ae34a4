"""What is a stage? The port between a loader and those who turn payloads into rows.

A loader knows where payloads lie and how they are reached; a stage makes rows of them. Neither knows the other: both
know this.
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
    """What a stage declares under one key: equally shaped rows of one dtype, or, with no shape, ragged bytes.

    `layout` is "CHW" or "HWC" for rows that are pictures: a shape alone does not tell which of its sides are colours.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...] | None
    layout: str = ""

    @property
    def row_bytes(self) -> int | None:
        """How long one row is; None if rows differ."""
        return None if self.shape is None else self.dtype.itemsize * math.prod(self.shape)


RAGGED = Output(np.dtype(np.uint8), None)


class Work(Protocol):
    """One batch on its way, as stages see it.

    `rows` and `spans` are records (kernels.records): how each sample is reached and what became of it, and where in its
    shard the payload of each wanted column lies; `shards` says where the shards are. A stage that cannot make anything
    of a row writes a status into `rows`. `notes` keeps what a stage wants to know again when it fills. `extras` has
    what the view knows of the rows beside their samples, by name: which occurrence of its sample a row is, say.
    """

    rows: Array
    extras: Mapping[str, Array]
    spans: Array
    shards: Array
    notes: dict[Any, Any]
    whole: npt.NDArray[np.uint8]

    @property
    def epoch(self) -> int:
        """The epoch that the batch belongs to."""

    def place(self, key: str) -> Any:
        """Where an output lies in the bank."""

    def array(self, key: str, output: Output) -> Array:
        """An output's values, over the bank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What a decoder is used for: the payloads of one column, by so many threads, whose scratch has so much room.

    `number` is the column's among those of the spans. The threads work for several stages, of several loaders: what
    these share, they find in `shared`, by name.
    """

    column: str
    number: int
    encoding: str
    seed: int
    threads: int
    scratch_bytes: int
    shared: MutableMapping[str, Any]


class Stage:
    """One step that turns payloads into rows.

    It says beforehand what it will put into a batch, and from which columns; memory is reserved by that. `fill` is
    called for disjoint ranges of rows, in several threads at once, each with a resource of its own. A stage does not
    change after it was made: what belongs to one batch is in `Work.notes`, what belongs to a thread in its resource.
    """

    kind = "decode"  # what its time is counted as
    columns: Sequence[str]
    outputs: Mapping[str, Output]
    scratch_bytes = 0  # how much memory the scratch of all threads has at most, that of other stages included
    decoders: Mapping[str, Callable[[memoryview], Any]] = {}  # what rows of its ragged outputs are decoded by
    narrows = False  # whether `narrow` may shrink spans; it is not called otherwise
    measures = False  # whether `measure` tells the sizes of its ragged outputs, and not the payloads of their columns
    head_bytes = 0  # how much of a payload's beginning `narrow` looks at
    path = ""  # which of several ways it goes, if they give different values: a state remembers it

    def open_thread(self) -> Any:
        """What one thread needs to fill, or None. It is made when a thread first fills rows of this stage.

        Its `close()`, if it has one, is called once: when the thread ends, or before that when the loader of this stage
        is closed or gone, whichever comes first, in any thread. It must not refer to the stage.
        """
        return None

    def narrow(self, work: Work) -> bool:
        """Shrink the spans of its columns, before any of their bytes are read.

        False if there was nothing to shrink in rows that have to be read: then whole payloads are asked for sooner.
        """
        return False

    def costs(self, work: Work) -> Array:
        """What filling each row costs, in the time that it takes to copy a byte: rows are shared out by that."""
        costs: Array = work.spans["size"].sum(axis=1)
        return costs

    def measure(self, work: Work) -> Mapping[str, Array]:
        """How many bytes each row of its ragged outputs will have, if the heads of payloads tell.

        This is asked before memory is reserved, so the bytes may have changed when rows are filled. Rows that are not
        OK have none.
        """
        return {}

    def begin(self, work: Work) -> None:
        """Make ready to fill: the bank is there now."""

    def fill(self, work: Work, start: int, stop: int, resource: Any) -> None:
        """Fill the rows from start to before stop, with what `open_thread` made for this thread."""
        raise NotImplementedError

    def why(self, size_bytes: int, read: Callable[..., bytes]) -> Exception | None:
        """What it has against a payload of so many bytes, if it refuses it. `read()` gives it, `read(n)` its beginning.

        Several threads may ask this at once: what all of them take together must be within `scratch_bytes`.
        """
        return None


class Decoder(Protocol):
    """What can be given for a column in `decode=`."""

    def stage(self, use: Use) -> Stage:
        """The stage that does it."""
