"""The Batch class: what does a loader yield?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial
from typing import Any, NamedTuple, Self

import numpy.typing as npt

from mx8shards.loading.ragged import Ragged, copied, moved, pinned
from mx8shards.stages import Output

Array = npt.NDArray[Any]


class _Rows(NamedTuple):
    """The facts about a batch's rows other than its columns."""

    sample_ids: Any = None
    padding: Any = None
    epoch: int | None = None
    seed: int | None = None
    pictures: Mapping[str, Output] | None = None
    extras: Mapping[str, Any] | None = None


class Batch(MutableMapping[str, Any]):
    """The rows of one step for one rank: a mapping from column names to tensors, arrays or `Ragged` rows.

    Tensors and arrays are views of a bank, a block of memory that the loader reuses when the last of them is gone. Hold
    a batch for as long as you like; it counts in the loader's `memory=` until then. `copy()` gives a batch that does
    not.

    A batch can be pickled. torch, Lightning and Accelerate treat it as a dict. As a torch pytree, it has decoded
    pictures with their channels first, whatever their layout. A batch made from a mapping alone,
    `Batch({"image": …})`, has no sample_ids, padding, epoch and seed: reading them raises AttributeError. `replace`,
    `copy`, `map`, `to`, `pin_memory` and `copy.copy` keep them.

    Args:
        values: The columns, by name.
        sample_ids: The sample_id of each row, as int64, always on the host. For a view such as `select` or `where`, it
            still is an index into the whole dataset; for `concat`, into all datasets, one after the other. A row
            without a sample has -1: see `padding`.
        padding: Bools: True for a row that only fills up the batch. Such a row repeats a sample. If an order of your
            own returns -1, the row has no sample: it is zeros, or empty in a ragged column.
        epoch: The epoch of the batch.
        seed: The loader's seed.
        pictures: The declared layout of each column of decoded pictures. `layouts` shows them.
        extras: Further arrays from the view, with one value per row, by name, on the host. `"occurrence"` numbers the
            repeats of a sample, so that their random draws differ. Empty if the view has none.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        sample_ids: Any = None,
        padding: Any = None,
        epoch: int | None = None,
        seed: int | None = None,
        pictures: Mapping[str, Output] | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        self._values = dict(values)
        self._rows: _Rows
        if sample_ids is None and isinstance(values, Batch):
            self._rows = values._rows
        else:
            self._rows = _Rows(sample_ids, padding, epoch, seed, pictures, extras)

    @property
    def sample_ids(self) -> Any:
        """The sample_id of each row. It stays on the host, wherever the columns are."""
        return self._known("sample_ids")

    @property
    def padding(self) -> Any:
        """Bools: True for rows that only fill up the batch: repeats, or rows without a sample."""
        return self._known("padding")

    @property
    def extras(self) -> Mapping[str, Any]:
        """Further arrays from the view, with one value per row, by name. They stay on the host."""
        return self._rows.extras or {}

    @property
    def epoch(self) -> int:
        """The epoch of the batch."""
        return int(self._known("epoch"))

    @property
    def seed(self) -> int:
        """The loader's seed."""
        return int(self._known("seed"))

    @property
    def layouts(self) -> dict[str, str]:
        """ "CHW" or "HWC" for each column of decoded pictures, except where a transform has changed their shape."""
        declared = self._rows.pictures or {}
        shapes = {key: getattr(value, "shape", ())[1:] for key, value in self.items() if key in declared}
        return {key: declared[key].layout for key, shape in shapes.items() if tuple(shape) == declared[key].shape}

    def _known(self, name: str) -> Any:
        found = getattr(self._rows, name)
        if found is None:
            where = "in the Loader's transform=, or before Accelerate dispatches batches"
            raise AttributeError(f"this batch was made from columns alone and has no {name}: read it {where}")
        return found

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        ids = self._rows.sample_ids
        rows = "" if ids is None else f" of {len(ids)}"
        return f"<Batch{rows}: {', '.join(self._values)}>"

    def __copy__(self) -> Self:
        return self._with(self._values)

    def copy(self) -> Self:
        """The same batch in memory of its own, which does not count in the loader's `memory=`."""
        extras = {name: copied(values) for name, values in self.extras.items()}
        rows = self._rows._replace(sample_ids=copied(self._rows.sample_ids), extras=extras)
        return self._with(self._values, rows)._relocated(copied)

    def map(self, change: Callable[[Any], Any]) -> Self:
        """A new batch with a function applied to every array and tensor, and to `padding`.

        It is not applied to `sample_ids` and to the offsets of `Ragged` rows.

        Args:
            change: A function that takes and returns an array or tensor, or another value that a transform put into
                the batch.
        """
        padding = None if self._rows.padding is None else change(self._rows.padding)
        values = {key: changed(value, change) for key, value in self.items()}
        return self._with(values, self._rows._replace(padding=padding))

    def replace(self, values: Mapping[str, Any]) -> Self:
        """A new batch with the same rows and other columns.

        Args:
            values: Columns that replace those of the same name, or are added to the others.
        """
        return self._with({**self._values, **values})

    def to(self, device: Any, non_blocking: bool = False) -> Self:
        """The batch with all tensors, and `padding`, on this device; `sample_ids` stay on the host.

        Args:
            device: A torch.device or its name.
            non_blocking: True: return before copies from pinned memory are done, as `Tensor.to` does. Copies from a
                bank of the loader are awaited, because the bank may be refilled: call `pin_memory()` first.
        """
        return self._relocated(partial(moved, device=device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """A copy in pinned memory, from which a GPU copies asynchronously: `.to("cuda", non_blocking=True)`."""
        return self._relocated(pinned)

    def _relocated(self, move: Callable[[Any], Any]) -> Self:
        padding = None if self._rows.padding is None else move(self._rows.padding)
        values = {key: relocated(value, move) for key, value in self.items()}
        return self._with(values, self._rows._replace(padding=padding))

    def _with(self, values: Mapping[str, Any], rows: _Rows | None = None) -> Self:
        return type(self)(values, *(rows or self._rows))


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to all arrays and tensors of a batch, or of the value that a transform returned."""
    if isinstance(value, (Batch, Ragged)):
        return value.map(change)
    return _rebuilt(value, partial(changed, change=change), change)


def relocated(value: Any, move: Callable[[Any], Any]) -> Any:
    """The same value with all its arrays and tensors moved or copied by a function.

    Unlike `changed`, this includes `padding` and the offsets of ragged rows. `sample_ids` stay on the host.
    """
    if isinstance(value, Ragged):
        return value.copy() if move is copied else value.relocated(move)
    if isinstance(value, Batch):
        return value._relocated(move)
    return _rebuilt(value, partial(relocated, move=move), move)


def _rebuilt(value: Any, inside: Callable[[Any], Any], change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: inside(inner) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(inside, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(inside, value))
    return change(value)
