"""Are anchors exact to a nanosecond, and wrong ones named with their sample?"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mx8shards.clips.anchor_times import anchors_of, exact_nanoseconds
from mx8shards.errors import SchemaError


@given(st.lists(st.floats(-(2.0**32), 2.0**32), min_size=1))
def test_seconds_are_rounded_as_exact_fractions_are(seconds: list[float]) -> None:
    found = exact_nanoseconds(np.array(seconds)).tolist()
    for each, exact in zip(found, [Fraction(number) * 10**9 for number in seconds], strict=True):
        assert abs(each - exact) <= Fraction(500_001, 1_000_000)  # half a nanosecond, but for ties


@pytest.mark.parametrize(
    ("values", "times", "starts"),
    [
        (np.array([0.5, 2.0]), [5 * 10**8, 2 * 10**9], [0, 1, 2]),
        (np.array([3, 4], np.uint8), [3 * 10**9, 4 * 10**9], [0, 1, 2]),
        (np.array([[1, 2], [3, 4]], np.int32), [10**9, 2 * 10**9, 3 * 10**9, 4 * 10**9], [0, 2, 4]),
        ([[], [1, 0.25], []], [10**9, 25 * 10**7], [0, 0, 2, 2]),
        ([np.array([0.5], np.float16)], [5 * 10**8], [0, 1]),
        ([], [], [0]),
        ([1, 2.5], [10**9, 25 * 10**8], [0, 1, 2]),
    ],
)
def test_a_video_has_as_many_anchors_as_its_value_has_numbers(values: Any, times: list[int], starts: list[int]) -> None:
    found = anchors_of("grasp", values, "first")
    assert [each.tolist() for each in found] == [times, starts]
    assert all(each.dtype == np.int64 for each in found)


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30_000, 1001), Fraction(50)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_time_of_a_frame_is_not_before_it_because_it_was_rounded(rate: Fraction, dtype: type) -> None:
    frames = [Fraction(number) / rate for number in range(0, 30_000, 7)]  # a quarter of an hour
    (found, _) = anchors_of("time", [np.array(list(map(float, frames)), dtype)], "first")
    early = [frame * 10**9 - time for frame, time in zip(frames, found.tolist(), strict=True)]
    assert max(early) <= 1
    assert min(early) >= -70_000  # of 20 ms and more, the distance of two frames


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"1.5", "a number, or several, got bytes of length 3"),
        ("1.5", "a number, or several, got str"),
        (np.zeros((2, 7), np.float32), r"a number, or several, got float32 array of shape \(2, 7\)"),
        ([1, [2, 3]], "a number, or several, got list"),
        (True, "a number, or several, got bool|got int True"),
        (None, "a number, or several, got None"),
        (10**30, "a number, or several, got int"),
        ([0.0, float("nan")], "got nan .*empty list, in a column of encoding json"),
        (float("inf"), "seconds from the first frame of the video, got inf"),
        (np.array([-(2**63)]), "seconds from the first frame of the video, got -9.2"),
        (1_700_000_000_000, "seconds from the first frame of the video, got 17000"),
    ],
)
def test_a_value_that_is_no_time_is_named_with_its_sample(value: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=f"column 'grasp': sample 1: expected .*{message}"):
        anchors_of("grasp", [0.5, value], "first")
    if isinstance(value, float):
        with pytest.raises(SchemaError, match=f"column 'grasp': sample 2: expected .*{message}"):
            anchors_of("grasp", np.array([0.5, 1.0, value]), "first")
