"""Reference implementation of resizing and colour conversion, with float64 matrices.

Slow, simple and independent of the package. Other steps are compared with Pillow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from PIL import Image

Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]

TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]])


def weights(begin: float, end: float, low: int, high: int, total: int) -> Array:
    """The weight of each of `high` old pixels in each of `total` new ones."""
    step = (end - begin) / total
    centres = begin + (np.arange(total) + 0.5) * step
    distances = np.abs(np.arange(high) + 0.5 - centres[:, None])
    shares: Array = np.maximum(1 - distances / max(step, 1), 0)
    shares[:, :low] = 0
    return shares / shares.sum(1, keepdims=True)


def resized(plane: Array, box: Box, clip: tuple[int, int, int, int], shape: tuple[int, int]) -> Array:
    """A box of one plane, resized in float64 without rounding."""
    down = weights(box[1], box[3], clip[1], clip[3], shape[0])
    across = weights(box[0], box[2], clip[0], clip[2], shape[1])
    new: Array = down @ plane[: clip[3], : clip[2]].astype(np.float64) @ across.T
    return new


def coloured(planes: Array) -> Array:
    """YCbCr to RGB along the last axis, in float64."""
    colours: Array = (planes - [0, 128, 128]) @ TO_RGB.T
    return np.clip(colours, 0, 255)


def resized_by_pillow(pixels: Array, box: Box, shape: tuple[int, int]) -> Array:
    """Resized by Pillow in two calls, rows first; in a single call Pillow 13 chooses the order of the passes."""
    left, top, right, bottom = box
    image = Image.fromarray(pixels)
    image = image.resize((shape[1], image.height), Image.Resampling.BILINEAR, (left, 0, right, image.height))
    image = image.resize(shape[::-1], Image.Resampling.BILINEAR, (0, top, shape[1], bottom))
    return np.asarray(image)


def picture(height: int, width: int, seed: int, smooth: bool) -> Array:
    """Height × width × 3 of random pixels, or (smooth) of random pixels 16 apart with interpolation."""
    random = np.random.default_rng(seed)
    if not smooth:
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    few = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))


@st.composite
def edges(draw: Any, length: int) -> tuple[float, float]:
    """Two different positions on a line, in sixteenths."""
    begin = draw(st.integers(0, 16 * length - 1))
    return begin / 16, draw(st.integers(begin + 1, 16 * length)) / 16
