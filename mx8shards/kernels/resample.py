"""Which pixels make up a pixel of another size?

As in Pillow and in torchvision's antialiased resize: a new pixel is the mean of the old ones under a triangle around
its centre, which reaches as far as the next new pixel, or the next old one where those lie further apart. Weights are
whole 4,194,304ths and each of the two passes ends in bytes, as theirs do.

One loop does the work of both passes: `blend` adds up rows, which vectors do well. The pass along the rows blends
columns, which are rows once the picture is turned, and `turn` does that without touching a byte by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import BOOL, BYTES, FLOAT, INT, MEMORY, NOTHING, PAIR, array, helper, inner_kernel, several
from mx8shards.kernels.memory import typed

Array = npt.NDArray[Any]
Taps = tuple[Array, Array, Array]

LANES = 16  # rows that `turn` takes together: the rows that it writes are a multiple of it long
STRIP = 256  # rows that are turned and blended together: a core's second cache holds what lies between the two
BITS = 22  # of a weight, behind the point: Pillow's

_HALF = np.int32(1 << (BITS - 1))
_ZERO = np.int32(0)
_TOP = np.int32(255)
# types
ROWS = array(np.uint8, 2, readonly=True)  # of a plane; they may be longer than it
PLANES = several(ROWS, ROWS, ROWS)
_COUNTS, _WEIGHTS = array(np.int64), array(np.int32, 2)
_TAPS = several(_COUNTS, _COUNTS, _WEIGHTS)


# how much of what ----------------------------------------------------------------------------------------------------


@helper
def most_taps(length: float, total: int) -> int:
    """No new pixel takes something from more old ones, if `total` share `length`. Always even."""
    return 2 * int(np.ceil(max(length / total, 1.0))) + 2


@inner_kernel(NOTHING, FLOAT, FLOAT, INT, INT, BOOL, _COUNTS, _COUNTS, _WEIGHTS)
def weigh(
    begin: float, end: float, low: int, high: int, flip: bool, firsts: Array, counts: Array, weights: Array
) -> None:
    """What each of len(firsts) new pixels takes from the old ones: from which on, from how many, and how much of each.

    The new pixels share [begin, end) among them, in reverse if flipped. None takes anything from outside [low, high).
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
        whole = 0.0
        for k in range(count):
            whole += max(1.0 - abs((k + first - centre + 0.5) * slope), 0.0)
        for k in range(count):
            share = max(1.0 - abs((k + first - centre + 0.5) * slope), 0.0) / whole
            weights[row, k] = np.int32(0.5 + share * (1 << BITS))
        if count > 1 and weights[row, count - 1] == 0:
            count -= 1
        weights[row, count] = 0  # `blend` takes them in pairs
        firsts[row] = low + first
        counts[row] = count


# from rows to rows ---------------------------------------------------------------------------------------------------


@inner_kernel(NOTHING, ROWS, INT, INT, INT, _TAPS, array(np.int32), array(np.uint8, 2))
def blend(rows: Array, start: int, left: int, width: int, taps: Taps, sums: Array, out: Array) -> None:
    """Each row of `out` becomes a weighted sum of some of `rows`, the first of which is number `start`.

    Of those rows only `width` columns from `left` on are used. `sums` is scratch for as many.
    """
    firsts, counts, weights = taps
    for j in range(len(firsts)):
        first = firsts[j] - start
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
def _shuffle(one: Array, two: Array, three: Array, four: Array, out: Array) -> None:
    """A value from each in turn. Compiled alone, because LLVM does not vectorise it within `turn`: 8 % of a crop."""
    for i in range(np.uint64(len(one))):
        at = np.uint64(4) * i
        out[at] = one[i]
        out[at + np.uint64(1)] = two[i]
        out[at + np.uint64(2)] = three[i]
        out[at + np.uint64(3)] = four[i]


@inner_kernel(NOTHING, ROWS, INT, INT, INT, MEMORY, INT, array(np.uint8, 2))
def turn(rows: Array, top: int, count: int, left: int, tile: Array, lane: int, out: Array) -> None:
    """Columns become rows: len(out) of them, from `left` on, of `count` rows from `top` on; to `lane` and after.

    16 rows at a time are shuffled like four hands of cards, twice, and then lie there by columns. Where rows are
    missing from the last 16, the last one stands in, so up to 15 bytes after what is wanted are written, too. `tile` is
    scratch: 32 bytes for each column.
    """
    width = len(out)
    last = top + count - 1
    once = tile[: LANES * width]
    twice = tile[LANES * width : 2 * LANES * width]
    hand = 4 * width
    columns = typed(twice, np.uint64)
    words = typed(out, np.uint64)
    for strip in range(0, count, LANES):
        for row in range(top + strip, top + strip + 4):
            at = (row - top - strip) * hand
            _shuffle(
                rows[min(row, last), left : left + width],
                rows[min(row + 4, last), left : left + width],
                rows[min(row + 8, last), left : left + width],
                rows[min(row + 12, last), left : left + width],
                once[at : at + hand],
            )
        _shuffle(once[:hand], once[hand : 2 * hand], once[2 * hand : 3 * hand], once[3 * hand :], twice)
        to = np.uint64((lane + strip) // 8)
        for j in range(np.uint64(width)):
            one, two = columns[np.uint64(2) * j], columns[np.uint64(2) * j + np.uint64(1)]
            words[j, to] = one  # both were read before: they are written at once
            words[j, to + np.uint64(1)] = two


# scratch -------------------------------------------------------------------------------------------------------------


@helper
def whole_lanes(count: int) -> int:
    """The length of a row that `turn` may write `count` bytes to."""
    return (count + LANES - 1) // LANES * LANES


@helper
def carve(scratch: Array, size: int) -> tuple[Array, Array]:
    """So many bytes of scratch, and the rest, which begins at a multiple of 64 if `scratch` does."""
    return scratch[:size], scratch[(size + 63) // 64 * 64 :]


@helper
def carve_taps(
    begin: float, end: float, low: int, high: int, flip: bool, total: int, scratch: Array
) -> tuple[Taps, Array]:
    """What `weigh` says, in scratch, and the rest of that."""
    most = most_taps(end - begin, total)
    firsts, scratch = carve(scratch, 8 * total)
    counts, scratch = carve(scratch, 8 * total)
    weights, scratch = carve(scratch, 4 * total * most)
    taps = typed(firsts, np.int64), typed(counts, np.int64), typed(weights, np.int32).reshape(total, most)
    weigh(begin, end, low, high, flip, *taps)
    return taps, scratch


@helper
def reach(taps: Taps) -> tuple[int, int]:
    """The first old pixel that any new one takes something from, and the first after the last one."""
    firsts, counts, _ = taps
    end = len(firsts) - 1
    return min(firsts[0], firsts[end]), max(firsts[0] + counts[0], firsts[end] + counts[end])


@helper
def resize_bytes(length: int, height: int, shape: tuple[int, int]) -> int:
    """Scratch for `resize`, if all planes together have rows of so many bytes, and so many rows each."""
    lanes = 3 * whole_lanes(min(max(height, shape[0]), STRIP))
    wide = whole_lanes(shape[1])
    longest = max(length, lanes, wide)
    taps = 16 * (shape[0] + shape[1]) + 8 * (length + height) + 16 * (shape[0] + shape[1])
    passes = length * (lanes // 3) * 2 + wide * lanes + 3 * wide * height
    return taps + passes + (4 + 2 * LANES) * longest + 16 * 64


@inner_kernel(
    NOTHING, PLANES, INT, INT, INT, array(np.float64), array(np.int64), BOOL, PAIR, MEMORY, array(np.uint8, 3)
)
def resize(
    sources: tuple[Array, Array, Array],
    start: int,
    stop: int,
    channels: int,
    box: Array,
    clip: Array,
    flip: bool,
    shape: tuple[int, int],
    scratch: Array,
    out: Array,
) -> None:
    """A box of the sources from `start` to before `stop`, in another size, to `out`: one plane per source and channel.

    A source has rows of pixels of so many channels. Rows of `out` are whole lanes. Pixels of several channels are
    resized along their rows first, as Pillow does it; planes, in the order that is less work.
    """
    height, width = shape
    across, scratch = carve_taps(box[0], box[2], clip[0], clip[2], flip, width, scratch)
    down, scratch = carve_taps(box[1], box[3], clip[1], clip[3], False, height, scratch)
    left, right = reach(across)
    top, bottom = reach(down)
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
    turned, scratch = carve(scratch, (right - left) * lanes)
    columns = turned.reshape(length, strip * (stop - start))
    memory, scratch = carve(scratch, width * lanes)
    new = memory.reshape(width, lanes)
    memory, scratch = carve(scratch, planes * tall * out.shape[2])
    resized = out if down_first else memory.reshape(planes, tall, out.shape[2])

    for row in range(0, tall, strip):
        count = min(strip, tall - row)
        for source in range(start, stop):
            rows, first, column = sources[source], top + row, left * channels
            if down_first:
                part = down[0][row : row + count], down[1][row : row + count], down[2][row : row + count]
                blend(rows, 0, column, length, part, sums, short)
                rows, first, column = short, 0, 0
            turn(rows, first, count, column, tile, (source - start) * strip, columns)
        blend(turned.reshape(right - left, lanes), left, 0, lanes, across, sums, new)
        for plane in range(planes):
            turn(new, 0, width, plane * strip, tile, 0, resized[plane, row : row + count])
    if not down_first:
        for plane in range(planes):
            blend(resized[plane], top, 0, width, down, sums, out[plane])
