"""How do decoded pixels become all crops of a row, each in its place in the bank?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels import crop
from mx8shards.kernels.cuts import CUT, JOB, scaled
from mx8shards.kernels.jit import BOOL, INT, MEMORY, NOTHING, PAIR, array, helper, inner_kernel, kernel, record
from mx8shards.kernels.memory import load_int64, typed, view_bytes
from mx8shards.kernels.resample import PLANES, carve

Array = npt.NDArray[Any]
Record = Any

SIZE_BYTES = 8  # height and width, uint32, before the pixels of a row whose size only the picture tells

_PIXELS = array(np.uint8, 3, readonly=True)  # a type


@helper
def crop_bytes(jobs: Array, cut: Record) -> Any:
    """Scratch for the crop that needs most, once the pixels are there."""
    width, height = scaled(cut["width"], cut["scale"]), scaled(cut["height"], cut["scale"])
    most = 0
    for k in range(len(jobs)):
        most = max(most, crop.scratch_bytes(width, height, jobs[k]["box"]["width"], jobs[k]["box"]["height"]))
    return most + 128


@helper
def whole_bytes(height: Any, width: Any, item_bytes: Any) -> Any:
    """How long a row is that begins with its size: a multiple of eight."""
    return SIZE_BYTES + (3 * height * width * item_bytes + 7) // 8 * 8


@kernel(BOOL, array(JOB), INT)
def fits(jobs: Array, row: Any) -> Any:
    """Whether the bank has room for just these crops in this row: a picture may have changed since it was measured."""
    for k in range(len(jobs)):
        asked, target = jobs[k]["crop"], jobs[k]["target"]
        height, width = jobs[k]["box"]["height"], jobs[k]["box"]["width"]
        offsets = target["offsets"] + np.uint64(8 * row)
        if target["offsets"] == 0:
            if height != asked["height"] or width != asked["width"]:
                return False
        elif load_int64(offsets + np.uint64(8)) - load_int64(offsets) != whole_bytes(
            height, width, target["item_bytes"]
        ):
            return False
    return True


@helper
def _place_of(target: Record, box: Record, row: Any) -> Any:
    """The address of a crop's place in the bank, and how many bytes it has."""
    size = 3 * box["height"] * box["width"] * target["item_bytes"]
    address = target["address"] + np.uint64(row * size)
    if target["offsets"] != 0:
        begin = target["address"] + np.uint64(load_int64(target["offsets"] + np.uint64(8 * row)))
        sides = typed(view_bytes(begin, SIZE_BYTES), np.uint32)
        sides[0], sides[1] = box["height"], box["width"]
        address = begin + np.uint64(SIZE_BYTES)
    return address, size


@helper
def _shift(box: Record, cut: Record, memory: Array) -> Any:
    """A box of the picture and its clip, in pixels of the part of it that was decoded."""
    words, memory = carve(memory, 64)
    corners, clip = typed(words[:32], np.float64), typed(words[32:], np.int64)
    scale = np.float64(cut["scale"])
    corners[0], corners[1] = (box["left"] - cut["left"]) / scale, (box["top"] - cut["top"]) / scale
    corners[2], corners[3] = (box["right"] - cut["left"]) / scale, (box["bottom"] - cut["top"]) / scale
    clip[0] = max(0, np.int64(np.floor((box["low_x"] - cut["left"]) / scale)))
    clip[1] = max(0, np.int64(np.floor((box["low_y"] - cut["top"]) / scale)))
    clip[2] = scaled(min(cut["width"], box["high_x"] - cut["left"]), cut["scale"])
    clip[3] = scaled(min(cut["height"], box["high_y"] - cut["top"]), cut["scale"])
    return corners, clip, memory


@inner_kernel(NOTHING, PLANES, PAIR, record(CUT), array(JOB), INT, MEMORY)
def crop_planes(
    sources: tuple[Array, Array, Array], factors: tuple[int, int], cut: Record, jobs: Array, row: Any, memory: Array
) -> None:
    """All crops of planes, into their places."""
    for k in range(len(jobs)):
        job = jobs[k]
        box, target = job["box"], job["target"]
        corners, clip, rest = _shift(box, cut, memory)
        shape, last = (box["height"], box["width"]), target["channels_last"] == 1
        out = view_bytes(*_place_of(target, box, row))
        crop.planes(sources, factors, corners, clip, box["flip"] == 1, job["values"][:], shape, last, rest, out)


@kernel(NOTHING, _PIXELS, record(CUT), array(JOB), INT, MEMORY)
def crop_rgb(pixels: Array, cut: Record, jobs: Array, row: Any, memory: Array) -> None:
    """All crops of pixels in red, green and blue, into their places."""
    for k in range(len(jobs)):
        job = jobs[k]
        box, target = job["box"], job["target"]
        corners, clip, rest = _shift(box, cut, memory)
        shape, last = (box["height"], box["width"]), target["channels_last"] == 1
        out = view_bytes(*_place_of(target, box, row))
        crop.rgb(pixels, corners, clip, box["flip"] == 1, job["values"][:], shape, last, rest, out)
