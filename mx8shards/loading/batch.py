"""What does a loader yield?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mx8shards.errors import require
from mx8shards.loading.outputs import Layout, array_of, offsets_of
from mx8shards.stages import Output

OutputKind = Literal["torch", "numpy"]
OUTPUT_KINDS: tuple[OutputKind, ...] = ("torch", "numpy")
Array = npt.NDArray[Any]
Decode = Callable[[memoryview], Any]


def converter(kind: OutputKind) -> Callable[[Array], Any]:
    """How an array becomes what the user asked for: the same memory in either case."""
    return require("torch", "torch").from_numpy if kind == "torch" else _itself


def _itself(array: Array) -> Array:
    return array


class Ragged:
    """Rows of different lengths: `values` holds their bytes one after the other, row i those from `offsets[i]` on.

    `ragged[i]` decodes a row as the dataset does. What it gives may be a view of the batch's memory.
    """

    def __init__(self, values: Any, offsets: Any, decode: Decode) -> None:
        self.values = values
        self.offsets = offsets
        self._decode = decode
        self._rows: tuple[memoryview, list[int]] | None = None  # what indexing needs, once it does

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Any:
        if self._rows is None:
            values, offsets = (each.cpu() if hasattr(each, "cpu") else each for each in (self.values, self.offsets))
            self._rows = np.asarray(values).data.toreadonly(), np.asarray(offsets).tolist()
        values, offsets = self._rows
        count = len(offsets) - 1
        if not -count <= i < count:
            raise IndexError(f"row {i} of {count}")
        i %= count
        return self._decode(values[offsets[i] : offsets[i + 1]])

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<Ragged: {len(self)} rows, {len(self.values)} bytes>"

    def copy(self) -> Ragged:
        """The same rows in memory of their own."""
        return self.map(copied)

    def map(self, change: Callable[[Any], Any]) -> Ragged:
        """The same rows with values and offsets changed: copied, or moved to a device, where they are only bytes."""
        return Ragged(change(self.values), change(self.offsets), self._decode)


class Batch(Mapping[str, Any]):
    """The rows of one step for one rank, by column.

    Arrays and tensors view a bank of the loader, which uses it again once the last of them is gone: hold a batch for as
    long as you like, at the price of its memory. `copy()` gives one that costs the loader nothing.
    """

    sample_ids: Any
    padding: Any
    epoch: int
    seed: int

    def __init__(
        self,
        values: dict[str, Any],
        sample_ids: Any,
        padding: Any,
        epoch: int,
        seed: int,
        pictures: Mapping[str, Output] | None = None,
    ) -> None:
        self._values = values
        self._pictures = pictures or {}
        self.sample_ids = sample_ids
        self.padding = padding
        self.epoch = epoch
        self.seed = seed

    @property
    def layouts(self) -> dict[str, str]:
        """ "CHW" or "HWC" for each column of decoded pictures, unless a transform has given them another shape."""
        shapes = {key: getattr(value, "shape", ())[1:] for key, value in self.items() if key in self._pictures}
        declared = self._pictures
        return {key: declared[key].layout for key, shape in shapes.items() if tuple(shape) == declared[key].shape}

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Batch of {len(self.sample_ids)}: {', '.join(self._values)}>"

    def copy(self) -> Batch:
        """The same batch in memory of its own."""
        return self.map(copied)

    def map(self, change: Callable[[Any], Any]) -> Batch:
        """The same batch with every array changed: moved to a device, say."""
        values = {key: value.map(change) if isinstance(value, Ragged) else change(value) for key, value in self.items()}
        return Batch(values, change(self.sample_ids), change(self.padding), self.epoch, self.seed, self._pictures)

    def replace(self, values: Mapping[str, Any]) -> Batch:
        """The same rows, with these values in the place of its own, or beside them."""
        values = {**self._values, **values}
        return Batch(values, self.sample_ids, self.padding, self.epoch, self.seed, self._pictures)


def copied(value: Any) -> Any:
    """A tensor or array with memory of its own; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.clone() if hasattr(value, "clone") else value


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A batch, or whatever a transform made of it, with every array and tensor in it changed."""
    if isinstance(value, (Batch, Ragged)):
        return value.map(change)
    if isinstance(value, dict):
        return {key: changed(inner, change) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(changed(inner, change) for inner in value))
    if isinstance(value, (list, tuple)):
        return type(value)(changed(inner, change) for inner in value)
    return change(value)


def make_batch(
    whole: npt.NDArray[np.uint8],
    outputs: Mapping[str, Output],
    decoders: Mapping[str, Decode],
    layout: Layout,
    sample_ids: Array,
    padding: Array,
    epoch: int,
    seed: int,
    convert: Callable[[Array], Any],
) -> Batch:
    """The batch that lies in a bank."""
    rows = len(sample_ids)
    values: dict[str, Any] = {}
    for key, output in outputs.items():
        place = layout.places[key]
        value = convert(array_of(whole, output, place, rows))
        if place.offsets is not None:
            value = Ragged(value, convert(offsets_of(whole, place, rows)), decoders[key])
        values[key] = value
    pictures = {key: output for key, output in outputs.items() if output.layout}
    return Batch(values, convert(sample_ids), convert(padding), epoch, seed, pictures)
