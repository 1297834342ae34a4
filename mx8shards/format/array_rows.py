"""How are the payloads of many `ndarray` values decoded at once? (spec: registry, "Arrays")

Each payload of `ndarray` and `ndarray:<dtype>` has its own header. The headers of all rows are parsed and removed by
NumPy operations over the rows, which leaves the concatenated values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.format.arrays import CODES, MAX_BYTES

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_LONG_BYTES = 512  # for longer rows on average, copying them one by one is faster than a mask over all bytes
_NAMES = {code: name for name, code in CODES.items()}


class Numbers(NamedTuple):
    """Concatenated arrays: row i is `values[offsets[i]:offsets[i + 1]]`, in C order, with the shape `dims[i]`.

    `dims` has as many columns as the largest number of dimensions; shorter shapes are padded with zeros.
    """

    values: npt.NDArray[Any]
    offsets: Ints
    dims: Ints


def numbers_of(payloads: Bytes, offsets: Ints, dtype: str | None) -> Numbers | int:
    """The numbers of all rows, copied from their payloads; or the first row that cannot be concatenated.

    `dtype` is the one in the encoding's name; None if each payload names its own. A row cannot be concatenated if its
    payload is damaged or its dtype differs from the first row's; decoding that row alone shows the reason.
    """
    lengths = np.diff(offsets)
    if not len(lengths):
        return Numbers(np.empty(0, dtype or "uint8"), np.zeros(1, np.int64), np.empty((0, 1), np.int64))
    at = 1 if dtype is None else 0  # the offset of the shape byte
    if (row := _first(lengths <= at)) is not None:
        return row
    if dtype is None:
        codes = payloads[offsets[:-1]]
        dtype = _NAMES.get(int(codes[0]))
        if (row := _first(codes != codes[0])) is not None or dtype is None:
            return row or 0
    dims, heads, row = _shapes(payloads, offsets[:-1] + at, lengths - at)
    if row is not None:
        return row
    kind = np.dtype(dtype).newbyteorder("<")
    # floats do not overflow, and are exact for all counts that fit into a payload
    counts = np.where(dims > 0, dims, 1).prod(axis=1, dtype=np.float64)
    if (row := _first((counts * kind.itemsize != lengths - at - heads) | (dims[:, 0] < 1))) is not None:
        return row
    values = _without_heads(payloads, offsets, at + heads).view(kind)
    return Numbers(values, np.concatenate([[0], np.cumsum(counts.astype(np.int64))]), dims)


def _without_heads(payloads: Bytes, offsets: Ints, heads: Ints) -> Bytes:
    """The concatenated rows without their headers."""
    if len(payloads) > _LONG_BYTES * len(heads):
        begins, ends = (offsets[:-1] + heads).tolist(), offsets[1:].tolist()
        return np.concatenate([payloads[begin:end] for begin, end in zip(begins, ends, strict=True)])
    keep = np.ones(len(payloads), bool)
    for byte in range(int(heads.max())):
        keep[offsets[:-1][byte < heads] + byte] = False
    kept: Bytes = payloads[keep]
    return kept


def _shapes(payloads: Bytes, begins: Ints, room: Ints) -> tuple[Ints, Ints, int | None]:
    """The dimensions of each row, the header bytes that encode them, and the first invalid row (or None)."""
    shape = payloads[begins].astype(np.int64)
    ndim, width = shape >> 2, 1 << (shape & 3)
    heads = 1 + ndim * width
    if (row := _first((ndim == 0) | (heads > room))) is not None:
        return begins, begins, row
    dims = np.zeros((len(begins), int(ndim.max())), np.int64)
    for d in range(dims.shape[1]):
        for byte in range(8):
            has = (ndim > d) & (width > byte)
            part = payloads[np.where(has, begins + 1 + d * width + byte, 0)].astype(np.int64)
            if byte == 7 and (row := _first(has & (part > 127))) is not None:
                return begins, begins, row
            dims[:, d] |= np.where(has, part, 0) << (8 * byte)
        if (row := _first((ndim > d) & ((dims[:, d] < 1) | (dims[:, d] > MAX_BYTES)))) is not None:
            return begins, begins, row
    return dims, heads, None


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    found = np.flatnonzero(wrong)
    return int(found[0]) if len(found) else None
