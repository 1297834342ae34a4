"""How are the planes of a decoded video frame cropped, resized, rotated and converted to RGB?

A frame is cropped and resized in its stored orientation. The result, which is small, is then turned to the orientation
in which the video is shown. A crop that is not resized takes another way: its chroma is not rounded before it becomes
RGB, so that it differs from swscale's accurate mode by two levels at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.boxes import BOX, CROP, find_box
from mx8shards.kernels.colour_conversion import CHROMA_ZERO, COLOUR_FIELDS, level, put, to_rgb
from mx8shards.kernels.crop import carve_levels, resize_plane, scratch_bytes
from mx8shards.kernels.jit import BOOL, INT, MEMORY, NOTHING, PAIR, array, helper, inner_kernel, kernel, record
from mx8shards.kernels.memory import typed
from mx8shards.kernels.resample import PLANES, carve, taps_bytes, whole_lanes

Array = npt.NDArray[Any]
Record = Any

# How the planes of a video's frames are laid out and shown. `across` and `down`: luma samples per chroma sample.
# `shift_x`, `shift_y`: how far a chroma sample lies from their centre, to the left and to the top, in chroma samples.
# `turns`: quarter turns clockwise until the frame is shown. `colour`: see `colour_conversion`.
FRAME = np.dtype(
    [
        ("width", "i8"),
        ("height", "i8"),
        ("across", "i8"),
        ("down", "i8"),
        ("shift_x", "f8"),
        ("shift_y", "f8"),
        ("turns", "i8"),
        ("colour", "f4", (COLOUR_FIELDS,)),
    ],
    align=True,
)

_NO_COLOUR = 128  # the chroma level of grey
_LEVELS, _TABLE = array(np.uint8, 3), array(np.uint32, 2)


@kernel(INT, record(FRAME), record(BOX))
def frame_scratch_bytes(frame: Record, box: Record) -> Any:
    """Bytes of scratch that `crop_frame` and `crop_frame_planes` need."""
    height, width = _stored_shape(frame, box)
    levels = 3 * whole_lanes(box["width"]) * box["height"] + 3 * whole_lanes(width) * height
    taps = 2 * taps_bytes(frame["width"], frame["height"], (height, width))
    return scratch_bytes(frame["width"], frame["height"], width, height) + levels + taps + 8 * 64


@helper
def _carve_taps(frame: Record, shape: tuple[int, int], scratch: Array) -> tuple[Array, Array, Array]:
    """Memory for the taps of luma and of chroma, and the remaining scratch."""
    size = taps_bytes(frame["width"], frame["height"], shape)
    luma, scratch = carve(scratch, size)
    chroma, scratch = carve(scratch, size)
    return luma, chroma, scratch


@kernel(NOTHING, record(CROP), array(np.float64), record(FRAME), record(BOX))
def find_frame_box(crop: Record, draws: Array, frame: Record, box: Record) -> None:
    """Find the box of a crop in the frame as it is shown. `draws`: DRAWS random numbers."""
    if frame["turns"] % 2 == 1:
        find_box(crop, draws, frame["height"], frame["width"], box)
    else:
        find_box(crop, draws, frame["width"], frame["height"], box)


@helper
def _stored_shape(frame: Record, box: Record) -> Any:
    """Height and width of the crop before it is turned."""
    if frame["turns"] % 2 == 1:
        return box["width"], box["height"]
    return box["height"], box["width"]


@helper
def _stored_box(frame: Record, box: Record, corners: Array, clip: Array) -> None:
    """The box and its clip in the frame as it is stored."""
    left, top, right, bottom = box["left"], box["top"], box["right"], box["bottom"]
    low_x, low_y, high_x, high_y = box["low_x"], box["low_y"], box["high_x"], box["high_y"]
    width, height = frame["width"], frame["height"]
    if frame["turns"] == 1:
        left, top, right, bottom = top, height - right, bottom, height - left
        low_x, low_y, high_x, high_y = low_y, height - high_x, high_y, height - low_x
    elif frame["turns"] == 2:
        left, top, right, bottom = width - right, height - bottom, width - left, height - top
        low_x, low_y, high_x, high_y = width - high_x, height - high_y, width - low_x, height - low_y
    elif frame["turns"] == 3:
        left, top, right, bottom = width - bottom, left, width - top, right
        low_x, low_y, high_x, high_y = width - high_y, low_x, width - low_y, high_x
    corners[0], corners[1], corners[2], corners[3] = left, top, right, bottom
    clip[0], clip[1], clip[2], clip[3] = low_x, low_y, high_x, high_y


@inner_kernel(NOTHING, array(np.uint8, 2), INT, INT, INT, BOOL, array(np.uint8, 2))
def _turn(plane: Array, height: Any, width: Any, turns: Any, flip: Any, out: Array) -> None:
    """Turn `height` rows of `width` levels clockwise into `out`, then mirror them if `flip`."""
    rows, columns = (width, height) if turns % 2 == 1 else (height, width)
    for y in range(rows):
        for x in range(columns):
            to = columns - 1 - x if flip else x
            if turns == 1:
                out[y, to] = plane[height - 1 - x, y]
            elif turns == 2:
                out[y, to] = plane[height - 1 - y, width - 1 - x]
            else:
                out[y, to] = plane[x, width - 1 - y]


@helper
def _is_unscaled(corners: Array, shape: tuple[int, int]) -> Any:
    """Whether a box covers whole pixels, as many as its crop has."""
    left, top = corners[0], corners[1]
    whole = left == np.floor(left) and top == np.floor(top)
    return whole and corners[2] - left == shape[1] and corners[3] - top == shape[0]


@helper
def _neighbours(at: Any, factor: Any, shift: Any, low: Any, high: Any) -> Any:
    """The chroma samples on both sides of a luma sample, within [low, high), and the weight of the second."""
    place = np.float32((at + 0.5) / factor + shift - 0.5)
    first = np.int64(np.floor(place))
    weight = place - np.float32(first)
    return min(max(first, low), high - 1), min(max(first + 1, low), high - 1), weight


@inner_kernel(NOTHING, PLANES, record(FRAME), array(np.float64), array(np.int64), BOOL, PAIR, _LEVELS)
def _convert_unscaled(
    sources: tuple[Array, Array, Array],
    frame: Record,
    corners: Array,
    clip: Array,
    flip: Any,
    shape: tuple[int, int],
    levels: Array,
) -> None:
    """Convert a box that is not resized to RGB; chroma is interpolated linearly, in float32."""
    across, down = frame["across"], frame["down"]
    left, top, colour = np.int64(corners[0]), np.int64(corners[1]), frame["colour"]
    low_x, high_x = clip[0] // across, (clip[2] + across - 1) // across
    low_y, high_y = clip[1] // down, (clip[3] + down - 1) // down
    for y in range(shape[0]):
        above, below, weight_y = _neighbours(top + y, down, frame["shift_y"], low_y, high_y)
        for x in range(shape[1]):
            one, two, weight_x = _neighbours(left + x, across, frame["shift_x"], low_x, high_x)
            luma = np.float32(sources[0][top + y, left + x]) * colour[0] + colour[1]
            blue = _between(sources[1], above, below, one, two, weight_y, weight_x) - CHROMA_ZERO
            red = _between(sources[2], above, below, one, two, weight_y, weight_x) - CHROMA_ZERO
            to = shape[1] - 1 - x if flip else x
            levels[0, y, to] = level(luma + colour[2] * red)
            levels[1, y, to] = level(luma - colour[3] * blue - colour[4] * red)
            levels[2, y, to] = level(luma + colour[5] * blue)


@helper
def _between(plane: Array, above: Any, below: Any, one: Any, two: Any, weight_y: Any, weight_x: Any) -> Any:
    """The value between four samples."""
    upper = np.float32(plane[above, one]) + (np.float32(plane[above, two]) - np.float32(plane[above, one])) * weight_x
    lower = np.float32(plane[below, one]) + (np.float32(plane[below, two]) - np.float32(plane[below, one])) * weight_x
    return upper + (lower - upper) * weight_y


@kernel(NOTHING, PLANES, record(FRAME), record(BOX), _TABLE, BOOL, BOOL, MEMORY, MEMORY)
def crop_frame(
    sources: tuple[Array, Array, Array],
    frame: Record,
    box: Record,
    table: Array,
    channels_last: Any,
    again: Any,
    scratch: Array,
    out: Array,
) -> None:
    """Crop, resize, convert and turn one frame. The chroma planes of a grey frame have no rows.

    `again`: `scratch` is as the last call has left it, which had a frame of the same video and an equal box. A tenth of
    the time is saved, because the taps of the resampling filter are there.
    """
    memory, scratch = carve(scratch, 64)
    corners, clip = typed(memory[:32], np.float64), typed(memory[32:], np.int64)
    _stored_box(frame, box, corners, clip)
    turns, flip = frame["turns"], box["flip"] == 1
    shape = _stored_shape(frame, box)
    luma, chroma, scratch = _carve_taps(frame, shape, scratch)
    levels, scratch = carve_levels(shape, scratch)
    factors, shifts = (frame["across"], frame["down"]), (frame["shift_x"], frame["shift_y"])
    mirrored = flip and turns == 0
    grey = len(sources[1]) == 0
    if not grey and _is_unscaled(corners, shape):
        _convert_unscaled(sources, frame, corners, clip, mirrored, shape, levels)
    else:
        resize_plane(sources, 0, factors, shifts, corners, clip, mirrored, shape, luma, again, scratch, levels[:1])
        if grey:
            levels[1:] = _NO_COLOUR
        else:
            resize_plane(
                sources, 1, factors, shifts, corners, clip, mirrored, shape, chroma, again, scratch, levels[1:]
            )
        to_rgb(levels, frame["colour"])
    shown = (box["height"], box["width"])
    if turns != 0:
        turned, scratch = carve_levels(shown, scratch)
        for channel in range(3):
            _turn(levels[channel], shape[0], shape[1], turns, flip, turned[channel])
        levels = turned
    put(levels, shown, table, channels_last, out)


@kernel(NOTHING, PLANES, record(FRAME), record(BOX), MEMORY, MEMORY, MEMORY)
def crop_frame_planes(
    sources: tuple[Array, Array, Array], frame: Record, box: Record, scratch: Array, luma: Array, chroma: Array
) -> None:
    """Crop, resize and turn one frame to planes in 4:2:0: luma, and Cb followed by Cr, without padding.

    The sides of the box are even. Chroma lies as in the frame, so planes in 4:2:0 that are not resized are copied.
    """
    memory, scratch = carve(scratch, 64)
    corners, clip = typed(memory[:32], np.float64), typed(memory[32:], np.int64)
    _stored_box(frame, box, corners, clip)
    height, width = _stored_shape(frame, box)
    taps, scratch = carve(scratch, taps_bytes(frame["width"], frame["height"], (height, width)))
    shifts = (
        frame["shift_x"] * (1 - (corners[2] - corners[0]) / width),
        frame["shift_y"] * (1 - (corners[3] - corners[1]) / height),
    )
    for part in range(2):
        shape = (height // (1 + part), width // (1 + part))
        area = shape[0] * shape[1]
        levels, rest = carve_levels(shape, scratch)
        levels = levels[part : 1 + 2 * part]
        mirrored = box["flip"] == 1 and frame["turns"] == 0
        if part == 1 and len(sources[1]) == 0:
            levels[:] = _NO_COLOUR
        else:
            factors = (frame["across"], frame["down"])
            resize_plane(sources, part, factors, shifts, corners, clip, mirrored, shape, taps, False, rest, levels)
        for plane in range(1 + part):
            out = luma if part == 0 else chroma[plane * area : (plane + 1) * area]
            _put_plane(levels[plane], shape, frame["turns"], box["flip"] == 1, out)


@helper
def _put_plane(plane: Array, shape: tuple[int, int], turns: Any, flip: Any, out: Array) -> None:
    """Write a plane without the padding of its rows, turned."""
    height, width = shape
    if turns != 0:
        rows, columns = (width, height) if turns % 2 == 1 else (height, width)
        _turn(plane, height, width, turns, flip, out.reshape((rows, columns)))
        return
    for y in range(height):
        row = out[y * width : (y + 1) * width]
        for x in range(np.uint64(width)):
            row[x] = plane[y, x]
