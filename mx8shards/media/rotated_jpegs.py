"""How is a JPEG with an EXIF rotation decoded for crops with `upright=True`? Only the tiles that the crops touch.

The boxes of the crops refer to the upright picture. The part that they need is mapped to the raster, decoded there, and
rotated.
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
from mx8shards.media.exif_rotation import UPRIGHT, Part, in_raster, in_upright, rotate, rotated_size

Array = npt.NDArray[Any]

_PAD = 2  # pixels, at any scale: the decoder's chroma upsampling reads neighbours up to this far away
_MOST_TILES = 0.9  # of a picture's area: beyond that, splicing tiles saves less than it costs


def orientation_of(payload: bytes, head: Any) -> int:
    """The EXIF orientation of a JPEG that kernels know; UPRIGHT for other payloads. `head` receives the JPEG's head."""
    data = np.frombuffer(payload, np.uint8)
    return int(jpeg.orientation(data, head)) if jpeg.read_head(data, head) == jpeg.OK else UPRIGHT


def decode_rotated(
    payload: bytes,
    head: Any,
    orientation: int,
    boxes: Array,
    exact: bool,
    cut: Any,
    reserve: Callable[[int, int, int], None],
) -> Pixels:
    """Decode the part that the boxes need to RGB and rotate it; `cut` receives its position in the upright picture.

    `reserve(height, width, size_bytes)` is called before memory is allocated, and may raise to refuse the picture.
    """
    if head["colours"] in (jpeg.CMYK, jpeg.YCCK):
        raise DecodeError(expected="a JPEG in RGB or grey", found="one in CMYK")
    check_cost(payload)
    width, height = int(head["width"]), int(head["height"])
    full_size = exact or head["colours"] != jpeg.YCBCR
    scale = 1 if full_size else _scale(boxes, head, orientation)
    source, part = np.frombuffer(payload, np.uint8), Part(0, 0, width, height)
    if not full_size and head["tiles"]:
        upright = _needed_part(boxes, scale * max(int(head["h"][0]), int(head["v"][0])), scale)
        source, part = _splice_tiles(source, head, in_raster(upright, width, height, orientation), part)
    across, down = -(-(part.right - part.left) // scale), -(-(part.bottom - part.top) // scale)
    # The last decoded pixel may cover less than `scale` pixels of the raster. In a mirrored picture it is the first
    # one, so the part is extended to whole decoded pixels before it is mapped.
    covered = Part(part.left, part.top, part.left + across * scale, part.top + down * scale)
    mapped = in_upright(covered, width, height, orientation)
    cut["left"], cut["top"], cut["scale"], cut["how"] = mapped.left, mapped.top, scale, ALL
    cut["width"], cut["height"] = mapped.right - mapped.left, mapped.bottom - mapped.top
    reserve(
        *rotated_size(across, down, orientation)[::-1],
        2 * 3 * across * down + len(source) + int(coefficient_bytes(head)),
    )
    pixels = decode_jpeg(source, down, across)
    if pixels.shape != (down, across, 3):
        raise DecodeError("the JPEG has another size than its head declares")
    return rotate(pixels, orientation)


def _scale(boxes: Array, head: Any, orientation: int) -> int:
    """The largest scale divisor at which neither the crops nor their chroma are enlarged."""
    h, v = rotated_size(head["h"][0], head["v"][0], orientation)
    scale = 8
    for box in boxes:
        across, down = _pixel_ratios(box)
        while scale > 1 and (across < scale * h or down < scale * v):
            scale //= 2
    return scale


def _pixel_ratios(box: Any) -> tuple[float, float]:
    """Pixels of the picture per pixel of the crop, horizontally and vertically."""
    return (box["right"] - box["left"]) / box["width"], (box["bottom"] - box["top"]) / box["height"]


def _needed_part(boxes: Array, coarse: int, scale: int) -> Part:
    """The part of the upright picture that the boxes need, if one chroma sample covers `coarse` pixels."""
    parts = []
    for box in boxes:
        across, down = (max(ratio, coarse) + coarse for ratio in _pixel_ratios(box))
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


def _splice_tiles(data: Pixels, head: Any, wanted: Part, whole: Part) -> tuple[Pixels, Part]:
    """A JPEG of the tiles that a part touches, and their rectangle; the whole JPEG if they are nearly all of it."""
    left, top = max(wanted.left, 0), max(wanted.top, 0)
    right, bottom = min(wanted.right, whole.right), min(wanted.bottom, whole.bottom)
    if (right - left) * (bottom - top) >= _MOST_TILES * whole.right * whole.bottom:
        return data, whole
    tiles = np.zeros(1, jpeg_tiles.TILES)
    if jpeg_tiles.tiles_for(data, head, left, top, right, bottom, tiles[0]) != jpeg.OK:
        return data, whole
    out = np.empty(int(head["entropy"] + tiles[0]["end"] - tiles[0]["begin"]) + 64, np.uint8)
    size = jpeg_tiles.splice(data, head, data, 0, tiles[0], out)
    if size <= 0:
        raise DecodeError(expected="a JPEG whose tile index matches its data", found="tiles at other offsets")
    left, top, width, height = (int(tiles[0][name]) for name in ("left", "top", "width", "height"))
    return out[:size], Part(left, top, left + width, top + height)
