"""Is resampling exact to the last bit of each pixel?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mx8shards.kernels import resample
from tests.pixels import Array, edges, weights

ONE = 1 << resample.BITS


def weights_of(
    begin: float, end: float, low: int, high: int, total: int, flip: bool, kernel: Any
) -> tuple[Array, Array]:
    """The integer weights as a matrix, and the number of weights of each new pixel."""
    firsts, counts = np.full(total, -1), np.full(total, -1)
    table = np.full((total, resample.most_taps(end - begin, total)), -1, np.int32)
    kernel(begin, end, low, high, flip, firsts, counts, table)
    matrix = np.zeros((total, high), np.int64)
    for j in range(total):
        matrix[j, firsts[j] : firsts[j] + counts[j]] = table[j, : counts[j]]
        assert table[j, counts[j]] == 0
    return matrix, counts


@st.composite
def lines(draw: Any) -> tuple[float, float, int, int, int]:
    """begin, end, low, high and the number of new pixels."""
    high = draw(st.integers(1, 400))
    begin, end = draw(edges(high))
    return begin, end, draw(st.integers(0, int(begin))), high, draw(st.integers(1, 400))


@pytest.mark.parametrize("kernel", [resample.compute_taps, resample.compute_taps.py_func], ids=["compiled", "python"])  # type: ignore[attr-defined]
@settings(max_examples=60)
@given(line=lines(), flip=st.booleans())
def test_weights_form_a_triangle_and_add_up_to_one(kernel: Any, line: Any, flip: bool) -> None:
    begin, end, low, high, total = line
    matrix, counts = weights_of(begin, end, low, high, total, flip, kernel)
    expected = weights(begin, end, low, high, total)[:: -1 if flip else 1]
    assert np.abs(matrix - ONE * expected).max() <= 0.51
    assert (np.abs(matrix.sum(1) - ONE) <= counts / 2).all()
    assert not matrix[:, :low].any()


def test_with_an_unchanged_size_each_pixel_has_one_source() -> None:
    matrix, counts = weights_of(0.0, 50.0, 0, 50, 50, False, resample.compute_taps)
    assert (matrix == ONE * np.eye(50)).all()
    assert (counts == 1).all()


def test_weights_that_are_rounded_up_cannot_overflow_a_byte() -> None:
    # the longest JPEG in one pixel has the largest number of weights
    matrix, _ = weights_of(0.0, 65535.0, 0, 65535, 1, False, resample.compute_taps)
    rows = np.full((65535, 1), 255, np.uint8)
    out = np.zeros((1, 1), np.uint8)
    taps = np.zeros(1, np.int64), np.full(1, 65535), np.append(matrix[0], 0)[None].astype(np.int32)
    resample.blend(rows, 0, 0, 1, 0, taps, np.zeros(1, np.int32), out)
    assert 255 * int(matrix.sum()) + ONE // 2 < 1 << 31
    assert out[0, 0] == 255


@pytest.mark.parametrize("kernel", [resample.blend, resample.blend.py_func], ids=["compiled", "python"])  # type: ignore[attr-defined]
@settings(max_examples=30)
@given(line=lines(), seed=st.integers(0, 99), width=st.integers(1, 70), ahead=st.sampled_from([0, 3]))
def test_blended_rows_are_rounded_weighted_sums(kernel: Any, line: Any, seed: int, width: int, ahead: int) -> None:
    begin, end, low, high, total = line
    total = min(total, 20)
    firsts, counts = np.zeros(total, np.int64), np.zeros(total, np.int64)
    table = np.zeros((total, resample.most_taps(end - begin, total)), np.int32)
    resample.compute_taps(begin, end, low, high, False, firsts, counts, table)
    matrix, _ = weights_of(begin, end, low, high, total, False, resample.compute_taps)
    start = int(firsts.min())
    rows = np.random.default_rng(seed).integers(0, 256, (high - start, width + 5), dtype=np.uint8)
    out = np.full((total, width + 3), 171, np.uint8)
    kernel(rows, start, 2, width, ahead, (firsts, counts, table), np.zeros(width, np.int32), out)
    expected = (matrix[:, start:] @ rows[:, 2 : width + 2].astype(np.int64) + ONE // 2) >> resample.BITS
    assert (out[:, :width] == np.clip(expected, 0, 255)).all()
    assert (out[:, width:] == 171).all()


@pytest.mark.parametrize("kernel", [resample.transpose, resample.transpose.py_func], ids=["compiled", "python"])  # type: ignore[attr-defined]
@settings(max_examples=30)
@given(
    top=st.integers(0, 3),
    count=st.integers(1, 50),
    left=st.integers(0, 3),
    width=st.integers(1, 50),
    lane=st.integers(0, 2),
    ahead=st.sampled_from([0, 3]),
)
def test_transposed_rows_are_columns(
    kernel: Any, top: int, count: int, left: int, width: int, lane: int, ahead: int
) -> None:
    rows = np.random.default_rng(top).integers(0, 256, (top + count, left + width + 2), dtype=np.uint8)
    lane *= resample.LANES
    end = lane + resample.whole_lanes(count)
    out = np.full((width, end + resample.LANES), 171, np.uint8)
    kernel(rows, top, count, left, ahead, np.zeros(2 * resample.LANES * width, np.uint8), lane, out)
    assert (out[:, lane : lane + count] == rows[top:, left : left + width].T).all()
    assert (out[:, :lane] == 171).all()
    assert (out[:, end:] == 171).all()
