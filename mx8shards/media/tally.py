"""What is counted of pictures, exactly?"""

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
MOST_NAMED = 1_000  # of pictures that could not be decoded: of more, only the number is kept

_ROWS = 1 << 16  # so many squares of 255 fit into a uint32
_STRIP_BYTES = 1 << 20  # of a picture that are summed at a time
_OWN_BYTES = 16 << 20  # pictures that take more memory are decoded by one thread at a time
_large = threading.Lock()


class Refused(NamedTuple):
    """A picture that could not be decoded, and why."""

    sample: int
    reason: str


@dataclass(slots=True)
class Tally:
    """What was counted so far."""

    samples: int = 0
    pixels: int = 0
    levels: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    refusals: int = 0
    refused: list[Refused] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count what another one did."""
        self.samples += other.samples
        self.pixels += other.pixels
        self.levels = [a + b for a, b in zip(self.levels, other.levels, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, other.squares, strict=True)]
        self.sizes.update(other.sizes)
        self.refusals += other.refusals
        self.refused += other.refused[: MOST_NAMED - len(self.refused)]

    def mean(self) -> tuple[float, ...] | None:
        """Of each channel."""
        return tuple(level / (255 * self.pixels) for level in self.levels) if self.pixels else None

    def std(self) -> tuple[float, ...] | None:
        """Of each channel, over all pixels; integers until the root, as differences of large floats are noise."""
        if not self.pixels:
            return None
        pairs = zip(self.levels, self.squares, strict=True)
        return tuple(math.sqrt((self.pixels * b - a * a) / (255 * self.pixels) ** 2) for a, b in pairs)


def tally_of(payloads: Iterable[tuple[int, memoryview]], encoding: str) -> Tally:
    """What is to be counted of some samples."""
    tally = Tally()
    for sample, payload in payloads:
        tally.samples += 1
        with ExitStack() as turn:
            try:
                pixels = pixels_of(payload, encoding, turn)
            except (DecodeError, FormatError) as error:
                tally.refusals += 1
                tally.refused.append(Refused(sample, str(error)))
                continue
            height, width, _ = pixels.shape
            levels, squares = sums(pixels)
            del pixels
        tally.add(Tally(0, height * width, levels, squares, Counter({(height, width): 1})))
    return tally


def pixels_of(payload: memoryview, encoding: str, turn: ExitStack) -> Pixels:
    """Red, green and blue [H, W, 3]; DecodeError or FormatError for what is no picture, or not a whole one.

    A large picture is decoded, and `turn` ends, before that of another thread is.
    """

    def ready(width: int, height: int, size_bytes: int) -> None:
        check_size(width, height, size_bytes)
        if size_bytes > _OWN_BYTES:
            turn.enter_context(_large)

    if encoding == "pil":
        picture = get_encoding("pil").decode(payload)
        if picture.mode not in RGB_MODES:
            raise DecodeError(expected="a picture of 8 bits per channel, in RGB or grey", found=f"mode {picture.mode}")
        return np.asarray(picture.convert("RGB"))
    if bytes(payload[:6]) == b"mx8yuv":
        return _of_planes(payload, ready)
    if bytes(payload[:2]) == b"\xff\xd8":
        _check_jpeg(bytes(payload), ready)
        return decode_jpeg(payload, 0, 0)
    return decode(bytes(payload), ready)


def _of_planes(payload: memoryview, ready: Callable[[int, int, int], None]) -> Pixels:
    from mx8shards.media.yuv420 import planes  # here: its kernels bring numba, which no other picture needs

    pillow = require("PIL.Image", "images")
    luma, *chroma = planes(bytes(payload))
    height, width = luma.shape
    ready(width, height, 3 * height * width)
    pixels = np.empty((height, width, 3), np.uint8)
    step = 2 * max(1, _STRIP_BYTES // (6 * width))  # rows; each of chroma is two of luma
    for start in range(0, height, step):
        strip = luma[start : start + step]
        halves = [plane[start // 2 : (start + step) // 2] for plane in chroma]
        full = [half.repeat(2, axis=0).repeat(2, axis=1)[: len(strip), :width] for half in halves]
        whole = pillow.merge("YCbCr", [pillow.fromarray(np.ascontiguousarray(plane)) for plane in (strip, *full)])
        pixels[start : start + step] = np.asarray(whole.convert("RGB"))
    return pixels


def _check_jpeg(payload: bytes, ready: Callable[[int, int, int], None]) -> None:
    """DecodeError for a JPEG that is not decoded: for its colours, its scans or its size."""
    check_cost(payload)
    head = walk_jpeg(payload)  # simplejpeg's own reader of heads knows fewer samplings than its decoder
    height, width, components = head.size(payload)
    if not height or not width:
        raise DecodeError(expected="a JPEG", found="one without a size")
    if components == 4:
        raise DecodeError(expected="a JPEG in RGB or grey", found="CMYK", hint=TO_RGB8)
    ready(width, height, 3 * height * width + head.coefficient_bytes(payload))


def sums(pixels: Pixels) -> tuple[list[int], list[int]]:
    """Per channel the sum of all levels, and that of their squares. Exact."""
    total = np.zeros((2, 3), np.int64)
    step = min(_ROWS, max(1, _STRIP_BYTES // (3 * pixels.shape[1] or 1)))
    for start in range(0, len(pixels), step):
        rows = pixels[start : start + step].reshape(-1, 3 * pixels.shape[1])
        squares = np.multiply(rows, rows, dtype=np.uint16)
        for found, each in zip(total, (rows, squares), strict=True):
            found += each.sum(axis=0, dtype=np.uint32).reshape(-1, 3).sum(axis=0, dtype=np.int64)
    levels, squared = total.tolist()
    return levels, squared
