"""Which pixels make up a pixel of another size?

As in Pillow and in torchvision's antialiased resize: each new pixel is the mean of the old ones under a triangle around
its centre, two new pixels wide, or two old ones where those are larger. Weights are whole 4,194,304ths and every pass
ends in bytes, rounded, so passes in Pillow's order (first along the rows) give Pillow's bytes.

One loop does all the work: `blend` adds up rows. A picture is resized along its rows by blending its columns, which are
rows once a strip of it is turned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import kernel

Array = npt.NDArray[Any]

BITS = 22  # of a weight, behind the point: Pillow's
STRIP = 64  # rows that are turned together: long enough for vectors, and short enough for a core's first cache

_HALF = np.int32(1 << (BITS - 1))


@kernel
def weigh(
    begin: float, end: float, low: int, high: int, flip: bool, firsts: Array, counts: Array, weights: Array
) -> None:
    """What each of len(firsts) new pixels takes from the old ones: from which on, how many, and how much of each.

    The new pixels share [begin, end) among them, in reverse if flipped. None takes anything from outside [low, high).
    """
    total = len(firsts)
    step = (end - begin) / total
    radius = max(step, 1.0)
    for j in range(total):
        centre = (begin - low) + (j + 0.5) * step
        first = max(int(np.floor(centre - radius + 0.5)), 0)
        count = min(int(np.floor(centre + radius + 0.5)), high - low) - first
        row = total - 1 - j if flip else j
        whole = 0.0
        for k in range(count):
            whole += max(1.0 - abs((k + first - centre + 0.5) * (1.0 / radius)), 0.0)
        for k in range(count):
            share = max(1.0 - abs((k + first - centre + 0.5) * (1.0 / radius)), 0.0) / whole
            weights[row, k] = np.int32(0.5 + share * (1 << BITS))
        for k in range(count, weights.shape[1]):
            weights[row, k] = 0
        firsts[row] = low + first
        counts[row] = count


@kernel
def most_taps(begin: float, end: float, total: int) -> int:
    """The most old pixels that one of `total` new ones takes something from."""
    return int(np.ceil(max((end - begin) / total, 1.0))) * 2 + 1


@kernel
def blend(rows: Array, start: int, firsts: Array, counts: Array, weights: Array, sums: Array, out: Array) -> None:
    """Each row of `out` is a weighted sum of some of `rows`, the first of which is number `start`."""
    width = np.uint64(out.shape[1])
    for j in range(len(firsts)):
        for x in range(width):
            sums[x] = _HALF
        for k in range(counts[j]):
            row = rows[firsts[j] - start + k]
            weight = weights[j, k]
            for x in range(width):
                sums[x] += np.int32(row[x]) * weight
        new = out[j]
        for x in range(width):
            new[x] = min(max(sums[x] >> np.int32(BITS), np.int32(0)), np.int32(255))


@kernel
def turn(rows: Array, start: int, step: int, out: Array) -> None:
    """Columns become rows: every `step`-th from `start` on."""
    for j in range(np.uint64(out.shape[0])):
        for i in range(np.uint64(out.shape[1])):
            out[j, i] = rows[i, np.uint64(start) + j * np.uint64(step)]


@kernel
def carve(scratch: Array, at: int, size: int) -> tuple[Array, int]:
    """So many bytes of scratch, and where the next ones begin: a multiple of 64, as vectors like it."""
    return scratch[at : at + size], at + (size + 63) // 64 * 64


@kernel
def taps_bytes(length: int, total: int) -> int:
    """Scratch for what `taps` leaves there, with boxes of up to `length` old pixels."""
    return total * (16 + 4 * (2 * (length // total) + 5)) + 192


@kernel
def taps(
    begin: float, end: float, low: int, high: int, flip: bool, total: int, scratch: Array, at: int
) -> tuple[Array, Array, Array, int]:
    """firsts, counts and weights as `weigh` makes them, in scratch, and where the next bytes of it begin."""
    most = most_taps(begin, end, total)
    memory, at = carve(scratch, at, 8 * total)
    firsts = memory.view(np.int64)
    memory, at = carve(scratch, at, 8 * total)
    counts = memory.view(np.int64)
    memory, at = carve(scratch, at, 4 * total * most)
    weights = memory.view(np.int32).reshape(total, most)
    weigh(begin, end, low, high, flip, firsts, counts, weights)
    return firsts, counts, weights, at


@kernel
def resize_bytes(width: int, height: int, out_width: int, out_height: int, channels: int) -> int:
    """Scratch for `resize`."""
    rows = height * out_width * channels
    turned = (max(width, 1) + out_width) * height * channels
    sums = 4 * max(out_width, height) * channels
    return taps_bytes(width, out_width) + taps_bytes(height, out_height) + rows + turned + sums + 512


@kernel
def resize(source: Array, channels: int, box: Array, clip: Array, flip: bool, scratch: Array, out: Array) -> None:
    """A box of the source in the size of `out`, one plane per channel."""
    height, width = out.shape[1:]
    x_firsts, x_counts, x_weights, at = taps(box[0], box[2], clip[0], clip[2], flip, width, scratch, 0)
    y_firsts, y_counts, y_weights, at = taps(box[1], box[3], clip[1], clip[3], False, height, scratch, at)
    left = clip[2]
    right = clip[0]
    for j in range(width):
        left = min(left, x_firsts[j])
        right = max(right, x_firsts[j] + x_counts[j])
    top = y_firsts[0]
    bottom = y_firsts[height - 1] + y_counts[height - 1]
    tall = bottom - top
    memory, at = carve(scratch, at, 4 * max(width, tall))
    sums = memory.view(np.int32)
    memory, at = carve(scratch, at, (right - left) * tall)
    turned = memory.reshape(right - left, tall)
    memory, at = carve(scratch, at, width * tall)
    narrow = memory.reshape(width, tall)
    memory, at = carve(scratch, at, width * tall)
    rows = memory.reshape(tall, width)
    for channel in range(channels):
        turn(source[top:bottom], left * channels + channel, channels, turned)
        blend(turned, left, x_firsts, x_counts, x_weights, sums, narrow)
        turn(narrow, 0, 1, rows)
        blend(rows, top, y_firsts, y_counts, y_weights, sums, out[channel])
