"""How are the crops of a row made from decoded pixels and written to the bank?"""

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

SIZE_BYTES = 8  # height and width, uint32, before the pixels of a picture in a ragged column

_PIXELS = array(np.uint8, 3, readonly=True)  # a type


@helper
def crop_bytes(jobs: Array, cut: Record) -> Any:
    """Bytes of scratch that making the crops needs beside the decoded pixels: those of the largest crop."""
    width, height = scaled(cut["width"], cut["scale"]), scaled(cut["height"], cut["scale"])
    most = 0
    for k in range(len(jobs)):
        most = max(most, crop.scratch_bytes(width, height, jobs[k]["box"]["width"], jobs[k]["box"]["height"]))
    return most + 128


@helper
def whole_bytes(height: Any, width: Any, item_bytes: Any) -> Any:
    """The size of a row of a ragged column in bytes, with its height and width; a multiple of eight."""
    return SIZE_BYTES + (3 * height * width * item_bytes + 7) // 8 * 8


@kernel(BOOL, array(JOB), INT)
def fits(jobs: Array, row: Any) -> Any:
    """Whether this row of the bank has the size of these crops: the file may have changed since it was measured."""
    for k in range(len(jobs)):
        settings, target = jobs[k]["crop"], jobs[k]["target"]
        height, width = jobs[k]["box"]["height"], jobs[k]["box"]["width"]
        offsets = target["offsets"] + np.uint64(8 * row)
        if target["offsets"] == 0:
            if height != settings["height"] or width != settings["width"]:
                return False
        elif load_int64(offsets + np.uint64(8)) - load_int64(offsets) != whole_bytes(
            height, width, target["item_bytes"]
        ):
            return False
    return True


@helper
def _crop_memory(target: Record, box: Record, row: Any) -> Any:
    """The address of a crop's pixels in the bank, and their bytes. In a ragged column, write its sides first."""
    size = 3 * box["height"] * box["width"] * target["item_bytes"]
    address = target["address"] + np.uint64(row * size)
    if target["offsets"] != 0:
        begin = target["address"] + np.uint64(load_int64(target["offsets"] + np.uint64(8 * row)))
        sides = typed(view_bytes(begin, SIZE_BYTES), np.uint32)
        sides[0], sides[1] = box["height"], box["width"]
        address = begin + np.uint64(SIZE_BYTES)
    return address, size


@helper
def _to_decoded(box: Record, cut: Record, scratch: Array) -> Any:
    """Convert a box and its clip to pixel coordinates of the decoded part; they are stored in scratch."""
    words, scratch = carve(scratch, 64)
    corners, clip = typed(words[:32], np.float64), typed(words[32:], np.int64)
    scale = np.float64(cut["scale"])
    corners[0], corners[1] = (box["left"] - cut["left"]) / scale, (box["top"] - cut["top"]) / scale
    corners[2], corners[3] = (box["right"] - cut["left"]) / scale, (box["bottom"] - cut["top"]) / scale
    clip[0] = max(0, np.int64(np.floor((box["low_x"] - cut["left"]) / scale)))
    clip[1] = max(0, np.int64(np.floor((box["low_y"] - cut["top"]) / scale)))
    clip[2] = scaled(min(cut["width"], box["high_x"] - cut["left"]), cut["scale"])
    clip[3] = scaled(min(cut["height"], box["high_y"] - cut["top"]), cut["scale"])
    return corners, clip, scratch


@inner_kernel(NOTHING, PLANES, PAIR, record(CUT), array(JOB), INT, MEMORY)
def crop_planes(
    sources: tuple[Array, Array, Array], factors: tuple[int, int], cut: Record, jobs: Array, row: Any, scratch: Array
) -> None:
    """Write all crops of a row, from planes of Y, Cb and Cr."""
    for k in range(len(jobs)):
        job = jobs[k]
        box, target = job["box"], job["target"]
        corners, clip, rest = _to_decoded(box, cut, scratch)
        shape, last = (box["height"], box["width"]), target["channels_last"] == 1
        out = view_bytes(*_crop_memory(target, box, row))
        crop.planes(sources, factors, corners, clip, box["flip"] == 1, job["values"][:], shape, last, rest, out)


@kernel(NOTHING, _PIXELS, record(CUT), array(JOB), INT, MEMORY)
def crop_rgb(pixels: Array, cut: Record, jobs: Array, row: Any, scratch: Array) -> None:
    """Write all crops of a row, from RGB pixels."""
    for k in range(len(jobs)):
        job = jobs[k]
        box, target = job["box"], job["target"]
        corners, clip, rest = _to_decoded(box, cut, scratch)
        shape, last = (box["height"], box["width"]), target["channels_last"] == 1
        out = view_bytes(*_crop_memory(target, box, row))
        crop.rgb(pixels, corners, clip, box["flip"] == 1, job["values"][:], shape, last, rest, out)
