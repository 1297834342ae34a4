"""How does a batch hold rows that differ in length (texts, tokens, encoded files)? The Ragged class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from mx8shards.errors import LoaderError, SchemaError, SettingError, one_of, real_number, require, shown, whole_number
from mx8shards.format.array_rows import Numbers, numbers_of
from mx8shards.format.arrays import CODES, DynamicArray
from mx8shards.format.encodings import get_encoding

Array = npt.NDArray[Any]
Decode = Callable[[memoryview], Any]
Carry = tuple[Any, Any]

_HINT = 'make the Loader with output="torch"'


class Packed(NamedTuple):
    """Rows of one length that are filled with the numbers of ragged rows, one after the other.

    Args:
        tokens: [n, length]: integers as int64, floats as they are.
        cu_seqlens: int32: where the sequences begin in `tokens.flatten()`, and where the last one ends. A sequence is a
            ragged row, or the part of one that lies in one row of `tokens`.
        position_ids: int64 [n, length]: how far each number is from the beginning of its sequence.
        carry: The numbers that did not fill a row, and the offsets of their rows. Give it to the next call, and keep it
            in a checkpoint beside the loader's state.
    """

    tokens: Any
    cu_seqlens: Any
    position_ids: Any
    carry: Carry


class EncodingDecoder:
    """Decodes payloads as the encoding of this name does.

    It is pickled as that name: workers of a DataLoader send it with each batch, and the object of an encoding that a
    user registered may not be picklable.
    """

    def __init__(self, name: str, *, varies: bool = False) -> None:
        self.name = name
        self.encoding = get_encoding(name, varies=varies)
        self._varies = varies

    def __call__(self, payload: memoryview) -> Any:
        return self.encoding.decode(payload)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.name, varies=self._varies), ()


class Ragged:
    """The rows of a column that differ in length, one after the other in memory.

    `ragged[i]` decodes row i as `dataset[i]` does, and `for row in ragged` decodes all rows. `ragged[2:5]` is a Ragged
    of these rows. It and decoded rows may be views of the batch's memory.

    Args:
        values: All rows in one array or tensor: numbers for the encodings `ndarray` and `ndarray:<dtype>`, in that
            dtype, and the bytes of the payloads as uint8 for all other encodings.
        offsets: Row i is `values[offsets[i]:offsets[i + 1]]`; int64, one more than there are rows.
        decode: The function that decodes a payload, where `values` are payloads.
        dims: The shape of each row, where `values` are numbers.
    """

    def __init__(self, values: Any, offsets: Any, decode: Decode | None, dims: Array | None = None) -> None:
        self._values = values
        self._offsets = offsets
        self._decode = decode
        self._dims = dims
        self._numbers: Ragged | None = None  # cache: array payloads as numbers
        self._host: tuple[Array, list[int]] | None = None  # cache for indexing: values and offsets on the host

    @property
    def values(self) -> Any:
        """All rows, one after the other: the numbers of arrays, or the bytes of other payloads."""
        return self._as_numbers()._values

    @property
    def offsets(self) -> Any:
        """Where each row begins in `values`, and where the last one ends."""
        return self._as_numbers()._offsets

    @property
    def lengths(self) -> Any:
        """The number of numbers or bytes in each row."""
        offsets = self.offsets
        return offsets[1:] - offsets[:-1]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return self._part(i)
        if self._host is None:
            self._host = _on_host(self._values), _on_host(self._offsets).tolist()
        values, offsets = self._host
        count = len(offsets) - 1
        i = whole_number("row", i, None)
        if not -count <= i < count:
            raise IndexError(f"row {i} of {count}")
        i %= count
        row = values[offsets[i] : offsets[i + 1]]
        if self._dims is None and self._decode is not None:
            if not len(row) and self._array_codec is not None:
                return self._as_numbers()[i]  # a row without a sample: no array has an empty payload
            return self._decode(row.data.toreadonly())
        if self._dims is not None:
            row = row.reshape(self._dims[i][self._dims[i] > 0] if len(row) else 0)
        row.setflags(write=False)
        return row

    def _part(self, rows: slice) -> Ragged:
        """These rows. SettingError if they do not follow each other."""
        begin, end, step = rows.indices(len(self))
        if step != 1:
            hint = "[ragged[i] for i in range(begin, end, step)] decodes single rows"
            raise SettingError(subject="ragged", expected="rows that follow each other", found=f"{rows}", hint=hint)
        offsets = self._offsets[begin : max(begin, end) + 1]
        values = self._values[int(offsets[0]) : int(offsets[-1])]
        dims = None if self._dims is None else self._dims[begin : max(begin, end)]
        return Ragged(values, offsets - offsets[0], self._decode, dims)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        kind = "bytes" if self._dims is None else f"numbers of {_name(self._values)}"
        return f"<Ragged: {len(self)} rows, {len(self._values)} {kind}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_host": None, "_numbers": None}

    # as dense arrays --------------------------------------------------------------------------------------------

    def padded(self, fill: Any = 0, length: int | None = None) -> Any:
        """The rows as one array or tensor [rows, length], with `fill` after the end of each row.

        Args:
            fill: The number that fills rows up.
            length: The length of all rows: longer rows are cut at their end. None: the length of the longest row.

        Integers become int64, which embeddings take (uint64 stays), and floats stay as they are. Rows must have one
        dimension. `ragged.lengths` makes the mask: `torch.arange(length) < ragged.lengths[:, None]`.
        """
        rows = self._flat("padded")
        counts = np.diff(_on_host(rows._offsets))
        longest = int(counts.max(initial=0))
        length = longest if length is None else whole_number("length", length, 1)
        values = rows._values
        if longest > length:
            within = np.arange(len(values)) - np.repeat(_on_host(rows._offsets)[:-1], counts)
            values = values[_like(values, within < length)]
        values = _wide(values)
        fitting = _fitting(fill, np.dtype(_name(values)))
        filled = np.arange(length) < counts[:, None]
        if _is_tensor(values) and values.device.type != "cpu":
            return values.new_full(filled.shape, fitting).masked_scatter_(_like(values, filled), values)
        out = np.full(filled.shape, fitting, _name(values))
        out[filled] = _on_host(values)
        return _like(values, out)

    def packed(self, length: int, carry: Carry | None = None) -> Packed:
        """The rows one after the other, cut into rows of `length` numbers: no padding, and nothing is lost.

        Args:
            length: The number of numbers in a row.
            carry: The numbers that the previous call left over, which come first. None: there are none.

        Call it in every step: `tokens, cu_seqlens, position_ids, carry = batch["tokens"].packed(2048, carry)`, with
        None at first. Each call leaves fewer than `length` numbers over, in `carry`. They are not part of the
        loader's state: save `carry` beside `loader.state_dict()`, on each rank, and a resumed run packs equal rows.
        Without `carry` only these numbers are lost. Call it in the training loop, where batches come in order, and not
        in `transform=`, which runs in several threads.
        """
        length = whole_number("length", length, 1)
        rows = self._flat("packed")
        values, bounds = _wide(rows._values), _on_host(rows._offsets)
        if carry is not None:
            carried, carried_offsets = _checked_carry(carry)
            values = _joined(carried, values)
            bounds = np.concatenate([_on_host(carried_offsets)[:-1], bounds + len(carried)])
        used = len(values) // length * length
        begins = np.union1d(bounds[bounds <= used], np.arange(0, used + 1, length))
        positions = np.arange(used) - np.repeat(begins[:-1], np.diff(begins))
        rest = np.concatenate([[0], bounds[bounds > used] - used])
        return Packed(
            values[:used].reshape(-1, length),
            _like(values, begins.astype(np.int32)),
            _like(values, positions.reshape(-1, length)),
            (copied(values[used:]), _like(values, rest)),
        )

    def to_nested(self) -> Any:
        """A `torch.nested` tensor of these rows, with jagged layout. Integers become int64 (uint64 stays)."""
        rows = self._flat("to_nested")
        torch = require("torch", "torch")
        if isinstance(rows._values, np.ndarray):
            raise LoaderError("to_nested: expected tensors, got NumPy arrays", hint=_HINT)
        return torch.nested.nested_tensor_from_jagged(_wide(rows._values), rows._offsets)

    def view(self, dtype: str) -> Ragged:
        """The same bytes as numbers of a dtype: for example, tokens that were stored in a `bytes` column.

        Args:
            dtype: Its NumPy name: `"uint16"`, `"int32"`, `"float16"`, … in this machine's byte order.
        """
        rows = self._as_numbers()
        if rows._dims is not None:
            raise SchemaError(subject="view", expected="rows of bytes", found=repr(rows))
        one_of("dtype", dtype, CODES)
        kind = np.dtype(dtype)
        offsets = _on_host(rows._offsets)
        if (odd := np.flatnonzero(offsets % kind.itemsize)).size:
            row = int(odd[0]) - 1
            found = f"{offsets[row + 1] - offsets[row]} bytes"
            raise SchemaError(subject=f"row {row}", expected=f"a multiple of {kind.itemsize} bytes", found=found)
        bounds = offsets // kind.itemsize
        values = rows._values
        numbers = values.view(kind if isinstance(values, np.ndarray) else getattr(require("torch", "torch"), kind.name))
        return Ragged(numbers, _like(values, bounds), None, np.diff(bounds)[:, None])

    # copies -----------------------------------------------------------------------------------------------------

    def copy(self) -> Self:
        """The same rows in memory of their own."""
        return type(self)(copied(self._values), copied(self._offsets), self._decode, self._dims)

    def map(self, change: Callable[[Any], Any]) -> Ragged:
        """The same rows with `values` changed by a function. `offsets` keep their values, on the device of `values`.

        Args:
            change: A function that takes and returns an array or tensor.
        """
        rows = self._numbers_if_any()
        values, offsets = change(rows._values), rows._offsets
        if _is_tensor(values) and _is_tensor(offsets) and offsets.device != values.device:
            offsets = moved(offsets, values.device)
        return Ragged(values, offsets, rows._decode, rows._dims)

    def relocated(self, move: Callable[[Any], Any]) -> Ragged:
        """The same rows with `values` and `offsets` in other memory.

        Args:
            move: A function that returns an array or tensor in its new place.
        """
        rows = self._numbers_if_any()
        return Ragged(move(rows._values), move(rows._offsets), rows._decode, rows._dims)

    def _numbers_if_any(self) -> Ragged:
        """The rows as numbers; those that are not arrays of one dtype stay payloads."""
        with suppress(SchemaError, ValueError):
            return self._as_numbers()
        return self

    def to(self, device: Any, non_blocking: bool = False) -> Ragged:
        """The same rows on this device.

        Args:
            device: A torch.device or its name.
            non_blocking: As with `Batch.to`.
        """
        return self.relocated(partial(moved, device=device, non_blocking=non_blocking))

    def pin_memory(self) -> Ragged:
        """A copy in pinned memory, from which a GPU copies asynchronously."""
        return self.relocated(pinned)

    def _flat(self, who: str) -> Ragged:
        """The rows as numbers of one dimension each."""
        rows = self._as_numbers()
        if rows._dims is None and not isinstance(self._decode, EncodingDecoder):
            hint = "rows[i] is one of them"
            raise SchemaError(subject=who, expected="rows of numbers", found="pictures that were decoded", hint=hint)
        if rows._dims is not None and rows._dims.shape[1] > 1 and (many := np.flatnonzero(rows._dims[:, 1] > 0)).size:
            shape = tuple(rows._dims[many[0]][rows._dims[many[0]] > 0].tolist())
            raise SchemaError(subject=f"{who}: row {many[0]}", expected="one dimension", found=f"the shape {shape}")
        return rows

    def _as_numbers(self) -> Ragged:
        """The rows with payloads of arrays converted to numbers; other rows as they are."""
        codec = self._array_codec
        if codec is None:
            return self
        if self._numbers is None:
            bounds = _on_host(self._offsets)
            there = np.flatnonzero(bounds[1:] > bounds[:-1])  # no array has an empty payload: other rows are padding
            found = numbers_of(_on_host(self._values), bounds[np.append(there, len(bounds) - 1)], codec.dtype_name)
            if isinstance(found, int):
                row = int(there[found])
                other = self[row].dtype  # raises another error if the payload is damaged
                expected = f"an array of {self[int(there[0])].dtype}, as row {there[0]}"
                raise SchemaError(subject=f"row {row}", expected=expected, found=str(other))
            if len(there) < len(self):
                found = _with_empty_rows(found, there, len(self))
            values, offsets = (_like(self._values, array) for array in (found.values, found.offsets))
            self._numbers = Ragged(values, offsets, self._decode, found.dims)
        return self._numbers

    @property
    def _array_codec(self) -> DynamicArray | None:
        """The encoding of the rows, where they are payloads of arrays."""
        codec = self._decode.encoding if isinstance(self._decode, EncodingDecoder) and self._dims is None else None
        return codec if isinstance(codec, DynamicArray) else None


def _with_empty_rows(numbers: Numbers, there: Array, rows: int) -> Numbers:
    """Insert empty rows: `there` are the rows that have numbers."""
    counts, dims = np.zeros(rows, np.int64), np.zeros((rows, numbers.dims.shape[1]), np.int64)
    counts[there], dims[there] = np.diff(numbers.offsets), numbers.dims
    return Numbers(numbers.values, np.concatenate([[0], np.cumsum(counts)]), dims)


def copied(value: Any) -> Any:
    """A tensor or array with memory of its own; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.clone() if hasattr(value, "clone") else value


def moved(value: Any, device: Any, non_blocking: bool = False) -> Any:
    """A tensor on this device; anything else as it is. LoaderError for NumPy arrays, which cannot be moved."""
    if isinstance(value, np.ndarray):
        raise LoaderError(f"NumPy arrays cannot be moved to {device!s}", hint=_HINT)
    if not _is_tensor(value):
        return value
    # memory that torch did not allocate may be a bank, which may be refilled before an asynchronous copy is done
    return value.to(device, non_blocking=non_blocking and value.untyped_storage().resizable())


def pinned(value: Any) -> Any:
    """A tensor's copy in pinned memory; anything else as it is."""
    if isinstance(value, np.ndarray):
        raise LoaderError("NumPy arrays cannot be pinned", hint=_HINT)
    return value.pin_memory() if _is_tensor(value) else value


def _checked_carry(carry: Any) -> Carry:
    """The `carry` of an earlier call of `packed`, perhaps from a checkpoint."""
    pair: Any = carry if isinstance(carry, (tuple, list)) and len(carry) == 2 else (None, None)
    if any(not isinstance(part, np.ndarray) and not _is_tensor(part) for part in pair) or not len(pair[1]):
        raise SettingError(subject="carry", expected="None, or the carry that `packed` returned", found=shown(carry))
    return pair[0], pair[1]


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage")


def _on_host(value: Any) -> Array:
    return np.asarray(value if isinstance(value, np.ndarray) else value.cpu())


def _like(value: Any, array: Array) -> Any:
    """Convert an array on the host to the kind (array or tensor) and the device of `value`."""
    return array if isinstance(value, np.ndarray) else require("torch", "torch").from_numpy(array).to(value.device)


def _joined(first: Any, second: Any) -> Any:
    if isinstance(second, np.ndarray):
        return np.concatenate([np.asarray(first, second.dtype), second])
    torch = require("torch", "torch")
    return torch.cat([torch.as_tensor(first, dtype=second.dtype, device=second.device), second])


def _name(values: Any) -> str:
    """A dtype's name, which torch and NumPy share."""
    return str(values.dtype).removeprefix("torch.")


def _wide(values: Any) -> Any:
    """Integers as int64, except uint64; anything else as it is."""
    if np.dtype(_name(values)).kind not in "iu" or _name(values) in ("int64", "uint64"):
        return values
    return values.astype(np.int64) if isinstance(values, np.ndarray) else values.long()


def _fitting(fill: Any, dtype: np.dtype[Any]) -> Any:
    """The fill as a plain number; SettingError if this dtype cannot hold it."""
    if dtype.kind == "f":
        is_nan = isinstance(fill, float) and np.isnan(fill)
        return fill if is_nan else real_number("fill", fill, f"a number that {dtype} holds", lambda number: True)
    try:
        return whole_number("fill", fill, int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    except SettingError as error:
        error.expected = f"an int that {dtype} holds"
        raise
