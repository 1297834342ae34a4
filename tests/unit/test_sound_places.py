"""Are frames of sound placed end to end although their times are rounded, and are gaps kept?"""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest

from mx8shards.media.sound_places import Grid, SoundPlaces, grid_of

RATE = 44_100
MILLISECOND = Fraction(RATE, 1_000)


def rounded(sample: int) -> Fraction:
    """The time of a sample in a container that counts milliseconds, in samples."""
    return round(sample / MILLISECOND) * MILLISECOND


def test_frames_with_rounded_times_lie_end_to_end() -> None:
    places = SoundPlaces(MILLISECOND, RATE)
    assert [places.place(rounded(begin), 1024) for begin in range(0, 90 * 1024, 1024)] == list(
        range(0, 90 * 1024, 1024)
    )


def test_a_gap_stays_a_gap() -> None:
    places = SoundPlaces(MILLISECOND, RATE)
    assert places.place(Fraction(0), 1024) == 0
    assert places.place(rounded(1124), 1024) == rounded(1124)


@pytest.mark.parametrize("first", [1, 7, 90])
def test_after_a_seek_frames_lie_where_those_from_the_beginning_do(first: int) -> None:
    frames = [SimpleNamespace(pts=round(begin / MILLISECOND), samples=1024) for begin in range(0, 4 * 1024, 1024)]
    grid = grid_of(frames, MILLISECOND, RATE)
    assert grid == Grid(Fraction(1024), 1024)
    places = SoundPlaces(MILLISECOND, RATE, grid)
    assert places.place(rounded(first * 1024 - 47), 47) == rounded(first * 1024 - 47)  # the end of a frame
    assert places.place(rounded(first * 1024), 1024) == first * 1024


def test_frames_of_several_sizes_have_no_grid_and_one_that_does_not_fit_is_not_used() -> None:
    frames = [SimpleNamespace(pts=pts, samples=samples) for pts, samples in ((0, 576), (13, 576), (26, 1024))]
    assert grid_of(frames, MILLISECOND, RATE) is None
    places = SoundPlaces(MILLISECOND, RATE, Grid(Fraction(0), 1024))
    assert places.place(MILLISECOND * 35, 1024) == MILLISECOND * 35
