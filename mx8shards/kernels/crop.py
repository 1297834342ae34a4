"""How does a part of a picture become one picture of a batch?

`rgb` resizes pixels that are in colour, to the bytes that Pillow makes of them along the rows and then along the
columns, if the box ends on whole pixels. (Elsewhere Pillow knows the box in float32, and one byte in a thousand may be
one away. Asked for both directions, Pillow 13 may begin with the columns: then no byte is more than one away.)

`planes` resizes each plane on its own and makes colours of what comes out. That is not quite what is left of a full
decode that is resized: on photographs in 4:2:0 a level is half of one away on average, and up to 35 where colours end,
which a decoder smooths and cuts off at 0 and 255 before they are averaged.

Of both, the picture is shared out by a box and read within a clip:

    box             left, top, right, bottom in pixels (float64): what the new pixels share among them; within the clip
    clip            left, top, right, bottom (int64): what is read at all. The crop itself for a crop that is resized,
                    the whole picture for a resized picture that is cropped
    flip            whether left and right change sides
    table           what each level of each channel is in the batch (`colour.value_table`): it decides the type
    shape           height and width in the batch
    channels_last   whether a pixel's colours lie side by side
    scratch, out    bytes (uint8); both begin at an address that fits their numbers

Rows of a source may be longer than the picture: the clip ends what is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.colour_conversion import put, to_grey, to_rgb
from mx8shards.kernels.jit import helper
from mx8shards.kernels.memory import typed
from mx8shards.kernels.resample import carve, resize, resize_bytes, whole_lanes

Array = npt.NDArray[Any]


@helper
def scratch_bytes(width: int, height: int, out_width: int, out_height: int) -> int:
    """Scratch for `planes` or `rgb` on a picture of up to this size. Never less for a larger picture."""
    levels = 3 * whole_lanes(out_width) * out_height
    return levels + 2 * 64 + resize_bytes(3 * width, height, (out_height, out_width))


@helper
def _carve_levels(shape: tuple[int, int], scratch: Array) -> tuple[Array, Array]:
    """Three planes of scratch, which `resize` writes to, and the rest."""
    height, wide = shape[0], whole_lanes(shape[1])
    memory, rest = carve(scratch, 3 * height * wide)
    return memory.reshape(3, height, wide), rest


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
    """The box of a picture in Y, Cb and Cr, resized, then in colour, to `out`.

    One sample of Cb and Cr covers so many of Y across and down as `factors` say, and sits in their middle. A grey
    picture has no rows of them.
    """
    levels, scratch = _carve_levels(shape, scratch)
    memory, scratch = carve(scratch, 64)
    own_box, own_clip = typed(memory[:32], np.float64), typed(memory[32:], np.int64)
    grey = len(sources[1]) == 0
    for part in range(1 if grey else 2):  # brightness, then both colour differences
        for side in range(4):
            factor = factors[side % 2] if part == 1 else 1
            own_box[side] = box[side] / factor
            own_clip[side] = clip[side] // factor if side < 2 else (clip[side] + factor - 1) // factor
        resize(sources, part, 1 + 2 * part, 1, own_box, own_clip, flip, shape, scratch, levels[part : 1 + 2 * part])
    if grey:
        to_grey(levels)
    else:
        to_rgb(levels)
    put(levels, shape, table, channels_last, out)


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
    """The box of a picture in colour, resized as Pillow does it, to `out`."""
    levels, scratch = _carve_levels(shape, scratch)
    rows = pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2])
    sources = rows, rows, rows
    resize(sources, 0, 1, pixels.shape[2], box, clip, flip, shape, scratch, levels)
    put(levels, shape, table, channels_last, out)
