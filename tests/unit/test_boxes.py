"""Are crop boxes distributed like torchvision's, and always inside the picture?"""

from __future__ import annotations

import math
import random
from collections import namedtuple
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mx8shards.kernels.boxes import BOX, COVER, CROP, DRAWS, NATIVE, RANDOM, WHOLE, WITHIN, find_box
from tests.pictures import Part, get_params, part_by

Array = npt.NDArray[Any]

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


Box = namedtuple("Box", BOX.names)


def crop_of(kind: int, height: int, width: int, **fields: Any) -> Any:
    crop = np.zeros(1, CROP)
    crop[0] = (kind, height, width, 0, *SCALE, *RATIO, 0.0, 0)
    for name, value in fields.items():
        crop[0][name] = value
    return crop[0]


def found(crop: Any, draws: Array, width: int, height: int, find: Any = find_box) -> Box:
    box: Any = np.full(1, -7, BOX)
    find(crop, draws, width, height, box[0])
    return Box(*box[0].item())


# random boxes ---------------------------------------------------------------------------------------------------------


def part_of(box: Box) -> Part:
    assert (box.left, box.top, box.right, box.bottom) == (box.low_x, box.low_y, box.high_x, box.high_y)
    return box.low_x, box.low_y, box.high_x - box.low_x, box.high_y - box.low_y


SIDES = st.one_of(st.integers(1, 12), st.integers(1, 700), st.integers(1, 5_000))
SCALES = st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)).map(sorted).map(tuple)
RATIOS = st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)).map(sorted).map(tuple)


@settings(max_examples=500)
@given(width=SIDES, height=SIDES, scale=SCALES, ratio=RATIOS, seed=st.integers(0, 1 << 32), flip=st.floats(0, 1))
def test_random_boxes_equal_the_reference_for_the_same_random_numbers(
    width: int, height: int, scale: Any, ratio: Any, seed: int, flip: float
) -> None:
    fields = {"scale_low": scale[0], "scale_high": scale[1], "ratio_low": ratio[0], "ratio_high": ratio[1]}
    crop = crop_of(RANDOM, 224, 224, flip=flip, **fields)
    draws = np.random.default_rng(seed).random(DRAWS)
    box = found(crop, draws, width, height)
    assert box == found(crop, draws, width, height, find_box.py_func)
    assert part_of(box) == part_by(draws, width, height, scale, ratio)
    assert 0 <= box.left < box.right <= width
    assert 0 <= box.top < box.bottom <= height
    assert box.flip == (draws[-1] < flip)


@pytest.mark.parametrize("draw", [0.0, 1 - 2.0**-53])
@pytest.mark.parametrize("size", [(1, 1), (1, 5_000), (5_000, 1), (341, 256), (65_535, 65_535)])
def test_extreme_random_numbers_give_boxes_inside_the_picture(size: tuple[int, int], draw: float) -> None:
    left, top, width, height = part_of(found(crop_of(RANDOM, 224, 224), np.full(DRAWS, draw), *size))
    assert 0 <= left <= left + width <= size[0]
    assert 0 <= top <= top + height <= size[1]
    assert min(width, height) >= 1


def measures(parts: list[Part], width: int, height: int) -> dict[str, Array]:
    """The compared properties of a distribution of boxes."""
    left, top, across, down = np.array(parts, np.float64).T
    return {
        "x": left,
        "y": top,
        "width": across,
        "height": down,
        "area": across * down,
        "aspect": across / down,
        "centre": (left + across / 2) / width + (top + down / 2) / height,
        "touches": ((left == 0) | (top == 0) | (left + across == width) | (top + down == height)).astype(np.float64),
    }


def distance(a: Array, b: Array) -> float:
    """The Kolmogorov-Smirnov statistic: the largest difference of two empirical distributions."""
    values = np.union1d(a, b)
    shares = [np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize("size", [(341, 256), (256, 341), (1_000, 100), (100, 1_000), (1, 1), (500, 375), (7, 3)])
def test_random_boxes_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    """Two samples of one distribution differ by more than 1.95 · sqrt(2 / count) with a probability of 0.001."""
    count = 8_000
    chance = random.Random(f"torchvision {size}")
    theirs = [get_params(*size, SCALE, RATIO, chance.uniform, chance.randrange) for _ in range(count)]
    crop, draws = crop_of(RANDOM, 224, 224), np.random.default_rng(11).random((count, DRAWS))
    ours = [part_of(found(crop, draws[i], *size)) for i in range(count)]
    mine, other = measures(ours, *size), measures(theirs, *size)
    far = {name: round(distance(mine[name], other[name]), 4) for name in mine}
    assert max(far.values()) < 1.95 * math.sqrt(2 / count), far


def test_the_distribution_test_detects_boxes_pushed_to_the_edges() -> None:
    """A wrong distribution, whose positions are drawn first and then clipped to the picture, fails the test above."""
    chance = random.Random(5)
    theirs = [get_params(341, 256, SCALE, RATIO, chance.uniform, chance.randrange) for _ in range(2_000)]
    pushed = [(min(chance.randrange(341), 341 - w), min(chance.randrange(256), 256 - h), w, h) for *_, w, h in theirs]
    mine, other = measures(pushed, 341, 256), measures(theirs, 341, 256)
    assert min(distance(mine[name], other[name]) for name in ("x", "y", "touches")) > 1.95 * math.sqrt(2 / 2_000)


# centred boxes --------------------------------------------------------------------------------------------------------

OUT = st.integers(1, 600)


@st.composite
def sizes_below_resize(draw: Any) -> tuple[int, int, int]:
    height, width = draw(OUT), draw(OUT)
    return height, width, draw(st.integers(max(height, width), 1_000))


@settings(max_examples=300)
@given(size=sizes_below_resize(), width=SIDES, height=SIDES)
def test_with_resize_the_centre_box_is_the_middle_of_the_resized_picture(
    size: tuple[int, int, int], width: int, height: int
) -> None:
    """Like torchvision's Resize and CenterCrop: whole pixels of the resized picture, mapped back to the original."""
    out_height, out_width, resize = size
    crop = crop_of(WITHIN, out_height, out_width, resize=resize)
    box = found(crop, np.zeros(DRAWS), width, height)
    assert box == found(crop, np.zeros(DRAWS), width, height, find_box.py_func)
    short, long = min(width, height), max(width, height)
    new_short, new_long = resize, int(resize * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    top, left = round((new_height - out_height) / 2.0), round((new_width - out_width) / 2.0)
    edges = left * width / new_width, top * height / new_height
    ends = (left + out_width) * width / new_width, (top + out_height) * height / new_height
    assert box[:4] == pytest.approx((*edges, *ends), rel=1e-12, abs=1e-9)
    check_inside(box, width, height)
    assert (box.height, box.width) == (out_height, out_width)


@settings(max_examples=300)
@given(kind=st.sampled_from([COVER, NATIVE]), out_width=OUT, out_height=OUT, width=SIDES, height=SIDES)
def test_without_resize_the_centre_box_is_the_largest_of_its_aspect_ratio(
    kind: int, out_width: int, out_height: int, width: int, height: int
) -> None:
    crop = crop_of(kind, out_height, out_width)
    box = found(crop, np.zeros(DRAWS), width, height)
    assert box == found(crop, np.zeros(DRAWS), width, height, find_box.py_func)
    across, down = box.right - box.left, box.bottom - box.top
    assert across * out_height == pytest.approx(down * out_width, rel=1e-9)
    fits = out_width <= width and out_height <= height
    if kind == NATIVE and fits:
        assert (across, down) == (out_width, out_height)
        assert box[:4] == tuple(map(int, box[:4]))  # no pixel is resampled
        # torchvision's CenterCrop
        assert (box.top, box.left) == (round((height - out_height) / 2), round((width - out_width) / 2))
    else:
        assert max(across / width, down / height) == pytest.approx(1, rel=1e-9)
        assert (box.left + box.right, box.top + box.bottom) == pytest.approx((width, height), abs=1.01)
    check_inside(box, width, height)
    assert (box.height, box.width) == (out_height, out_width)


def check_inside(box: Box, width: int, height: int) -> None:
    assert 0 <= box.left < box.right <= width
    assert 0 <= box.top < box.bottom <= height
    assert (box.low_x, box.low_y, box.high_x, box.high_y) == (0, 0, width, height)
    assert box.flip == 0


@given(width=SIDES, height=SIDES)
def test_the_box_of_a_whole_picture_has_its_size(width: int, height: int) -> None:
    box = found(crop_of(WHOLE, 0, 0), np.zeros(DRAWS), width, height)
    assert box == found(crop_of(WHOLE, 0, 0), np.zeros(DRAWS), width, height, find_box.py_func)
    assert box[:4] == (0, 0, width, height)
    assert (box.height, box.width) == (height, width)
    check_inside(box, width, height)


@pytest.mark.parametrize("kind", [RANDOM, COVER, NATIVE, WITHIN])
@pytest.mark.parametrize(
    ("flip", "draw", "flipped"), [(0.0, 0.0, 0), (1.0, 1 - 2.0**-53, 1), (0.3, 0.3, 0), (0.3, 0.29, 1)]
)
def test_a_crop_is_mirrored_if_its_random_number_is_below_the_probability(
    kind: int, flip: float, draw: float, flipped: int
) -> None:
    draws = np.full(DRAWS, 0.5)
    draws[-1] = draw
    assert found(crop_of(kind, 8, 8, flip=flip, resize=8), draws, 20, 30).flip == flipped
