"""How is YCbCr converted to RGB, and RGB to the dtype and layout of a batch?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import BOOL, MEMORY, NOTHING, PAIR, array, helper, inner_kernel
from mx8shards.kernels.memory import typed

Array = npt.NDArray[Any]

# How planes of Y, Cb and Cr become RGB: the factor and the summand of luma, then the factors from Cr to red, from Cb to
# green, from Cr to green and from Cb to blue. The summand includes 0.5, because levels are truncated.
COLOUR_FIELDS = 6

# Full-range BT.601, as JFIF defines it.
JFIF = np.array([1, 0.5, 1.402, 0.344136286, 0.714136286, 1.772], np.float32)

CHROMA_ZERO = np.float32(128)
_ZERO = np.int32(0)
_MAX_LEVEL = np.int32(255)

_LEVELS, _TABLE = array(np.uint8, 3), array(np.uint32, 2)  # types
_COLOUR = array(np.float32, readonly=True)


def value_table(scale: Array, shift: Array, dtype: Any) -> Array:
    """The output value of each level of each channel: the bits of `level * scale + shift` as `dtype`, in a uint32."""
    values = np.arange(256) * np.asarray(scale, np.float64)[:, None] + np.asarray(shift, np.float64)[:, None]
    cells = np.ascontiguousarray(values.astype(dtype))
    return cells.view(f"u{cells.itemsize}").astype(np.uint32)


@helper
def level(value: Any) -> Any:
    """A number as a level, truncated and limited to 0 and 255."""
    return np.uint8(min(max(np.int32(value), _ZERO), _MAX_LEVEL))


@inner_kernel(NOTHING, _LEVELS, _COLOUR)
def to_rgb(planes: Array, colour: Array) -> None:
    """Convert planes from YCbCr to RGB in place, with these COLOUR_FIELDS numbers.

    In float32, because Numba widens products of small integers to 64 bits, which halves the vector width.
    """
    flat = planes.reshape((3, planes.shape[1] * planes.shape[2]))
    y, cb, cr = flat[0], flat[1], flat[2]
    scale, shift, cr_to_red, cb_to_green, cr_to_green, cb_to_blue = (
        colour[0],
        colour[1],
        colour[2],
        colour[3],
        colour[4],
        colour[5],
    )
    for i in range(np.uint64(len(y))):
        luma = np.float32(y[i]) * scale + shift
        blue = np.float32(cb[i]) - CHROMA_ZERO
        red = np.float32(cr[i]) - CHROMA_ZERO
        y[i] = level(luma + cr_to_red * red)
        cb[i] = level(luma - cb_to_green * blue - cr_to_green * red)
        cr[i] = level(luma + cb_to_blue * blue)


@helper
def to_grey(planes: Array) -> None:
    """Copy the first plane, luma, to the other two."""
    flat = planes.reshape((3, planes.shape[1] * planes.shape[2]))
    y, cb, cr = flat[0], flat[1], flat[2]
    for i in range(np.uint64(len(y))):
        cb[i] = y[i]
        cr[i] = y[i]


@helper
def _put_bytes(planes: Array, shape: tuple[int, int], channels_last: bool, out: Array) -> None:
    height, width = shape
    for y in range(height):
        if channels_last:
            red, green, blue = planes[0, y], planes[1, y], planes[2, y]
            row = out[3 * y * width : 3 * (y + 1) * width]
            for x in range(np.uint64(width)):
                row[np.uint64(3) * x] = red[x]
                row[np.uint64(3) * x + np.uint64(1)] = green[x]
                row[np.uint64(3) * x + np.uint64(2)] = blue[x]
        else:
            for channel in range(3):
                levels = planes[channel, y]
                row = out[(channel * height + y) * width : (channel * height + y + 1) * width]
                for x in range(np.uint64(width)):
                    row[x] = levels[x]


@helper
def _put_values(planes: Array, shape: tuple[int, int], table: Array, channels_last: bool, out: Array) -> None:
    height, width = shape
    step = np.uint64(3 if channels_last else 1)
    for channel in range(3):
        values = table[channel]
        for y in range(height):
            levels = planes[channel, y]
            row = out[3 * y * width + channel if channels_last else (channel * height + y) * width :]
            for x in range(np.uint64(width)):
                row[x * step] = values[levels[x]]


@inner_kernel(NOTHING, _LEVELS, PAIR, _TABLE, BOOL, array(np.uint16))
def _put_uint16(planes: Array, shape: tuple[int, int], table: Array, channels_last: bool, out: Array) -> None:
    _put_values(planes, shape, table, channels_last, out)


@inner_kernel(NOTHING, _LEVELS, PAIR, _TABLE, BOOL, array(np.uint32))
def _put_uint32(planes: Array, shape: tuple[int, int], table: Array, channels_last: bool, out: Array) -> None:
    _put_values(planes, shape, table, channels_last, out)


@inner_kernel(NOTHING, _LEVELS, PAIR, _TABLE, BOOL, MEMORY)
def put(planes: Array, shape: tuple[int, int], table: Array, channels_last: bool, out: Array) -> None:
    """Write planes of R, G and B to `out`: the levels if it has one byte per value, else values from the table."""
    size = len(out) // (3 * shape[0] * shape[1])
    if size == 1:
        _put_bytes(planes, shape, channels_last, out)
    elif size == 2:
        _put_uint16(planes, shape, table, channels_last, typed(out, np.uint16))
    else:
        _put_uint32(planes, shape, table, channels_last, typed(out, np.uint32))
