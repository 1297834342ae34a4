"""Which box of a picture does a crop cover: random, centred, or the whole picture?

A crop's box has fractional pixel coordinates and is resized to the crop's size. The resampling filter may read pixels
outside of the box, but none outside of [low_x, high_x) and [low_y, high_y).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import INT, NOTHING, array, helper, inner_kernel, record

Array = npt.NDArray[Any]

# Kinds of crops.
# RANDOM  a box whose area is a random `scale` of the picture's, with a random `ratio` of width to height
# COVER   the largest centred box with the crop's aspect ratio
# NATIVE  as COVER, but the box is no larger than the crop: pixels are never scaled down
# WITHIN  the centre of the picture after its shorter side was resized to `resize`
# WHOLE   the whole picture in its own size; the crop's height and width are ignored
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
        ("upright", "i8"),  # 1: the box refers to the picture after its EXIF rotation; all crops of a stage agree
    ]
)

# The box of one crop in one picture, the limits of the pixels that the filter may read, and whether it is mirrored.
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
        ("height", "i8"),  # of the resized crop
        ("width", "i8"),
        ("flip", "i8"),
    ]
)

TRIES = 10
DRAWS = 2 * TRIES + 3  # scale and ratio of each try, then left, top and flip


@inner_kernel(NOTHING, record(CROP), array(np.float64), INT, INT, record(BOX))
def find_box(crop: Any, draws: Array, width: Any, height: Any, box: Any) -> None:
    """Compute the box of a crop in a picture of this size. `draws` holds DRAWS random numbers in [0, 1)."""
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
        factor = min(width / crop["width"], height / crop["height"])
        if crop["kind"] == NATIVE:
            factor = min(factor, 1.0)
        across, down = crop["width"] * factor, crop["height"] * factor
        left, top = (width - across) / 2, (height - down) / 2
        if factor == 1.0:
            left, top = np.rint(left), np.rint(top)
        box["left"], box["top"], box["right"], box["bottom"] = left, top, left + across, top + down
    box["low_x"], box["low_y"], box["high_x"], box["high_y"] = 0, 0, width, height
    # rounding errors may put the box slightly outside of the picture
    box["left"], box["top"] = max(box["left"], 0.0), max(box["top"], 0.0)
    box["right"], box["bottom"] = min(box["right"], np.float64(width)), min(box["bottom"], np.float64(height))


@helper
def _find_within(crop: Any, width: Any, height: Any, box: Any) -> None:
    """The box of torchvision's Resize(resize) followed by CenterCrop, in coordinates of the original picture."""
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
    """The box of torchvision's RandomResizedCrop: ten random tries, then a centred box."""
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
