"""How does a raster lie in the upright picture that its EXIF orientation asks for?

Of the eight orientations, 2, 3, 7 and 8 mirror the raster's columns, 3, 4, 6 and 7 its rows, and those from 5 on then
exchange columns and rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

UPRIGHT = 1

_MIRRORED_COLUMNS = frozenset((2, 3, 7, 8))
_MIRRORED_ROWS = frozenset((3, 4, 6, 7))
_EXCHANGED = frozenset((5, 6, 7, 8))


class Part(NamedTuple):
    """A rectangle of a picture."""

    left: int
    top: int
    right: int
    bottom: int


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """The upright picture of a raster [H, W, 3], contiguous."""
    if orientation in _MIRRORED_COLUMNS:
        pixels = pixels[:, ::-1]
    if orientation in _MIRRORED_ROWS:
        pixels = pixels[::-1]
    if orientation in _EXCHANGED:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def turned_size(width: Any, height: Any, orientation: int) -> tuple[int, int]:
    """Width and height of the upright picture."""
    return (int(height), int(width)) if orientation in _EXCHANGED else (int(width), int(height))


def in_raster(part: Part, width: int, height: int, orientation: int) -> Part:
    """Where a part of the upright picture lies in the raster, which has this size."""
    left, top, right, bottom = part
    if orientation in _EXCHANGED:
        left, top, right, bottom = top, left, bottom, right
    if orientation in _MIRRORED_COLUMNS:
        left, right = width - right, width - left
    if orientation in _MIRRORED_ROWS:
        top, bottom = height - bottom, height - top
    return Part(left, top, right, bottom)


def in_upright(part: Part, width: int, height: int, orientation: int) -> Part:
    """Where a part of the raster, which has this size, lies in the upright picture."""
    left, top, right, bottom = part
    if orientation in _MIRRORED_COLUMNS:
        left, right = width - right, width - left
    if orientation in _MIRRORED_ROWS:
        top, bottom = height - bottom, height - top
    if orientation in _EXCHANGED:
        left, top, right, bottom = top, left, bottom, right
    return Part(left, top, right, bottom)
