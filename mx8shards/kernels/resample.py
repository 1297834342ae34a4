"""How is a picture resized? Bilinear with antialiasing, as Pillow and torchvision do it.

A new pixel is the weighted mean of the old pixels under a triangle around its centre. The radius of the triangle is the
distance of two new pixels, or of two old pixels if that is larger. As in Pillow, weights are fixed-point numbers with
22 fractional bits, and each of the two passes rounds to bytes.

`blend` adds up weighted rows, a loop that LLVM vectorises. For the horizontal pass, the picture is transposed, so that
columns become rows; `transpose` moves 64-bit words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import BOOL, BYTES, FLOAT, INT, MEMORY, NOTHING, PAIR, array, helper, inner_kernel, tuple_of
from mx8shards.kernels.memory import prefetch, typed

Array = npt.NDArray[Any]
Taps = tuple[Array, Array, Array]

LANES = 16  # rows that `transpose` processes together; the rows that it writes have a multiple of this length
STRIP = 256  # rows that are transposed and blended together: the transposed strip fits into a core's L2 cache
BITS = 22  # fractional bits of a weight, as in Pillow
ROWS_AHEAD = 8  # rows of a source that are prefetched: of a decoded frame, few lines are in the core's caches
LINE_BYTES = 64

_HALF = np.int32(1 << (BITS - 1))
_ZERO = np.int32(0)
_TOP = np.int32(255)
# types
ROWS = array(np.uint8, 2, readonly=True)  # rows of a plane, perhaps with padding at their ends
PLANES = tuple_of(ROWS, ROWS, ROWS)
_BOX, _COUNTS, _WEIGHTS = array(np.float64), array(np.int64), array(np.int32, 2)
_TAPS = tuple_of(_COUNTS, _COUNTS, _WEIGHTS)


# weights -------------------------------------------------------------------------------------------------------------


@helper
def most_taps(length: float, total: int) -> int:
    """An upper bound of the taps of a new pixel when `length` pixels become `total`; always even."""
    return 2 * int(np.ceil(max(length / total, 1.0))) + 2


@inner_kernel(NOTHING, FLOAT, FLOAT, INT, INT, BOOL, _COUNTS, _COUNTS, _WEIGHTS)
def compute_taps(
    begin: float, end: float, low: int, high: int, flip: bool, firsts: Array, counts: Array, weights: Array
) -> None:
    """Compute the taps of len(firsts) new pixels: the first old pixel, the number of old pixels, and their weights.

    The new pixels cover [begin, end), in reverse order if `flip`. Only old pixels in [low, high) have weights.
    """
    total = len(firsts)
    step = (end - begin) / total
    radius = max(step, 1.0)
    slope = 1.0 / radius
    for j in range(total):
        row = total - 1 - j if flip else j
        centre = (begin - low) + (j + 0.5) * step
        first = max(int(np.floor(centre - radius + 0.5)), 0)
        count = min(int(np.floor(centre + radius + 0.5)), high - low) - first
        weight_sum = 0.0
        for k in range(count):
            weight_sum += max(1.0 - abs((k + first - centre + 0.5) * slope), 0.0)
        for k in range(count):
            weight = max(1.0 - abs((k + first - centre + 0.5) * slope), 0.0) / weight_sum
            weights[row, k] = np.int32(0.5 + weight * (1 << BITS))
        if count > 1 and weights[row, count - 1] == 0:
            count -= 1
        weights[row, count] = 0  # `blend` reads weights in pairs
        firsts[row] = low + first
        counts[row] = count


# passes --------------------------------------------------------------------------------------------------------------


@helper
def prefetch_rows(rows: Array, begin: int, end: int, left: int, width: int) -> int:
    """Prefetch columns [left, left + width) of rows [begin, end), as far as there are any; the row to go on with."""
    end = min(end, len(rows))
    for row in range(begin, end):
        address = np.uint64(rows[row].ctypes.data + left)
        for at in range(0, width, LINE_BYTES):
            prefetch(address + np.uint64(at))
    return max(begin, end)


@inner_kernel(NOTHING, ROWS, INT, INT, INT, INT, _TAPS, array(np.int32), array(np.uint8, 2))
def blend(rows: Array, start: int, left: int, width: int, ahead: int, taps: Taps, sums: Array, out: Array) -> None:
    """Compute each row of `out` as a weighted sum of rows; rows[0] has number `start` in the taps.

    Only columns [left, left + width) of `rows` are used. `sums` is scratch for `width` sums. `ahead` rows are
    prefetched: 0 for rows that were just written.
    """
    firsts, counts, weights = taps
    fetched = firsts[0] - start
    for j in range(len(firsts)):
        first = firsts[j] - start
        if ahead > 0:
            fetched = prefetch_rows(rows, fetched, first + counts[j] + ahead, left, width)
        last = first + counts[j] - 1
        new = out[j]
        if first == last:
            only = rows[first, left : left + width]
            for x in range(np.uint64(width)):
                new[x] = only[x]
            continue
        for k in range(0, counts[j], 2):
            one = rows[first + k, left : left + width]
            two = rows[min(first + k + 1, last), left : left + width]
            weight, other = weights[j, k], weights[j, k + 1]
            if k == 0:
                for x in range(np.uint64(width)):
                    sums[x] = _HALF + np.int32(one[x]) * weight + np.int32(two[x]) * other
            else:
                for x in range(np.uint64(width)):
                    sums[x] += np.int32(one[x]) * weight + np.int32(two[x]) * other
        for x in range(np.uint64(width)):
            new[x] = min(max(sums[x] >> np.int32(BITS), _ZERO), _TOP)


@inner_kernel(NOTHING, BYTES, BYTES, BYTES, BYTES, MEMORY)
def _interleave(one: Array, two: Array, three: Array, four: Array, out: Array) -> None:
    """Interleave four arrays. A separate kernel, as LLVM does not vectorise it inside of `transpose`: 8 % of a crop."""
    for i in range(np.uint64(len(one))):
        at = np.uint64(4) * i
        out[at] = one[i]
        out[at + np.uint64(1)] = two[i]
        out[at + np.uint64(2)] = three[i]
        out[at + np.uint64(3)] = four[i]


@inner_kernel(NOTHING, ROWS, INT, INT, INT, INT, MEMORY, INT, array(np.uint8, 2))
def transpose(rows: Array, top: int, count: int, left: int, ahead: int, tile: Array, lane: int, out: Array) -> None:
    """Write len(out) columns from `left` on, of `count` rows from `top` on, to the rows of `out` from `lane` on.

    16 rows at a time are interleaved four by four, twice, which transposes them. If fewer rows are left, the last row
    is repeated, so up to 15 bytes are written after the `count` values. `ahead` rows are prefetched: 0 for rows that
    were just written. `tile` is scratch: 32 bytes per column.
    """
    width = len(out)
    last = top + count - 1
    once = tile[: LANES * width]
    twice = tile[LANES * width : 2 * LANES * width]
    quarter = 4 * width
    columns = typed(twice, np.uint64)
    words = typed(out, np.uint64)
    fetched = top
    for strip in range(0, count, LANES):
        if ahead > 0:
            fetched = prefetch_rows(rows, fetched, min(top + strip + LANES + ahead, last + 1), left, width)
        for row in range(top + strip, top + strip + 4):
            at = (row - top - strip) * quarter
            _interleave(
                rows[min(row, last), left : left + width],
                rows[min(row + 4, last), left : left + width],
                rows[min(row + 8, last), left : left + width],
                rows[min(row + 12, last), left : left + width],
                once[at : at + quarter],
            )
        _interleave(
            once[:quarter],
            once[quarter : 2 * quarter],
            once[2 * quarter : 3 * quarter],
            once[3 * quarter :],
            twice,
        )
        to = np.uint64((lane + strip) // 8)
        for j in range(np.uint64(width)):
            one, two = columns[np.uint64(2) * j], columns[np.uint64(2) * j + np.uint64(1)]
            words[j, to] = one  # both words were loaded before, so that the stores are adjacent
            words[j, to + np.uint64(1)] = two


# scratch -------------------------------------------------------------------------------------------------------------


@helper
def whole_lanes(count: int) -> int:
    """`count` rounded up to a multiple of LANES, the length of the rows that `transpose` writes."""
    return (count + LANES - 1) // LANES * LANES


@helper
def carve(scratch: Array, size: int) -> tuple[Array, Array]:
    """Split scratch into `size` bytes and the rest, which begins at a multiple of 64 if `scratch` does."""
    return scratch[:size], scratch[(size + 63) // 64 * 64 :]


@helper
def carve_taps(
    begin: float, end: float, low: int, high: int, flip: bool, total: int, again: bool, scratch: Array
) -> tuple[Taps, Array]:
    """The result of `compute_taps`, stored in scratch, and the rest of scratch. `again`: it is there already."""
    most = most_taps(end - begin, total)
    firsts, scratch = carve(scratch, 8 * total)
    counts, scratch = carve(scratch, 8 * total)
    weights, scratch = carve(scratch, 4 * total * most)
    taps = typed(firsts, np.int64), typed(counts, np.int64), typed(weights, np.int32).reshape(total, most)
    if not again:
        compute_taps(begin, end, low, high, flip, *taps)
    return taps, scratch


@helper
def source_range(taps: Taps) -> tuple[int, int]:
    """The range of old pixels that the taps refer to: the first one, and the one after the last."""
    firsts, counts, _ = taps
    end = len(firsts) - 1
    return min(firsts[0], firsts[end]), max(firsts[0] + counts[0], firsts[end] + counts[end])


@helper
def taps_bytes(width: int, height: int, shape: tuple[int, int]) -> int:
    """Bytes for the taps of `resize`, for a source of up to this size; monotonic in the size."""
    return 32 * (shape[0] + shape[1]) + 8 * (width + height) + 6 * 64


@helper
def resize_bytes(length: int, height: int, shape: tuple[int, int]) -> int:
    """Bytes of scratch for `resize`. `length`: bytes of a row of all planes together; `height`: rows of a plane."""
    lanes = 3 * whole_lanes(min(max(height, shape[0]), STRIP))
    wide = whole_lanes(shape[1])
    longest = max(length, lanes, wide)
    passes = length * (lanes // 3) * 2 + wide * lanes + 3 * wide * height
    return passes + (4 + 2 * LANES) * longest + 10 * 64


@inner_kernel(NOTHING, PLANES, INT, INT, INT, _BOX, _COUNTS, BOOL, PAIR, MEMORY, BOOL, MEMORY, array(np.uint8, 3))
def resize(
    sources: tuple[Array, Array, Array],
    start: int,
    stop: int,
    channels: int,
    box: Array,
    clip: Array,
    flip: bool,
    shape: tuple[int, int],
    taps: Array,
    again: bool,
    scratch: Array,
    out: Array,
) -> None:
    """Resize a box of sources [start, stop) to `out`, which has one plane per source and channel.

    A source has rows of pixels of `channels` channels. The rows of `out` have a multiple of LANES bytes. Pixels of
    several channels are resized horizontally first, as in Pillow; planes in the cheaper order. `taps` has `taps_bytes`,
    and if `again` those of an earlier call with an equal box.
    """
    height, width = shape
    across, taps = carve_taps(box[0], box[2], clip[0], clip[2], flip, width, again, taps)
    down, taps = carve_taps(box[1], box[3], clip[1], clip[3], False, height, again, taps)
    left, right = source_range(across)
    top, bottom = source_range(down)
    down_first = channels == 1 and bottom - top > height
    tall = height if down_first else bottom - top
    parts = (tall + STRIP - 1) // STRIP
    strip = whole_lanes((tall + parts - 1) // parts)
    length = (right - left) * channels
    planes = (stop - start) * channels
    lanes = strip * planes
    longest = max(length, lanes, width)
    memory, scratch = carve(scratch, 4 * longest)
    sums = typed(memory, np.int32)
    tile, scratch = carve(scratch, 2 * LANES * longest)
    memory, scratch = carve(scratch, strip * length)
    short = memory.reshape(strip, length)
    transposed, scratch = carve(scratch, (right - left) * lanes)
    columns = transposed.reshape(length, strip * (stop - start))
    memory, scratch = carve(scratch, width * lanes)
    new = memory.reshape(width, lanes)
    memory, scratch = carve(scratch, planes * tall * out.shape[2])
    resized = out if down_first else memory.reshape(planes, tall, out.shape[2])
    for row in range(0, tall, strip):
        count = min(strip, tall - row)
        for source in range(start, stop):
            rows, first, column, ahead = sources[source], top + row, left * channels, ROWS_AHEAD
            if down_first:
                part = down[0][row : row + count], down[1][row : row + count], down[2][row : row + count]
                blend(rows, 0, column, length, ahead, part, sums, short)
                rows, first, column, ahead = short, 0, 0, 0
            transpose(rows, first, count, column, ahead, tile, (source - start) * strip, columns)
        blend(transposed.reshape(right - left, lanes), left, 0, lanes, 0, across, sums, new)
        for plane in range(planes):
            transpose(new, 0, width, plane * strip, 0, tile, 0, resized[plane, row : row + count])
    if not down_first:
        for plane in range(planes):
            blend(resized[plane], top, 0, width, 0, down, sums, out[plane])
