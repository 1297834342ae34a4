"""How are the values of one column read over all samples, and compared with a value (column, where)?"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError, SchemaError, shown
from mx8shards.format.columns import Columns
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.shard import Shard
from mx8shards.shards.sidecars import numbers_in

Ints = npt.NDArray[np.int64]

# Short values are gathered from the mapping with index arrays of at most this length; long ones are copied row by row.
_INDEX_ITEMS = 1 << 20
_SHORT_BYTES = 64

# Encodings of which each value has one payload: the types of their values, and what these are called.
_COMPARED = {"str": ((str,), "a text"), "bytes": ((bytes, bytearray, memoryview), "bytes")}

# If samples are longer on average, the kernel is told which bytes will be accessed, as its read-ahead would read all.
_LONG_BYTES = 64 << 10


class Samples(Protocol):
    """A sequence of samples, each a dict by column name."""

    def __len__(self) -> int:
        """The number of samples."""

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One sample."""


class RaggedColumn(Sequence[Any]):
    """One column whose values differ in size: a sequence that decodes each value on access."""

    def __init__(self, samples: Samples, name: str) -> None:
        self._samples = samples
        self._name = name

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> list[Any]: ...
    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        return self._samples[key][self._name]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<RaggedColumn {self._name}: {len(self)} values>"


def stacked_column(
    shards: Shards, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], runs: Iterable[Ints]
) -> npt.NDArray[Any]:
    """The values of a column of fixed shape, from side-cars if there are any, otherwise from shards.

    `runs` are arrays of sample_ids: memory is allocated run by run, after the shards were checked, so that a false
    sample count in an index cannot exhaust it.
    """
    known = _from_sidecars(shards, name, dtype) if shape == () else {}
    found = [_run(shards, name, dtype, shape, ids, known) for ids in runs]
    if len(found) == 1:
        return found[0]
    return np.concatenate([np.empty((0, *shape), dtype), *found])


def _run(
    shards: Shards,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    sample_ids: Ints,
    known: Mapping[int, npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    found = list(_by_shard(shards, sample_ids))
    opened = {i: shards.open_shard(i) for i, _, _ in found if i not in known}  # checked before memory is allocated
    out = np.empty((len(sample_ids), *shape), dtype)
    for i, here, rows in found:
        out[here] = known[i][rows] if i in known else _from_shard(opened[i], name, dtype, shape, rows)
    return out


def _by_shard(shards: Shards, sample_ids: Ints) -> Iterator[tuple[int, Ints, Ints]]:
    """Each shard with some of the samples: its number, the indices of its samples in `sample_ids`, and their rows."""
    order = np.argsort(sample_ids, kind="stable")
    ids = sample_ids[order]
    first, last = np.searchsorted(shards.starts, ids[[0, -1]], side="right").tolist()
    bounds = np.searchsorted(ids, shards.starts[first - 1 : last + 1])
    for k in np.flatnonzero(np.diff(bounds)).tolist():
        here = slice(bounds[k], bounds[k + 1])
        yield first - 1 + k, order[here], ids[here] - shards.starts[first - 1 + k]


def only_payload(name: str, encoding: str, value: Any) -> bytes | None:
    """The only payload that decodes to this value, so that no payload need be decoded; None if there are several.

    SchemaError if a column of texts or of bytes is asked for another value, such as a list of them.
    """
    if encoding not in _COMPARED:
        return None
    kinds, expected = _COMPARED[encoding]
    if not isinstance(value, kinds):
        several = isinstance(value, (Sequence, Set, np.ndarray))
        hint = f"mx8.concat([dataset.where({name!r}, each) for each in values]) finds several" if several else ""
        raise SchemaError(subject=f"column {name!r}", expected=expected, found=shown(value), hint=hint)
    with suppress(UnicodeEncodeError):  # a lone surrogate, which no sample can contain
        return value.encode() if isinstance(value, str) else bytes(value)
    return None


def equal_values(column: npt.NDArray[Any] | RaggedColumn, name: str, value: Any) -> Ints:
    """The positions of the values that equal this one; SchemaError for a column of arrays."""
    if isinstance(column, RaggedColumn):
        return np.array([i for i, found in enumerate(column) if _is_equal(found, name, value)], np.int64)
    if np.ndim(value):
        hint = "select(numpy.flatnonzero(numpy.isin(column, values))) finds several"
        raise SchemaError(subject=f"column {name!r}", expected="one value", found="several", hint=hint)
    if column.ndim != 1:
        raise _not_one_value(name)
    is_number = isinstance(value, numbers.Number) or np.asarray(value).dtype.kind in "biuf"
    if column.dtype.kind in "iuf" and not is_number:
        raise SchemaError(subject=f"column {name!r}", expected="a number", found=repr(value))
    return np.flatnonzero(column == value)


def _is_equal(found: Any, name: str, value: Any) -> bool:
    if isinstance(found, np.ndarray):
        raise _not_one_value(name)
    return bool(found == value)


def _not_one_value(name: str) -> SchemaError:
    return SchemaError(subject=f"column {name!r}", expected="one value per sample", found="an array")


def equal_payloads(shards: Shards, name: str, payload: bytes, runs: Iterable[Ints]) -> Ints:
    """The indices, in the concatenated runs of sample_ids, of the samples whose payload equals these bytes."""
    found = [np.zeros(0, np.int64)]
    before = 0
    for ids in runs:
        for i, here, rows in _by_shard(shards, ids):
            found.append(before + here[_equal(shards.open_shard(i), name, payload, rows)])
        before += len(ids)
    return np.sort(np.concatenate(found))


def _equal(shard: Shard, name: str, payload: bytes, rows: Ints) -> Ints:
    """The indices of the rows with this payload."""
    shard.check_size()
    begins, sizes = payload_spans(shard, shard.columns.names.index(name), rows)
    likely = np.flatnonzero(sizes == len(payload))
    _prefetch(shard, begins[likely], len(payload))
    wanted = np.frombuffer(payload, np.uint8)
    step = max(1, _INDEX_ITEMS // max(1, len(payload)))
    pieces = [likely[start : start + step] for start in range(0, len(likely), step)]
    equal = [(shard.data[begins[piece, None] + np.arange(len(payload))] == wanted).all(axis=1) for piece in pieces]
    found: Ints = likely[np.concatenate([np.zeros(0, bool), *equal])]
    return found


def _from_sidecars(shards: Shards, name: str, dtype: np.dtype[Any]) -> dict[int, npt.NDArray[Any]]:
    found: dict[int, npt.NDArray[Any]] = {}
    before = 0
    for snapshot in shards.snapshots:
        for sidecar in snapshot.index.sidecars:
            data = shards.open_sidecar(snapshot, sidecar) if name in sidecar.columns else None
            if data is not None:
                numbers = numbers_in(snapshot, sidecar, data)
                found.update((before + i, values.view(dtype)) for i, column, values in numbers if column == name)
        before += snapshot.index.shards
    return found


def _from_shard(shard: Shard, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], rows: Ints) -> npt.NDArray[Any]:
    shard.check_size()
    column = shard.columns.names.index(name)
    begins, _ = payload_spans(shard, column, rows)
    width = shard.columns.sizes[column] or 0
    _prefetch(shard, begins, width)
    found = np.empty((len(rows), width), np.uint8)
    if width > _SHORT_BYTES:
        for row, begin in enumerate(begins.tolist()):
            found[row] = shard.data[begin : begin + width]
    else:
        step = max(1, _INDEX_ITEMS // max(1, width))
        for start in range(0, len(rows), step):
            some = begins[start : start + step]
            found[start : start + step] = shard.data[some[:, None] + np.arange(width)]
    return found.view(dtype).reshape(len(rows), *shape)


def _prefetch(shard: Shard, begins: Ints, size_bytes: int) -> None:
    """Tell the kernel which bytes of long samples will be accessed."""
    if shard.size_bytes > _LONG_BYTES * shard.samples:
        file = shard.open_file()
        for begin in begins.tolist():
            file.prefetch(begin, max(1, size_bytes))  # 0 would mean up to the end of the file


def payload_spans(shard: Shard, column: int, rows: Ints) -> tuple[Ints, Ints]:
    """Offsets in the shard's file and sizes of a column's payloads; FormatError if a sample's sizes do not add up."""
    columns = shard.columns
    begins = shard.table[rows].astype(np.int64)
    if columns.variable:
        _prefetch(shard, begins, columns.header_bytes)
    sizes = _size_headers(shard, begins, columns)
    lengths = shard.table[rows + 1].astype(np.int64) - begins
    bad = np.flatnonzero(columns.header_bytes + columns.fixed_bytes + sizes.sum(axis=1) != lengths)
    if bad.size:
        i = int(bad[0])
        found = columns.header_bytes + columns.fixed_bytes + int(sizes[i].sum())
        raise FormatError(
            subject=shard.name,
            place=f"sample {rows[i]} of this shard",
            expected=f"columns of {lengths[i]} bytes in all",
            found=f"{found}",
        )
    before = columns.sizes[:column]
    fixed = columns.header_bytes + sum(size for size in before if size is not None)
    variable = sum(size is None for size in before)
    payloads: Ints = begins + fixed + sizes[:, :variable].sum(axis=1)
    width = columns.sizes[column]
    return payloads, sizes[:, variable] if width is None else np.full(len(rows), width)


def _size_headers(shard: Shard, begins: Ints, columns: Columns) -> Ints:
    if not columns.variable:
        return np.zeros((len(begins), 0), np.int64)
    found = np.empty((len(begins), columns.variable), np.int64)
    step = max(1, _INDEX_ITEMS // columns.header_bytes)
    for start in range(0, len(begins), step):
        at = begins[start : start + step, None] + np.arange(columns.header_bytes)
        found[start : start + step] = shard.data[at].view("<u4")
    return found
