"""How does an EXIF orientation map a raster to the upright picture: pixels, sizes, rectangles?

The upright picture is made from the raster in two steps: orientations 2, 3, 7 and 8 mirror columns and 3, 4, 6 and 7
mirror rows; then orientations 5 to 8 transpose.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

UPRIGHT = 1

_MIRRORED_COLUMNS = frozenset((2, 3, 7, 8))
_MIRRORED_ROWS = frozenset((3, 4, 6, 7))
_TRANSPOSED = frozenset((5, 6, 7, 8))


class Part(NamedTuple):
    """A rectangle of a picture."""

    left: int
    top: int
    right: int
    bottom: int


def rotate(pixels: Pixels, orientation: int) -> Pixels:
    """The upright picture of a raster [H, W, 3], as a contiguous array."""
    if orientation in _MIRRORED_COLUMNS:
        pixels = pixels[:, ::-1]
    if orientation in _MIRRORED_ROWS:
        pixels = pixels[::-1]
    if orientation in _TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def rotated_size(width: Any, height: Any, orientation: int) -> tuple[int, int]:
    """Width and height of the upright picture of a raster."""
    return (int(height), int(width)) if orientation in _TRANSPOSED else (int(width), int(height))


def in_raster(part: Part, width: int, height: int, orientation: int) -> Part:
    """Map a rectangle of the upright picture to the raster, whose size is given."""
    left, top, right, bottom = part
    if orientation in _TRANSPOSED:
        left, top, right, bottom = top, left, bottom, right
    if orientation in _MIRRORED_COLUMNS:
        left, right = width - right, width - left
    if orientation in _MIRRORED_ROWS:
        top, bottom = height - bottom, height - top
    return Part(left, top, right, bottom)


def in_upright(part: Part, width: int, height: int, orientation: int) -> Part:
    """Map a rectangle of the raster, whose size is given, to the upright picture."""
    left, top, right, bottom = part
    if orientation in _MIRRORED_COLUMNS:
        left, right = width - right, width - left
    if orientation in _MIRRORED_ROWS:
        top, bottom = height - bottom, height - top
    if orientation in _TRANSPOSED:
        left, top, right, bottom = top, left, bottom, right
    return Part(left, top, right, bottom)
