"""What is the layout of a yuv420 payload: header, Y, Cb and Cr planes? (spec §15)

bytes 0–7     magic
bytes 8–15    height and width of the picture, uint32
then          Y, Cb and Cr, row by row; Y has its sides rounded up to even numbers, Cb and Cr have half of these
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import helper

Array = npt.NDArray[Any]

MAGIC = b"mx8yuv\x00\x01"
HEADER_BYTES = 16

_MAGIC = np.frombuffer(MAGIC, np.uint8)


@helper
def is_yuv420(data: Array) -> Any:
    """Whether a payload begins with a yuv420 header."""
    if len(data) < HEADER_BYTES:
        return False
    same = True
    for i in range(len(_MAGIC)):
        same = same and data[i] == _MAGIC[i]
    return same


@helper
def size_of(data: Array) -> Any:
    """Height and width of the picture; 0 and 0 if the payload does not have the size that they imply."""
    height, width = claimed_size(data)
    down, across = height + height % 2, width + width % 2
    fits = 0 < height <= len(data) and 0 < width <= len(data)  # products of larger sides could overflow
    if fits and len(data) == HEADER_BYTES + down * across + 2 * (down // 2) * (across // 2):
        return height, width
    return np.int64(0), np.int64(0)


@helper
def claimed_size(data: Array) -> Any:
    """Height and width from the header, unchecked."""
    return _uint32(data, 8), _uint32(data, 12)


@helper
def _uint32(data: Array, at: Any) -> Any:
    number = np.int64(0)
    for i in range(4):
        number |= np.int64(data[at + i]) << (8 * i)
    return number


@helper
def planes_of(data: Array, height: Any, width: Any) -> Any:
    """Y, Cb and Cr as arrays over the payload."""
    down, across = height + height % 2, width + width % 2
    blue = HEADER_BYTES + down * across
    red = blue + down * across // 4
    return (
        data[HEADER_BYTES:blue].reshape(down, across),
        data[blue:red].reshape(down // 2, across // 2),
        data[red:].reshape(down // 2, across // 2),
    )
