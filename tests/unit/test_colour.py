"""Are planes converted to RGB as JFIF defines, and to the requested dtype and layout?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mx8shards.kernels import colour_conversion
from tests.pixels import Array, coloured

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def every_colour() -> Array:
    """A grid of Y, Cb and Cr values that includes the extremes: 3 planes of 52 × 2704."""
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij")).reshape(3, len(steps), -1)


def test_rgb_values_are_rounded_bt601() -> None:
    planes = every_colour()
    expected = np.floor(coloured(np.moveaxis(planes, 0, 2).astype(np.float64)) + 0.5)
    colour_conversion.to_rgb(planes, colour_conversion.JFIF)
    assert (np.moveaxis(planes, 0, 2) == expected).all()


def test_rgb_values_differ_from_pillows_by_at_most_one() -> None:
    planes = every_colour()
    image = Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes]).convert("RGB")
    colour_conversion.to_rgb(planes, colour_conversion.JFIF)
    assert np.abs(np.moveaxis(planes, 0, 2).astype(int) - np.asarray(image)).max() <= 1


def test_grey_pixels_have_three_equal_channels() -> None:
    planes = every_colour()[:, :3, :50].copy()
    luma = planes[0].copy()
    colour_conversion.to_grey(planes)
    assert (planes == luma).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_lookup_table_equals_normalisation(dtype: Any) -> None:
    scale, shift = 1 / (255 * STD), -MEAN / STD
    table = colour_conversion.value_table(scale, shift, dtype)
    assert table.shape == (3, 256)
    assert table.dtype == np.uint32
    values = table.astype(f"u{np.dtype(dtype).itemsize}").view(dtype)
    expected = (np.arange(256) / 255 - MEAN[:, None]) / STD[:, None]
    assert np.allclose(values, expected, rtol=np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("kernel", [colour_conversion.put, colour_conversion.put.py_func], ids=["compiled", "python"])  # type: ignore[attr-defined]
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3), (20, 33)])
def test_levels_are_written_in_any_layout_and_dtype(kernel: Any, channels_last: bool, dtype: Any, shape: Any) -> None:
    planes = np.random.default_rng(1).integers(0, 256, (3, shape[0], 64), dtype=np.uint8)
    scale, shift = (1 / (255 * STD), -MEAN / STD) if dtype != np.uint8 else (np.ones(3), np.zeros(3))
    out = np.zeros(3 * shape[0] * shape[1], dtype)
    kernel(planes, shape, colour_conversion.value_table(scale, shift, dtype), channels_last, out.view(np.uint8))
    levels = planes[:, :, : shape[1]]
    expected = (levels * scale[:, None, None] + shift[:, None, None]).astype(dtype)
    got = np.moveaxis(out.reshape(*shape, 3), 2, 0) if channels_last else out.reshape(3, *shape)
    assert (got == expected).all()
