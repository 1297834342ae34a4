"""Which part of a JPEG has to be decoded for its crops: tiles, a region or the whole picture, and at which scale?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.boxes import BOX, CROP, find_box
from mx8shards.kernels.jit import BOOL, BYTES, INT, MEMORY, NOTHING, PAIR, array, helper, kernel, record
from mx8shards.kernels.jpeg import CMYK, HEAD, OK, YCBCR, YCCK, has_too_many_scans, read_head
from mx8shards.kernels.jpeg_tiles import TILES as TILES_FOUND
from mx8shards.kernels.jpeg_tiles import splice, tiles_for
from mx8shards.kernels.records import REFUSED

Array = npt.NDArray[Any]
Record = Any

# Where the rows of a crop lie in the bank: the address of the first row; the address of the offsets, or 0 if all rows
# have one size; the size of a value; 1 for HWC, 0 for CHW.
TARGET = np.dtype([("address", "u8"), ("offsets", "u8"), ("item_bytes", "i8"), ("channels_last", "i8")])

# One crop that a thread makes of each picture: its settings, its value table (`colour_conversion.value_table`), its
# place in the bank, and its box in the current picture.
JOB = np.dtype([("crop", CROP), ("values", "u4", (3, 256)), ("target", TARGET), ("box", BOX)])

# The part of a picture that is decoded: a rectangle in pixels of the full size, the divisor of the size at which it is
# decoded (1, 2, 4 or 8), and how it is decoded.
CUT = np.dtype(
    [
        ("left", "i8"),
        ("top", "i8"),
        ("width", "i8"),
        ("height", "i8"),
        ("scale", "i8"),
        ("how", "i8"),
        ("tiles", TILES_FOUND),
    ]
)

# Values of `how`.
ALL = 0  # the whole picture
TILES = 1  # a JPEG that is spliced from the tiles
REGION = 2  # a region, by a library that skips the rest

# A thread's memory in addition to scratch. Kernels read `exact` and `regions`, and write the other fields.
WORKSPACE = np.dtype(
    [
        ("exact", "?"),  # pixels are converted to RGB before they are resized, not after
        ("regions", "?"),  # libturbojpeg can decode a region
        ("head", HEAD),
        ("cut", CUT),
        ("planes", "i8", (3, 3)),  # of each plane: offset in scratch, stride, number of rows
    ],
    align=True,
)

OTHER = 102  # a status in addition to those of rows: kernels do not decode this format

PAD = 2  # pixels, at any scale: the decoder's chroma upsampling reads neighbours up to this far away

_MOST_TILES = 0.9  # of a picture's area: beyond that, splicing tiles saves less than it costs
_MOST_REGION = 0.6  # of a picture's area: beyond that, planes of the whole picture are faster than RGB of the region


@kernel(NOTHING, BYTES, record(HEAD), array(JOB), array(np.float64, 2), BOOL, BOOL, INT, record(CUT))
def find_cut(
    data: Array, head: Record, jobs: Array, draws: Array, full_size: Any, regions: Any, pad: Any, cut: Record
) -> None:
    """Find the box of each crop, and the part of the picture that covers all of them with `pad` pixels around them.

    `full_size`: take the whole picture at scale 1. `regions`: the library can decode a region of a JPEG without tiles.
    """
    width, height = head["width"], head["height"]
    scale = _find_boxes(head, jobs, draws)
    cut["left"], cut["top"], cut["width"], cut["height"], cut["how"] = 0, 0, width, height, ALL
    cut["scale"] = 1 if full_size else scale
    if full_size or (head["tiles"] == 0 and not regions):
        return
    coarse_x, coarse_y = head["h"][0] * scale, head["v"][0] * scale  # pixels per chroma sample
    left, top, right, bottom = width, height, 0, 0
    for k in range(len(jobs)):
        box = jobs[k]["box"]
        across, down = _pixel_ratios(box)
        reach_x, reach_y = max(across, coarse_x) + coarse_x, max(down, coarse_y) + coarse_y
        left = min(left, max(box["low_x"], np.int64(np.floor(box["left"] - reach_x))) - pad * scale)
        top = min(top, max(box["low_y"], np.int64(np.floor(box["top"] - reach_y))) - pad * scale)
        right = max(right, min(box["high_x"], np.int64(np.ceil(box["right"] + reach_x))) + pad * scale)
        bottom = max(bottom, min(box["high_y"], np.int64(np.ceil(box["bottom"] + reach_y))) + pad * scale)
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    fraction = np.float64(right - left) * np.float64(bottom - top) / (np.float64(width) * np.float64(height))
    tiles = cut["tiles"]
    if head["tiles"] > 0 and fraction < _MOST_TILES and tiles_for(data, head, left, top, right, bottom, tiles) == OK:
        cut["left"], cut["top"] = tiles["left"], tiles["top"]
        cut["width"], cut["height"] = tiles["width"], tiles["height"]
        cut["how"] = TILES
    elif regions and fraction < _MOST_REGION:
        left -= left % head["mcu_width"]
        top -= top % head["mcu_height"]
        cut["left"], cut["top"], cut["width"], cut["height"] = left, top, right - left, bottom - top
        cut["how"] = REGION


@helper
def _find_boxes(head: Record, jobs: Array, draws: Array) -> Any:
    """Find the box of each crop; return the largest scale at which neither a crop nor its chroma is enlarged."""
    scale = np.int64(8)
    for k in range(len(jobs)):
        box = jobs[k]["box"]
        find_box(jobs[k]["crop"], draws[k], head["width"], head["height"], box)
        across, down = _pixel_ratios(box)
        while scale > 1 and (across < scale * head["h"][0] or down < scale * head["v"][0]):
            scale //= 2
    return scale


@helper
def _pixel_ratios(box: Record) -> Any:
    """Pixels of the picture per pixel of the crop, horizontally and vertically."""
    return (box["right"] - box["left"]) / box["width"], (box["bottom"] - box["top"]) / box["height"]


@helper
def cut_whole(width: Any, height: Any, jobs: Array, draws: Array, cut: Record) -> None:
    """Find the box of each crop in a picture of this size that is decoded as a whole, at scale 1."""
    for k in range(len(jobs)):
        find_box(jobs[k]["crop"], draws[k], width, height, jobs[k]["box"])
    cut["left"], cut["top"], cut["width"], cut["height"], cut["scale"], cut["how"] = 0, 0, width, height, 1, ALL


@helper
def scaled(length: Any, scale: Any) -> Any:
    """`length` in pixels, divided by `scale` and rounded up."""
    return (length + scale - 1) // scale


@helper
def spliced_bytes(head: Record, cut: Record) -> Any:
    """Bytes of scratch for the JPEG that is spliced from tiles; 0 if the cut is not made of tiles."""
    return head["entropy"] + cut["tiles"]["end"] - cut["tiles"]["begin"] + 64 if cut["how"] == TILES else 0


@kernel(PAIR, BYTES, array(JOB), array(np.float64, 2), record(WORKSPACE), MEMORY)
def splice_crops(data: Array, jobs: Array, draws: Array, workspace: Record, scratch: Array) -> tuple[int, int]:
    """Splice the tiles that the crops need into a JPEG in scratch, for a decoder to RGB.

    Returns the size of that JPEG (0: decode `data` itself; negative: a status), and the number of bytes of scratch that
    this needs if `scratch` is too small, else 0.
    """
    head, cut = workspace["head"], workspace["cut"]
    if read_head(data, head) != OK:
        return -OTHER, 0
    if head["colours"] == CMYK or head["colours"] == YCCK or has_too_many_scans(data, head):
        return -REFUSED, 0
    find_cut(data, head, jobs, draws, workspace["exact"] or head["colours"] != YCBCR, False, PAD, cut)
    if cut["how"] != TILES:
        return 0, 0
    if spliced_bytes(head, cut) > len(scratch):
        return 0, spliced_bytes(head, cut)
    size = splice(data, head, data, 0, cut["tiles"], scratch)
    return size if size > 0 else -REFUSED, 0
