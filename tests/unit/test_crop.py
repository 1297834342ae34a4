"""Is a crop equal to Pillow's, or to a float64 reference?"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mx8shards.kernels import colour_conversion, crop
from tests.pixels import Array, Box, coloured, edges, picture, resized, resized_by_pillow

LEVELS = colour_conversion.value_table(np.ones(3), np.zeros(3), np.uint8)

# Each plane is rounded twice, by at most 0.5. A colour is a sum of up to 1 + 1.772 planes, and is rounded too.
FAR = (1 + 1.772) * 1.01 + 0.5

SAMPLINGS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (4, 4)]


def to_out(kernel: Any, sources: tuple[Any, ...], box: Box, clip: Any, shape: tuple[int, int], **form: Any) -> Array:
    """The output of a kernel as height × width × 3. The scratch is as small as allowed, and not zeroed."""
    table, dtype, channels_last = (
        form.get("table", LEVELS),
        form.get("dtype", np.uint8),
        form.get("channels_last", True),
    )
    need = crop.scratch_bytes(clip[2], clip[3], shape[1], shape[0])
    scratch = np.random.default_rng(need).integers(0, 256, need + 64, dtype=np.uint8)
    after = scratch[need:].copy()
    out = np.full(3 * shape[0] * shape[1] * np.dtype(dtype).itemsize + 64, 171, np.uint8)
    places = np.array(box, np.float64), np.array(clip, np.int64)
    kernel(*sources, *places, form.get("flip", False), table, shape, channels_last, scratch[:need], out[:-64])
    assert (scratch[need:] == after).all()
    assert (out[-64:] == 171).all()
    values: Array = out[:-64].view(dtype)
    return values.reshape(*shape, 3) if channels_last else np.moveaxis(values.reshape(3, *shape), 0, 2)


def padded(plane: Array, more: int) -> Array:
    """The plane as a view of a wider array."""
    return np.pad(plane, ((0, 0), (0, more)), constant_values=200)


@st.composite
def resize_cases(draw: Any, most: int = 70) -> tuple[Array, Box, tuple[int, int, int, int], tuple[int, int]]:
    """A picture, a box in it, a clip around that, and another size."""
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    (left, right), (top, bottom) = draw(edges(width)), draw(edges(height))
    outside = st.booleans()
    clip = (
        int(left) if draw(outside) else 0,
        int(top) if draw(outside) else 0,
        int(np.ceil(right)) if draw(outside) else width,
        int(np.ceil(bottom)) if draw(outside) else height,
    )
    shape = draw(st.integers(1, most)), draw(st.integers(1, most))
    return picture(height, width, draw(st.integers(0, 9)), draw(st.booleans())), (left, top, right, bottom), clip, shape


# pixels --------------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(job=resize_cases(), flip=st.booleans(), channels_last=st.booleans(), more=st.integers(0, 3))
def test_resized_pixels_equal_pillows(job: Any, flip: bool, channels_last: bool, more: int) -> None:
    pixels, box, (left, top, right, bottom), shape = job
    source = np.pad(pixels, ((0, 0), (0, more), (0, 0)))
    form = {"flip": flip, "channels_last": channels_last}
    got = to_out(crop.rgb, (source,), box, (left, top, right, bottom), shape, **form)
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    expected = resized_by_pillow(pixels[top:bottom, left:right], inner, shape)
    assert (got == expected[:, :: -1 if flip else 1]).all()


@pytest.mark.parametrize(
    "size", [(1, 1, 64, 64), (64, 64, 1, 1), (40, 50, 40, 50), (600, 9, 12, 300), (9, 600, 300, 12), (519, 777, 33, 20)]
)
@pytest.mark.parametrize("smooth", [True, False])
def test_resized_pixels_of_any_size_equal_pillows(size: tuple[int, int, int, int], smooth: bool) -> None:
    height, width, *shape = size
    pixels, box = picture(height, width, 3, smooth), (0, 0, width, height)
    got = to_out(crop.rgb, (pixels,), box, box, (shape[0], shape[1]))
    assert (got == resized_by_pillow(pixels, box, (shape[0], shape[1]))).all()


@settings(max_examples=50)
@given(job=resize_cases())
def test_pillows_combined_crop_and_resize_differs_by_at_most_one(job: Any) -> None:
    pixels, box, _, shape = job
    got = to_out(crop.rgb, (pixels,), box, (0, 0, pixels.shape[1], pixels.shape[0]), shape)
    expected = np.asarray(Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BILINEAR, box))
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_torch_differs_by_at_most_one() -> None:
    torch = pytest.importorskip("torch")
    pixels = picture(120, 150, 1, smooth=False)
    for left, top, right, bottom, shape in [
        (3, 5, 100, 90, (40, 41)),
        (10, 20, 45, 41, (64, 50)),
        (0, 0, 150, 120, (7, 150)),
    ]:
        inner = torch.from_numpy(np.moveaxis(pixels, 2, 0)[None, :, top:bottom, left:right].copy())
        expected = torch.nn.functional.interpolate(inner, shape, mode="bilinear", antialias=True)[0].numpy()
        box = (left, top, right, bottom)
        got = to_out(crop.rgb, (pixels,), box, box, shape)
        assert np.abs(np.moveaxis(got, 2, 0).astype(int) - expected).max() <= 1


# planes --------------------------------------------------------------------------------------------------------------


def expected_of_planes(planes: tuple[Array, ...], factors: Any, box: Box, clip: Any, shape: Any) -> Array:
    """The crop in float64, without rounding."""
    across, down = factors
    small_box = (box[0] / across, box[1] / down, box[2] / across, box[3] / down)
    small_clip = (clip[0] // across, clip[1] // down, -(-clip[2] // across), -(-clip[3] // down))
    new = [resized(planes[0], box, clip, shape)]
    new += [resized(plane, small_box, small_clip, shape) for plane in planes[1:]]
    return coloured(np.stack(new, 2))


def split(pixels: Array, factors: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Three random planes; the chroma planes have the size of this sampling."""
    height, width = pixels.shape[:2]
    small = (-(-height // factors[1]), -(-width // factors[0]))
    return pixels[:, :, 0], pixels[: small[0], : small[1], 1], pixels[: small[0], : small[1], 2]


@settings(max_examples=150)
@given(
    job=resize_cases(),
    factors=st.sampled_from(SAMPLINGS),
    flip=st.booleans(),
    channels_last=st.booleans(),
    more=st.integers(0, 3),
)
def test_planes_are_resized_and_converted_to_rgb(
    job: Any, factors: tuple[int, int], flip: bool, channels_last: bool, more: int
) -> None:
    pixels, box, clip, shape = job
    planes = split(pixels, factors)
    sources = tuple(padded(plane, more) for plane in planes)
    got = to_out(crop.planes, (sources, factors), box, clip, shape, flip=flip, channels_last=channels_last)
    expected = expected_of_planes(planes, factors, box, clip, shape)[:, :: -1 if flip else 1]
    difference = np.abs(got - expected)
    assert difference.max() < FAR
    assert difference.mean() < 1


@pytest.mark.parametrize("size", [(700, 300, 33, 400), (300, 40, 600, 50), (280, 290, 224, 224), (1, 900, 300, 1)])
@pytest.mark.parametrize("factors", SAMPLINGS)
def test_planes_of_any_size_are_resized_and_converted_to_rgb(
    size: tuple[int, int, int, int], factors: tuple[int, int]
) -> None:
    height, width, *shape = size
    planes, box = split(picture(height, width, 8, smooth=False), factors), (0, 0, width, height)
    sources = tuple(padded(plane, 0) for plane in planes)
    got = to_out(crop.planes, (sources, factors), box, box, (shape[0], shape[1]))
    difference = np.abs(got - expected_of_planes(planes, factors, box, box, shape))
    assert difference.max() < FAR
    assert difference.mean() < 1


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(40, 50, 20, 25), (40, 50, 70, 60), (1, 1, 3, 2)])
def test_grey_planes_give_grey_pixels(size: tuple[int, int, int, int], channels_last: bool) -> None:
    height, width, *shape = size
    luma, box = picture(height, width, 5, smooth=False)[:, :, 0].copy(), (0, 0, width, height)
    sources = (luma, luma[:0], luma[:0])
    got = to_out(crop.planes, (sources, (1, 1)), box, box, (shape[0], shape[1]), channels_last=channels_last)
    expected = np.asarray(Image.fromarray(luma).resize(shape[::-1], Image.Resampling.BILINEAR))
    assert (got == got[:, :, :1]).all()
    assert np.abs(got[:, :, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_normalised_crop_has_the_normalised_levels(dtype: Any, channels_last: bool) -> None:
    planes = split(picture(50, 70, 2, smooth=True), (2, 2))
    planes = (planes[0].copy(), planes[1].copy(), planes[2].copy())
    box, shape = (3.5, 4, 60, 41.25), (31, 45)
    levels = to_out(crop.planes, (planes, (2, 2)), box, (0, 0, 70, 50), shape)
    scale, shift = np.array([0.017, 0.018, 0.0174]), np.array([-2.1, -2.0, -1.8])
    form = {"table": colour_conversion.value_table(scale, shift, dtype), "dtype": dtype, "channels_last": channels_last}
    got = to_out(crop.planes, (planes, (2, 2)), box, (0, 0, 70, 50), shape, **form)
    assert (got == (levels * scale + shift).astype(dtype)).all()


def test_scratch_for_the_largest_crop_is_enough_for_smaller_ones() -> None:
    random = np.random.default_rng(7)
    for _ in range(2000):
        sizes = random.integers(1, 3000, 4)
        smaller = random.integers(1, sizes + 1)
        assert crop.scratch_bytes(*smaller.tolist()) <= crop.scratch_bytes(*sizes.tolist())


@pytest.mark.parametrize(("smooth", "mean", "most"), [(True, 0.8, 8), (False, 4.5, 64)])
def test_crops_of_planes_differ_little_from_a_full_decode(smooth: bool, mean: float, most: int) -> None:
    # a decoder clips colours to RGB before averaging, we clip after it: noise is the worst case
    pixels = np.asarray(Image.fromarray(picture(374, 500, 4, smooth)).convert("YCbCr"))
    chroma = [np.asarray(Image.fromarray(pixels[:, :, c].copy()).reduce(2)) for c in (1, 2)]
    planes = pixels[:, :, 0].copy(), chroma[0].copy(), chroma[1].copy()
    decoded = Image.open(io.BytesIO(simplejpeg.encode_jpeg_yuv_planes(*planes, quality=100)))
    box, shape = (101, 51, 391, 331), (224, 224)
    expected = np.asarray(decoded.crop(box).resize(shape, Image.Resampling.BILINEAR))
    difference = np.abs(to_out(crop.planes, (planes, (2, 2)), box, box, shape).astype(int) - expected)
    assert difference.mean() < mean
    assert difference.max() <= most


# compilation ---------------------------------------------------------------------------------------------------------

DIGEST = """
import hashlib
import numpy as np
from mx8shards.kernels import colour_conversion, crop
random = np.random.default_rng(5)
pixels = random.integers(0, 256, (21, 19, 3), dtype=np.uint8)
planes = pixels[:, :, 0].copy(), pixels[:11, :10, 1].copy(), pixels[:11, :10, 2].copy()
digest = hashlib.sha256()
for dtype in (np.uint8, np.float16, np.float32):
    table = colour_conversion.value_table(np.full(3, 0.5), np.ones(3), dtype)
    for shape, flip, last in [((9, 8), False, True), ((23, 25), True, False)]:
        for kernel, sources in [(crop.rgb, (pixels,)), (crop.planes, (planes, (2, 2)))]:
            scratch = np.zeros(crop.scratch_bytes(19, 21, shape[1], shape[0]), np.uint8)
            out = np.zeros(3 * shape[0] * shape[1] * np.dtype(dtype).itemsize, np.uint8)
            places = np.array([1.5, 2, 18, 20.25]), np.array([0, 2, 19, 21])
            kernel(*sources, *places, flip, table, shape, last, scratch, out)
            digest.update(out)
print(digest.hexdigest())
"""


def test_python_and_compiled_kernels_give_equal_bytes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    run = [sys.executable, "-c", DIGEST]
    python = subprocess.run(run, env=environment, cwd=repository, check=True, capture_output=True, text=True).stdout
    exec(DIGEST, {})
    assert len(python) > 64
    assert python == capsys.readouterr().out
