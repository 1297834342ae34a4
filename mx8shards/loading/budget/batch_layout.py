"""Where in its bank is each output of a batch? Offsets, alignment and size of a bank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.stages import Output

_ALIGNMENT = 64


class Region(NamedTuple):
    """The region of an output in the bank: offset of its values, of its offsets if ragged, and size of its values."""

    values: int
    offsets: int | None
    value_bytes: int


class Layout(NamedTuple):
    """The regions of all outputs in a bank of `size_bytes`."""

    regions: dict[str, Region]
    size_bytes: int


def lay_out(outputs: Mapping[str, Output], rows: int, ragged_bytes: Mapping[str, int]) -> Layout:
    """The layout of a bank. `ragged_bytes` is the size of each ragged output, in all rows together."""
    regions = {}
    at = 0
    for key, output in outputs.items():
        row_bytes = output.row_bytes
        offsets = None
        if row_bytes is None:
            offsets = at
            at = _aligned(at + 8 * (rows + 1))
        size = ragged_bytes[key] if row_bytes is None else rows * row_bytes
        regions[key] = Region(at, offsets, size)
        at = _aligned(at + size)
    return Layout(regions, at)


def max_bytes(outputs: Mapping[str, Output], rows: int, ragged_bytes: int) -> int:
    """An upper bound of the size of a bank, if all ragged outputs together have `ragged_bytes`."""
    fixed = ragged = 0
    for output in outputs.values():
        row_bytes = output.row_bytes
        ragged += row_bytes is None
        fixed += 8 * (rows + 1) if row_bytes is None else rows * row_bytes
    return fixed + ragged_bytes + _ALIGNMENT * (len(outputs) + ragged)


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT) * _ALIGNMENT


def offsets_of(whole: npt.NDArray[np.uint8], region: Region, rows: int) -> npt.NDArray[np.int64]:
    """The offsets of a ragged output: where each row begins in its values, and where the last row ends."""
    assert region.offsets is not None, "only ragged outputs have offsets"
    return whole[region.offsets : region.offsets + 8 * (rows + 1)].view(np.int64)


def array_of(whole: npt.NDArray[np.uint8], output: Output, region: Region, rows: int) -> npt.NDArray[np.generic]:
    """The values of an output as an array over the bank: rows of its shape, or the bytes of a ragged output."""
    raw = whole[region.values : region.values + region.value_bytes]
    return raw if output.shape is None else raw.view(output.dtype).reshape(rows, *output.shape)
