"""How does a part of a picture become one picture of a batch?

`planes` resizes each plane on its own and makes colours of what comes out; `rgb` resizes pixels that are in colour
already, byte for byte as Pillow does. Of both, the picture is shared out by a box and read within a clip:

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

from mx8shards.kernels.colour import put, to_rgb
from mx8shards.kernels.jit import kernel
from mx8shards.kernels.resample import carve, resize, resize_bytes

Array = npt.NDArray[Any]


@kernel
def scratch_bytes(width: int, height: int, out_width: int, out_height: int) -> int:
    """Scratch for `planes` or `rgb` on a picture of up to this size. Never less for a larger picture."""
    return 3 * out_width * out_height + 64 + resize_bytes(width, height, out_width, out_height, 1)


@kernel
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
    height, width = shape
    memory, at = carve(scratch, 0, 3 * height * width)
    levels = memory.reshape(3, height, width)
    rest = scratch[at:]
    resize(sources[0], 1, box, clip, flip, rest, levels[:1])
    if len(sources[1]) == 0:
        levels[1] = levels[0]
        levels[2] = levels[0]
    else:
        memory, at = carve(rest, 0, 64)
        rest = rest[at:]
        chroma_box = memory[:32].view(np.float64)
        chroma_clip = memory[32:].view(np.int64)
        for side in range(4):
            factor = factors[side % 2]
            chroma_box[side] = box[side] / factor
            chroma_clip[side] = clip[side] // factor if side < 2 else (clip[side] + factor - 1) // factor
        resize(sources[1], 1, chroma_box, chroma_clip, flip, rest, levels[1:2])
        resize(sources[2], 1, chroma_box, chroma_clip, flip, rest, levels[2:])
        to_rgb(levels)
    put(levels, table, channels_last, out)


@kernel
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
    height, width = shape
    memory, at = carve(scratch, 0, 3 * height * width)
    levels = memory.reshape(3, height, width)
    resize(pixels.reshape(len(pixels), pixels.shape[1] * 3), 3, box, clip, flip, scratch[at:], levels)
    put(levels, table, channels_last, out)
