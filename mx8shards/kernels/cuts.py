"""What of a picture has to be decoded for its crops: tiles, a region or all of it, and at which scale?"""

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

# Where the rows of a crop lie in the bank: the address of the first, and that of their offsets, 0 if all are of one
# size; how many bytes each number has; whether channels come last.
TARGET = np.dtype([("address", "u8"), ("offsets", "u8"), ("item_bytes", "i8"), ("channels_last", "i8")])

# One crop that a thread makes of each picture: what is asked for, what each level of each channel becomes
# (`colour.value_table`), where it goes, and which box of the picture at hand it is.
JOB = np.dtype([("crop", CROP), ("values", "u4", (3, 256)), ("target", TARGET), ("box", BOX)])

# The part of a picture that is decoded: these of its pixels, at one `scale`-th of the size, and `how`.
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

# how a part of a picture is decoded
ALL = 0  # the part is the whole picture
TILES = 1  # its tiles are cut out first
REGION = 2  # the library skips what is around it

# What a thread has, beside memory. The kernels read `exact` and `regions`, and write all else.
WORKSPACE = np.dtype(
    [
        ("exact", "?"),  # colours are made before pixels are resized, not after
        ("regions", "?"),  # the library can decode a region
        ("head", HEAD),
        ("cut", CUT),
        ("planes", "i8", (3, 3)),  # where in scratch each plane begins, how long its rows are, and how many
    ],
    align=True,
)

OTHER = 102  # a status beside those of rows: it is no JPEG that kernels decode

PAD = 2  # pixels, at any scale, that chroma is smoothed over where it is made as fine as luma

_MOST_TILES = 0.9  # of a picture: tiles that are nearly all of it are not worth the copy
_MOST_REGION = 0.6  # of a picture: of a larger region, planes are made as soon as colours, and resized sooner


@kernel(NOTHING, BYTES, record(HEAD), array(JOB), array(np.float64, 2), BOOL, BOOL, INT, record(CUT))
def find_cut(
    data: Array, head: Record, jobs: Array, draws: Array, whole: Any, regions: Any, pad: Any, cut: Record
) -> None:
    """The box of each crop, and the part that has to be decoded for all of them, with `pad` pixels around it.

    `whole`: all of the picture, in its own size. `regions`: the library can decode one, where there are no tiles.
    """
    width, height = head["width"], head["height"]
    scale = _find_boxes(head, jobs, draws)
    cut["left"], cut["top"], cut["width"], cut["height"], cut["how"] = 0, 0, width, height, ALL
    cut["scale"] = 1 if whole else scale
    if whole or (head["tiles"] == 0 and not regions):
        return
    coarse_x, coarse_y = head["h"][0] * scale, head["v"][0] * scale  # pixels that one sample of chroma is made of
    left, top, right, bottom = width, height, 0, 0
    for k in range(len(jobs)):
        box = jobs[k]["box"]
        across, down = _steps(box)
        reach_x, reach_y = max(across, coarse_x) + coarse_x, max(down, coarse_y) + coarse_y
        left = min(left, max(box["low_x"], np.int64(np.floor(box["left"] - reach_x))) - pad * scale)
        top = min(top, max(box["low_y"], np.int64(np.floor(box["top"] - reach_y))) - pad * scale)
        right = max(right, min(box["high_x"], np.int64(np.ceil(box["right"] + reach_x))) + pad * scale)
        bottom = max(bottom, min(box["high_y"], np.int64(np.ceil(box["bottom"] + reach_y))) + pad * scale)
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    part = np.float64(right - left) * np.float64(bottom - top) / (np.float64(width) * np.float64(height))
    tiles = cut["tiles"]
    if head["tiles"] > 0 and part < _MOST_TILES and tiles_for(data, head, left, top, right, bottom, tiles) == OK:
        cut["left"], cut["top"] = tiles["left"], tiles["top"]
        cut["width"], cut["height"] = tiles["width"], tiles["height"]
        cut["how"] = TILES
    elif regions and part < _MOST_REGION:
        left -= left % head["mcu_width"]
        top -= top % head["mcu_height"]
        cut["left"], cut["top"], cut["width"], cut["height"] = left, top, right - left, bottom - top
        cut["how"] = REGION


@helper
def _find_boxes(head: Record, jobs: Array, draws: Array) -> Any:
    """The box of each crop, and how far the picture may be scaled down so that neither that nor chroma is enlarged."""
    scale = np.int64(8)
    for k in range(len(jobs)):
        box = jobs[k]["box"]
        find_box(jobs[k]["crop"], draws[k], head["width"], head["height"], box)
        across, down = _steps(box)
        while scale > 1 and (across < scale * head["h"][0] or down < scale * head["v"][0]):
            scale //= 2
    return scale


@helper
def _steps(box: Record) -> Any:
    """How many pixels of the picture make one of the crop, across and down."""
    return (box["right"] - box["left"]) / box["width"], (box["bottom"] - box["top"]) / box["height"]


@helper
def place_whole(width: Any, height: Any, jobs: Array, draws: Array, cut: Record) -> None:
    """The boxes of all crops in a picture of this size that was decoded whole."""
    for k in range(len(jobs)):
        find_box(jobs[k]["crop"], draws[k], width, height, jobs[k]["box"])
    cut["left"], cut["top"], cut["width"], cut["height"], cut["scale"], cut["how"] = 0, 0, width, height, 1, ALL


@helper
def scaled(length: Any, scale: Any) -> Any:
    """A number of pixels at one `scale`-th of the size."""
    return (length + scale - 1) // scale


@helper
def spliced_bytes(head: Record, cut: Record) -> Any:
    """Scratch for a JPEG of the tiles that are cut out."""
    return head["entropy"] + cut["tiles"]["end"] - cut["tiles"]["begin"] + 64 if cut["how"] == TILES else 0


@kernel(PAIR, BYTES, array(JOB), array(np.float64, 2), record(WORKSPACE), MEMORY)
def cut_out(data: Array, jobs: Array, draws: Array, workspace: Record, memory: Array) -> tuple[int, int]:
    """The part of a JPEG that a decoder which gives red, green and blue has to decode, if it is tiles.

    Returns how many bytes of scratch a JPEG of them has (0 if the part is all of `data`, below zero a status), and how
    many bytes of scratch are needed first, if there are too few.
    """
    head, cut = workspace["head"], workspace["cut"]
    if read_head(data, head) != OK:
        return -OTHER, 0
    if head["colours"] == CMYK or head["colours"] == YCCK or has_too_many_scans(data, head):
        return -REFUSED, 0
    find_cut(data, head, jobs, draws, workspace["exact"] or head["colours"] != YCBCR, False, PAD, cut)
    if cut["how"] != TILES:
        return 0, 0
    if spliced_bytes(head, cut) > len(memory):
        return 0, spliced_bytes(head, cut)
    size = splice(data, head, data, 0, cut["tiles"], memory)
    return size if size > 0 else -REFUSED, 0
