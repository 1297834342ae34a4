"""How is a box of a decoded picture resized, converted to RGB and written as one crop of a batch?

`rgb` resizes RGB pixels. Where the box ends on whole pixels, the bytes equal those of Pillow when it resizes rows first
and columns second. (With fractional boxes, which Pillow stores as float32, one byte in a thousand may differ by one.
Pillow 13 may resize columns first; then no byte differs by more than one.)

`planes` resizes Y, Cb and Cr separately and converts the result to RGB. This differs from resizing a fully decoded
picture: on 4:2:0 photographs by half a level on average, and by up to 35 levels at colour edges, because a decoder
smooths chroma and clamps RGB to [0, 255] before the pixels are averaged.

Arguments of both:

    box             left, top, right, bottom in pixels (float64), inside the clip: the area that becomes the crop
    clip            left, top, right, bottom (int64): the pixels that may be read. The box itself if a crop is resized,
                    the whole picture if a resized picture is cropped
    flip            whether the crop is mirrored, left to right
    table           the value of each level of each channel (`colour_conversion.value_table`)
    shape           height and width in the batch
    channels_last   True for HWC, False for CHW
    scratch, out    uint8 arrays, aligned for the item types stored in them

Rows of a source may be longer than the picture; pixels outside of the clip are not read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.colour_conversion import JFIF, put, to_grey, to_rgb
from mx8shards.kernels.jit import helper
from mx8shards.kernels.memory import typed
from mx8shards.kernels.resample import carve, resize, resize_bytes, taps_bytes, whole_lanes

Array = npt.NDArray[Any]


@helper
def scratch_bytes(width: int, height: int, out_width: int, out_height: int) -> int:
    """Bytes of scratch that `planes` and `rgb` need for a picture of up to this size; monotonic in the size."""
    levels = 3 * whole_lanes(out_width) * out_height
    shape = out_height, out_width
    return levels + 2 * 64 + taps_bytes(width, height, shape) + resize_bytes(3 * width, height, shape)


@helper
def carve_levels(shape: tuple[int, int], scratch: Array) -> tuple[Array, Array]:
    """Three planes that `resize` writes to, taken from scratch, and the remaining scratch."""
    height, wide = shape[0], whole_lanes(shape[1])
    memory, rest = carve(scratch, 3 * height * wide)
    return memory.reshape(3, height, wide), rest


@helper
def resize_plane(
    sources: tuple[Array, Array, Array],
    part: int,
    factors: tuple[int, int],
    shifts: tuple[float, float],
    box: Array,
    clip: Array,
    flip: bool,
    shape: tuple[int, int],
    taps: Array,
    again: bool,
    scratch: Array,
    out: Array,
) -> None:
    """Resize a box of luma (part 0) or of both chroma planes (part 1) to `out`, which has one plane for each.

    `factors`: the number of luma samples per chroma sample, horizontally and vertically. `shifts`: how far a chroma
    sample lies from their centre, to the left and to the top, in chroma samples. `taps`, `again`: see `resize`.
    """
    memory, scratch = carve(scratch, 64)
    plane_box, plane_clip = typed(memory[:32], np.float64), typed(memory[32:], np.int64)
    for side in range(4):
        factor = factors[side % 2] if part == 1 else 1
        plane_box[side] = box[side] / factor + (shifts[side % 2] if part == 1 else 0.0)
        plane_clip[side] = clip[side] // factor if side < 2 else (clip[side] + factor - 1) // factor
    resize(sources, part, 1 + 2 * part, 1, plane_box, plane_clip, flip, shape, taps, again, scratch, out)


@helper
def planes(
    sources: tuple[Array, Array, Array],
    factors: tuple[int, int],
    box: Array,
    clip: Array,
    flip: bool,
    table: Array,
    shape: tuple[int, int],
    channels_last: bool,
    scratch: Array,
    out: Array,
) -> None:
    """Resize a box of Y, Cb and Cr planes, convert it to RGB, and write it to `out`.

    `factors`: the number of luma samples per chroma sample, horizontally and vertically. A chroma sample lies at their
    centre. The chroma planes of a grey picture have no rows.
    """
    levels, scratch = carve_levels(shape, scratch)
    taps, scratch = carve(scratch, _taps_bytes(clip, shape))
    grey = len(sources[1]) == 0
    for part in range(1 if grey else 2):  # luma, then both chroma planes
        out_planes = levels[part : 1 + 2 * part]
        resize_plane(sources, part, factors, (0.0, 0.0), box, clip, flip, shape, taps, False, scratch, out_planes)
    if grey:
        to_grey(levels)
    else:
        to_rgb(levels, JFIF)
    put(levels, shape, table, channels_last, out)


@helper
def _taps_bytes(clip: Array, shape: tuple[int, int]) -> int:
    """Bytes for the taps of a crop that reads these pixels."""
    return taps_bytes(clip[2] - clip[0], clip[3] - clip[1], shape)


@helper
def rgb(
    pixels: Array,
    box: Array,
    clip: Array,
    flip: bool,
    table: Array,
    shape: tuple[int, int],
    channels_last: bool,
    scratch: Array,
    out: Array,
) -> None:
    """Resize a box of RGB pixels as Pillow does, and write it to `out`."""
    levels, scratch = carve_levels(shape, scratch)
    taps, scratch = carve(scratch, _taps_bytes(clip, shape))
    rows = pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2])
    sources = rows, rows, rows
    resize(sources, 0, 1, pixels.shape[2], box, clip, flip, shape, taps, False, scratch, levels)
    put(levels, shape, table, channels_last, out)
