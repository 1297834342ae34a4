"""Is a crop of a picture what Pillow, or float64 arithmetic written out, makes of it?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mx8shards.kernels import colour, crop

Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]

LEVELS = colour.value_table(np.ones(3), np.zeros(3), np.uint8)


def to_out(
    kernel: Any,
    sources: tuple[Any, ...],
    size: tuple[int, int],
    box: Box,
    clip: Any,
    shape: tuple[int, int],
    **form: Any,
) -> Array:
    """What the kernel writes, as height × width × 3, with scratch that is just large enough and watched."""
    table, dtype = form.get("table", LEVELS), np.dtype(form.get("dtype", np.uint8))
    channels_last = form.get("channels_last", True)
    need = crop.scratch_bytes(size[1], size[0], shape[1], shape[0])
    scratch = np.full(need + 64, 171, np.uint8)
    out = np.full(3 * shape[0] * shape[1] * dtype.itemsize + 64, 171, np.uint8)
    box_array, clip_array = np.array(box, np.float64), np.array(clip, np.int64)
    flip = form.get("flip", False)
    kernel(*sources, box_array, clip_array, flip, table, shape, channels_last, scratch[:need], out[:-64])
    assert (scratch[need:] == 171).all()
    assert (out[-64:] == 171).all()
    values = out[:-64].view(dtype)
    return values.reshape(*shape, 3) if channels_last else values.reshape(3, *shape).transpose(1, 2, 0)


def picture(height: int, width: int, seed: int, smooth: bool) -> Array:
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(seed)
    if not smooth:
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    few = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return np.array(image.fromarray(few).resize((width, height), image.Resampling.BICUBIC))


def resized_by_pillow(pixels: Array, box: Box, shape: tuple[int, int]) -> Array:
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.fromarray(pixels).resize(shape[::-1], image.Resampling.BILINEAR, box=box))


SIDES = st.integers(1, 70)


@st.composite
def jobs(draw: Any) -> tuple[Array, Box, tuple[int, int]]:
    height, width = draw(SIDES), draw(SIDES)
    sixteenths = [
        sorted(draw(st.lists(st.integers(0, 16 * n), min_size=2, max_size=2, unique=True))) for n in (width, height)
    ]
    (left, right), (top, bottom) = [[edge / 16 for edge in pair] for pair in sixteenths]
    shape = draw(SIDES), draw(SIDES)
    return picture(height, width, draw(st.integers(0, 9)), draw(st.booleans())), (left, top, right, bottom), shape


@settings(max_examples=200)
@given(jobs(), st.booleans(), st.booleans())
def test_pixels_are_resized_as_pillow_does_it(job: Any, flip: bool, channels_last: bool) -> None:
    pixels, box, shape = job
    height, width = pixels.shape[:2]
    got = to_out(
        crop.rgb, (pixels,), (height, width), box, (0, 0, width, height), shape, flip=flip, channels_last=channels_last
    )
    expected = resized_by_pillow(pixels, box, shape)[:, :: -1 if flip else 1]
    assert np.abs(got.astype(int) - expected).max() <= 1
