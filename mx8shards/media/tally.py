"""How are pixels, levels and sizes of pictures counted exactly, for their mean and standard deviation?"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mx8shards.errors import DecodeError, FormatError, require
from mx8shards.format.encodings import get_encoding
from mx8shards.format.picture_cost import check_cost, walk_jpeg
from mx8shards.format.picture_files import RGB_MODES, TO_RGB8, check_size
from mx8shards.media.decoding import Pixels, decode, decode_jpeg

ENCODINGS = ("jpeg", "png", "pil", "bytes")
MOST_NAMED = 1_000  # pictures that could not be decoded are listed up to this number, and only counted beyond it

_ROWS = 1 << 16  # the sum of this many squares of 255 fits into a uint32
_STRIP_BYTES = 1 << 20  # a picture is summed in strips of this size
_PARALLEL_BYTES = 16 << 20  # pictures that take more memory are decoded by one thread at a time
_large_picture = threading.Lock()


class Refused(NamedTuple):
    """A picture that could not be decoded, and why."""

    sample: int
    reason: str


@dataclass(slots=True)
class Tally:
    """Counts and sums over samples."""

    samples: int = 0
    pixels: int = 0
    levels: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    refusals: int = 0
    refused: list[Refused] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.samples += other.samples
        self.pixels += other.pixels
        self.levels = [a + b for a, b in zip(self.levels, other.levels, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, other.squares, strict=True)]
        self.sizes.update(other.sizes)
        self.refusals += other.refusals
        self.refused += other.refused[: MOST_NAMED - len(self.refused)]

    def mean(self) -> tuple[float, ...] | None:
        """The mean of each channel."""
        return tuple(level / (255 * self.pixels) for level in self.levels) if self.pixels else None

    def std(self) -> tuple[float, ...] | None:
        """The standard deviation of each channel. In integers, because a difference of large floats is inexact."""
        if not self.pixels:
            return None
        pairs = zip(self.levels, self.squares, strict=True)
        return tuple(math.sqrt((self.pixels * b - a * a) / (255 * self.pixels) ** 2) for a, b in pairs)


def tally_of(payloads: Iterable[tuple[int, memoryview]], encoding: str) -> Tally:
    """Decode some samples, and count and sum their pixels."""
    tally = Tally()
    for sample, payload in payloads:
        tally.samples += 1
        with ExitStack() as locks:
            try:
                pixels = pixels_of(payload, encoding, locks)
            except (DecodeError, FormatError) as error:
                tally.refusals += 1
                tally.refused.append(Refused(sample, str(error)))
                continue
            height, width, _ = pixels.shape
            levels, squares = sums(pixels)
            del pixels
        tally.add(Tally(0, height * width, levels, squares, Counter({(height, width): 1})))
    return tally


def pixels_of(payload: memoryview, encoding: str, locks: ExitStack) -> Pixels:
    """Decode a payload to RGB [H, W, 3]; DecodeError or FormatError if it is not a picture, or is damaged.

    Large pictures are decoded one at a time: the lock is held until `locks` is closed.
    """

    def reserve(width: int, height: int, size_bytes: int) -> None:
        check_size(width, height, size_bytes)
        if size_bytes > _PARALLEL_BYTES:
            locks.enter_context(_large_picture)

    if encoding == "pil":
        picture = get_encoding("pil").decode(payload)
        if picture.mode not in RGB_MODES:
            raise DecodeError(expected="a picture of 8 bits per channel, in RGB or grey", found=f"mode {picture.mode}")
        return np.asarray(picture.convert("RGB"))
    if bytes(payload[:6]) == b"mx8yuv":
        return _pixels_of_yuv420(payload, reserve)
    if bytes(payload[:2]) == b"\xff\xd8":
        _check_jpeg(bytes(payload), reserve)
        return decode_jpeg(payload, 0, 0)
    return decode(bytes(payload), reserve)


def _pixels_of_yuv420(payload: memoryview, reserve: Callable[[int, int, int], None]) -> Pixels:
    from mx8shards.media.yuv420 import planes  # imported here because it loads Numba, which other pictures do not need

    pillow = require("PIL.Image", "images")
    luma, *chroma = planes(bytes(payload))
    height, width = luma.shape
    reserve(width, height, 3 * height * width)
    pixels = np.empty((height, width, 3), np.uint8)
    step = 2 * max(1, _STRIP_BYTES // (6 * width))  # rows of luma; even, as a row of chroma covers two of them
    for start in range(0, height, step):
        strip = luma[start : start + step]
        halves = [plane[start // 2 : (start + step) // 2] for plane in chroma]
        full = [half.repeat(2, axis=0).repeat(2, axis=1)[: len(strip), :width] for half in halves]
        merged = pillow.merge("YCbCr", [pillow.fromarray(np.ascontiguousarray(plane)) for plane in (strip, *full)])
        pixels[start : start + step] = np.asarray(merged.convert("RGB"))
    return pixels


def _check_jpeg(payload: bytes, reserve: Callable[[int, int, int], None]) -> None:
    """DecodeError for a JPEG that is refused because of its colours, number of scans or size."""
    check_cost(payload)
    head = walk_jpeg(payload)  # simplejpeg.decode_jpeg_header refuses samplings that its decoder supports
    height, width, components = head.size(payload)
    if not height or not width:
        raise DecodeError(expected="a JPEG with a frame header", found="one without a size")
    if components == 4:
        raise DecodeError(expected="a JPEG in RGB or grey", found="CMYK", hint=TO_RGB8)
    reserve(width, height, 3 * height * width + head.coefficient_bytes(payload))


def sums(pixels: Pixels) -> tuple[list[int], list[int]]:
    """The sum of levels and the sum of their squares, per channel. Exact."""
    total = np.zeros((2, 3), np.int64)
    step = min(_ROWS, max(1, _STRIP_BYTES // (3 * pixels.shape[1] or 1)))
    for start in range(0, len(pixels), step):
        rows = pixels[start : start + step].reshape(-1, 3 * pixels.shape[1])
        squares = np.multiply(rows, rows, dtype=np.uint16)
        for found, each in zip(total, (rows, squares), strict=True):
            found += each.sum(axis=0, dtype=np.uint32).reshape(-1, 3).sum(axis=0, dtype=np.int64)
    levels, squared = total.tolist()
    return levels, squared
