"""How do brightness and colour differences become red, green and blue, and those the numbers of a batch?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import kernel

Array = npt.NDArray[Any]

# Full-range BT.601, as JFIF has it, in 65,536ths.
_RED_OF_RED = np.int32(round(1.402 * 65536))
_GREEN_OF_BLUE = np.int32(round(0.344136286 * 65536))
_GREEN_OF_RED = np.int32(round(0.714136286 * 65536))
_BLUE_OF_BLUE = np.int32(round(1.772 * 65536))
_HALF = np.int32(1 << 15)
_BITS = np.int32(16)
_GREY = np.int32(128)


def value_table(scale: Array, shift: Array, dtype: Any) -> Array:
    """What stands in the output for each level of each channel: `level * scale + shift`, as the bits of its `dtype`."""
    values = np.arange(256) * np.asarray(scale, np.float64)[:, None] + np.asarray(shift, np.float64)[:, None]
    cells = np.ascontiguousarray(values.astype(dtype))
    return cells.view(f"u{cells.itemsize}").astype(np.uint32)


@kernel
def _level(value: Any) -> Any:
    return np.uint8(min(max(value >> _BITS, np.int32(0)), np.int32(255)))


@kernel
def to_rgb(planes: Array) -> None:
    """Y, Cb, Cr become R, G, B, in place."""
    luma, blue, red = planes[0].ravel(), planes[1].ravel(), planes[2].ravel()
    for i in range(np.uint64(len(luma))):
        y = (np.int32(luma[i]) << _BITS) + _HALF
        b = np.int32(blue[i]) - _GREY
        r = np.int32(red[i]) - _GREY
        luma[i] = _level(y + _RED_OF_RED * r)
        blue[i] = _level(y - _GREEN_OF_BLUE * b - _GREEN_OF_RED * r)
        red[i] = _level(y + _BLUE_OF_BLUE * b)


@kernel
def _fill(levels: Array, table: Array, step: int, out: Array) -> None:
    for i in range(np.uint64(len(levels))):
        out[i * np.uint64(step)] = table[levels[i]]


@kernel
def put(planes: Array, table: Array, channels_last: bool, out: Array) -> None:
    """The pixels of three planes, or one that stands for three, in the output's layout and type."""
    pixels = planes.shape[1] * planes.shape[2]
    size = len(out) // (3 * pixels)
    for channel in range(3):
        levels = planes[channel].ravel()
        start = channel * (1 if channels_last else pixels)
        step = 3 if channels_last else 1
        if size == 1:
            _fill(levels, table[channel], step, out[start:])
        elif size == 2:
            _fill(levels, table[channel], step, out.view(np.uint16)[start:])
        else:
            _fill(levels, table[channel], step, out.view(np.uint32)[start:])
