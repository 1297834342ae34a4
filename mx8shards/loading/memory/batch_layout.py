"""What does a batch consist of, and where in its bank does each part lie?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.stages import Output

_ALIGNMENT = 64


class Place(NamedTuple):
    """Where a key's values (and a ragged one's offsets) begin in the bank, and how many bytes of values it has."""

    values: int
    offsets: int | None
    value_bytes: int


class Layout(NamedTuple):
    """Where everything lies in a bank of `size_bytes`."""

    places: dict[str, Place]
    size_bytes: int


def lay_out(outputs: Mapping[str, Output], rows: int, ragged_bytes: Mapping[str, int]) -> Layout:
    """A place for each output, if the ragged ones have so many bytes in all rows."""
    places = {}
    at = 0
    for key, output in outputs.items():
        row_bytes = output.row_bytes
        offsets = None
        if row_bytes is None:
            offsets = at
            at = _aligned(at + 8 * (rows + 1))
        size = ragged_bytes[key] if row_bytes is None else rows * row_bytes
        places[key] = Place(at, offsets, size)
        at = _aligned(at + size)
    return Layout(places, at)


def most_bytes(outputs: Mapping[str, Output], rows: int, ragged_bytes: int) -> int:
    """What `lay_out` needs at most, if all ragged outputs together have so many bytes."""
    fixed = ragged = 0
    for output in outputs.values():
        row_bytes = output.row_bytes
        ragged += row_bytes is None
        fixed += 8 * (rows + 1) if row_bytes is None else rows * row_bytes
    return fixed + ragged_bytes + _ALIGNMENT * (len(outputs) + ragged)


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT) * _ALIGNMENT


def offsets_of(whole: npt.NDArray[np.uint8], place: Place, rows: int) -> npt.NDArray[np.int64]:
    """Where the rows of a ragged key begin among its values, and where the last one ends."""
    assert place.offsets is not None, "only ragged keys have them"
    return whole[place.offsets : place.offsets + 8 * (rows + 1)].view(np.int64)


def array_of(whole: npt.NDArray[np.uint8], output: Output, place: Place, rows: int) -> npt.NDArray[np.generic]:
    """A key's values as an array over the bank: rows of its shape, or all bytes of a ragged one."""
    raw = whole[place.values : place.values + place.value_bytes]
    return raw if output.shape is None else raw.view(output.dtype).reshape(rows, *output.shape)
