"""Which part of a picture is a crop made of?

A crop is a box in the picture, in pixels and fractions of them, that is resized to the crop's size. What is resized may
look beyond the box, but not beyond `clip`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import INT, NOTHING, array, helper, inner_kernel, record

Array = npt.NDArray[Any]

# What is asked for. RANDOM: a part of `scale` of the area and of a `ratio` of width to height. COVER: the largest box
# of the crop's shape, in the middle. NATIVE: the same, but no larger than the crop, so that pixels stay as large as
# they are. WITHIN: as if the shorter side were resized to `resize` first, and the middle cut out of that. WHOLE: all of
# it, as it is; what is made of it has its size, whatever the crop says.
RANDOM = 0
COVER = 1
NATIVE = 2
WITHIN = 3
WHOLE = 4

CROP = np.dtype(
    [
        ("kind", "i8"),
        ("height", "i8"),
        ("width", "i8"),
        ("resize", "i8"),
        ("scale_low", "f8"),
        ("scale_high", "f8"),
        ("ratio_low", "f8"),
        ("ratio_high", "f8"),
        ("flip", "f8"),
        ("upright", "i8"),  # 1: the box is one of the picture as its EXIF data turn it; the same for all crops
    ]
)

# One crop of one picture: a box, how far taps may reach, and whether it is mirrored.
BOX = np.dtype(
    [
        ("left", "f8"),
        ("top", "f8"),
        ("right", "f8"),
        ("bottom", "f8"),
        ("low_x", "i8"),
        ("low_y", "i8"),
        ("high_x", "i8"),
        ("high_y", "i8"),
        ("height", "i8"),  # of what is made of it
        ("width", "i8"),
        ("flip", "i8"),
    ]
)

TRIES = 10
DRAWS = 2 * TRIES + 3  # scale and ratio of each try, where it lies, and the flip


@inner_kernel(NOTHING, record(CROP), array(np.float64), INT, INT, record(BOX))
def find_box(crop: Any, draws: Array, width: Any, height: Any, box: Any) -> None:
    """The box of a crop in a picture of this size, by DRAWS numbers in [0, 1) where it is random."""
    box["height"], box["width"] = crop["height"], crop["width"]
    box["flip"] = 1 if draws[DRAWS - 1] < crop["flip"] else 0
    if crop["kind"] == RANDOM:
        _find_random(crop, draws, width, height, box)
        return
    if crop["kind"] == WHOLE:
        box["height"], box["width"] = height, width
        box["left"], box["top"], box["right"], box["bottom"] = 0.0, 0.0, width, height
    elif crop["kind"] == WITHIN:
        _find_within(crop, width, height, box)
    else:
        part = min(width / crop["width"], height / crop["height"])
        if crop["kind"] == NATIVE:
            part = min(part, 1.0)
        across, down = crop["width"] * part, crop["height"] * part
        left, top = (width - across) / 2, (height - down) / 2
        if part == 1.0:
            left, top = np.rint(left), np.rint(top)
        box["left"], box["top"], box["right"], box["bottom"] = left, top, left + across, top + down
    box["low_x"], box["low_y"], box["high_x"], box["high_y"] = 0, 0, width, height
    # what is computed in fractions may be a rounding beyond the picture
    box["left"], box["top"] = max(box["left"], 0.0), max(box["top"], 0.0)
    box["right"], box["bottom"] = min(box["right"], np.float64(width)), min(box["bottom"], np.float64(height))


@helper
def _find_within(crop: Any, width: Any, height: Any, box: Any) -> None:
    """torchvision's Resize(resize) and CenterCrop, at once: where the crop of the resized picture lies in this one."""
    resize = crop["resize"]
    if width <= height:
        across, down = resize, resize * height // width
    else:
        across, down = resize * width // height, resize
    left, top = np.rint((across - crop["width"]) / 2), np.rint((down - crop["height"]) / 2)
    box["left"], box["right"] = left * width / across, (left + crop["width"]) * width / across
    box["top"], box["bottom"] = top * height / down, (top + crop["height"]) * height / down


@helper
def _find_random(crop: Any, draws: Array, width: Any, height: Any, box: Any) -> None:
    """torchvision's RandomResizedCrop: ten tries, then the middle."""
    area = np.float64(width) * np.float64(height)
    low, high = math.log(crop["ratio_low"]), math.log(crop["ratio_high"])
    across, down = np.int64(0), np.int64(0)
    for i in range(TRIES):
        wanted = area * (crop["scale_low"] + draws[2 * i] * (crop["scale_high"] - crop["scale_low"]))
        ratio = math.exp(low + draws[2 * i + 1] * (high - low))
        w, h = np.int64(np.rint(math.sqrt(wanted * ratio))), np.int64(np.rint(math.sqrt(wanted / ratio)))
        if 0 < w <= width and 0 < h <= height:
            across, down = w, h
            break
    if across > 0:
        left = np.int64(draws[2 * TRIES] * (width - across + 1))
        top = np.int64(draws[2 * TRIES + 1] * (height - down + 1))
    else:
        across, down = np.int64(width), np.int64(height)
        if width < crop["ratio_low"] * height:
            down = max(np.int64(1), np.int64(np.rint(width / crop["ratio_low"])))
        elif width > crop["ratio_high"] * height:
            across = max(np.int64(1), np.int64(np.rint(height * crop["ratio_high"])))
        left, top = (width - across) // 2, (height - down) // 2
    box["left"], box["top"], box["right"], box["bottom"] = left, top, left + across, top + down
    box["low_x"], box["low_y"], box["high_x"], box["high_y"] = left, top, left + across, top + down
