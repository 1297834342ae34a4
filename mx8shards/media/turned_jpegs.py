"""How are crops made of a JPEG that its EXIF data turn? No more of it is decoded than the tiles that they touch.

The boxes of all crops lie in the upright picture. What they need is found in the raster, decoded there, and turned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError
from mx8shards.format.picture_cost import check_cost
from mx8shards.kernels import jpeg, jpeg_tiles
from mx8shards.kernels.cuts import ALL
from mx8shards.kernels.decompress import coefficient_bytes
from mx8shards.media.decoding import Pixels, decode_jpeg
from mx8shards.media.turning import UPRIGHT, Part, in_raster, in_upright, turned, turned_size

Array = npt.NDArray[Any]

_PAD = 2  # pixels, at any scale, that chroma is smoothed over
_MOST_TILES = 0.9  # of a picture: tiles that are nearly all of it are not worth the copy


def orientation_of(payload: bytes, head: Any) -> int:
    """The orientation of a JPEG that the kernels know, whose head is read; 1, which is upright, for other payloads."""
    data = np.frombuffer(payload, np.uint8)
    return int(jpeg.orientation(data, head)) if jpeg.read_head(data, head) == jpeg.OK else UPRIGHT


def decode_turned(
    payload: bytes,
    head: Any,
    orientation: int,
    found: Array,
    exact: bool,
    cut: Any,
    ready: Callable[[int, int, int], None],
) -> Pixels:
    """Red, green and blue, upright, of the part that the boxes in `found` need; `cut` tells where that lies.

    `ready` is told height, width and how many bytes of memory will be taken, and may refuse that.
    """
    if head["colours"] in (jpeg.CMYK, jpeg.YCCK):
        raise DecodeError(expected="a JPEG in RGB or grey", found="one in CMYK")
    check_cost(payload)
    width, height = int(head["width"]), int(head["height"])
    whole = exact or head["colours"] != jpeg.YCBCR
    scale = 1 if whole else _scale(found, head, orientation)
    source, part = np.frombuffer(payload, np.uint8), Part(0, 0, width, height)
    if not whole and head["tiles"]:
        upright = _needed(found, scale * max(int(head["h"][0]), int(head["v"][0])), scale)
        source, part = _tiles(source, head, in_raster(upright, width, height, orientation), part)
    across, down = -(-(part.right - part.left) // scale), -(-(part.bottom - part.top) // scale)
    # the last pixel stands for fewer of the raster, perhaps, and is the first one of a mirrored picture
    covered = Part(part.left, part.top, part.left + across * scale, part.top + down * scale)
    lies = in_upright(covered, width, height, orientation)
    cut["left"], cut["top"], cut["scale"], cut["how"] = lies.left, lies.top, scale, ALL
    cut["width"], cut["height"] = lies.right - lies.left, lies.bottom - lies.top
    ready(
        *turned_size(across, down, orientation)[::-1],
        2 * 3 * across * down + len(source) + int(coefficient_bytes(head)),
    )
    pixels = decode_jpeg(source, down, across)
    if pixels.shape != (down, across, 3):
        raise DecodeError("a JPEG of another size than its head says")
    return turned(pixels, orientation)


def _scale(found: Array, head: Any, orientation: int) -> int:
    """How far the picture may be scaled down so that neither its crops nor their chroma are enlarged."""
    h, v = turned_size(head["h"][0], head["v"][0], orientation)
    scale = 8
    for box in found:
        across, down = _steps(box)
        while scale > 1 and (across < scale * h or down < scale * v):
            scale //= 2
    return scale


def _steps(box: Any) -> tuple[float, float]:
    """How many pixels of the picture make one of the crop, across and down."""
    return (box["right"] - box["left"]) / box["width"], (box["bottom"] - box["top"]) / box["height"]


def _needed(found: Array, coarse: int, scale: int) -> Part:
    """What the boxes look at, in the upright picture, if one sample of chroma stands for `coarse` pixels."""
    parts = []
    for box in found:
        across, down = (max(step, coarse) + coarse for step in _steps(box))
        parts.append(
            Part(
                max(int(box["low_x"]), math.floor(box["left"] - across)) - _PAD * scale,
                max(int(box["low_y"]), math.floor(box["top"] - down)) - _PAD * scale,
                min(int(box["high_x"]), math.ceil(box["right"] + across)) + _PAD * scale,
                min(int(box["high_y"]), math.ceil(box["bottom"] + down)) + _PAD * scale,
            )
        )
    lefts, tops, rights, bottoms = zip(*parts, strict=True)
    return Part(min(lefts), min(tops), max(rights), max(bottoms))


def _tiles(data: Pixels, head: Any, wanted: Part, whole: Part) -> tuple[Pixels, Part]:
    """A JPEG of the tiles that a part touches, and where they lie; the whole one if they are nearly all."""
    left, top = max(wanted.left, 0), max(wanted.top, 0)
    right, bottom = min(wanted.right, whole.right), min(wanted.bottom, whole.bottom)
    if (right - left) * (bottom - top) >= _MOST_TILES * whole.right * whole.bottom:
        return data, whole
    tiles = np.zeros(1, jpeg_tiles.TILES)
    if jpeg_tiles.tiles_for(data, head, left, top, right, bottom, tiles[0]) != jpeg.OK:
        return data, whole
    room = np.empty(int(head["entropy"] + tiles[0]["end"] - tiles[0]["begin"]) + 64, np.uint8)
    size = jpeg_tiles.splice(data, head, data, 0, tiles[0], room)
    if size <= 0:
        raise DecodeError(expected="tiles where the segment of tiles says", found="other bytes")
    left, top, width, height = (int(tiles[0][name]) for name in ("left", "top", "width", "height"))
    return room[:size], Part(left, top, left + width, top + height)
