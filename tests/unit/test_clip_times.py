"""Are clips counted, and their frames found, as simple arithmetic with fractions says? (format.clip_times)"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.clips.clip_settings import clip_times
from mx8shards.clips.clip_view import ClipView
from mx8shards.format.clip_times import ClipTimes, VideoColumns, count_clips, frames_of, is_short, length_of, seconds_of
from mx8shards.format.packet_index import PacketIndex, VideoFacts
from mx8shards.views import Select, Whole

ALL = {"frames": None, "stride": None, "every": None, "fps": None, "at": None, "anchors": None, "random": None}


def video(pts: list[int], end: int, time_base: tuple[int, int] = (1, 25)) -> PacketIndex:
    """The index of a video whose frames have these times; the packets are in another order."""
    facts = VideoFacts(
        codec="h264",
        pixel_format="yuv420p",
        width=16,
        height=16,
        rotation=0,
        time_base=time_base,
        sample_aspect=(1, 1),
        matrix=2,
        range=0,
        siting=0,
        reorder=0,
        end=end,
        stream=0,
        slices=True,
        decoded=True,
    )
    count = len(pts)
    order = np.random.default_rng(count).permutation(count)
    nothing, shown = np.zeros(count, np.int64), np.ones(count, bool)
    return PacketIndex(facts, b"", np.array(pts)[order], nothing, nothing, nothing, shown, shown, shown)


@st.composite
def any_video(draw: Any) -> PacketIndex:
    steps = draw(st.lists(st.integers(1, 9), min_size=1, max_size=30))
    pts = np.cumsum([draw(st.integers(-50, 50)), *steps]).tolist()
    base = draw(st.sampled_from([(1, 25), (1, 1000), (1, 90_000), (1001, 30_000), (7, 3)]))
    return video(pts[:-1], pts[-1], base)


def test_clips_are_counted_by_the_rule() -> None:
    times = ClipTimes(frames=16, stride=2, every=8)
    lengths = np.arange(200)
    starts = [[start for start in range(0, length, 8) if start + 31 <= length] for length in lengths]
    assert count_clips(times, lengths).tolist() == list(map(len, starts))
    padded = count_clips(ClipTimes(frames=16, stride=2, every=8, short="pad"), lengths)
    assert padded.tolist() == [len(found) or min(length, 1) for found, length in zip(starts, lengths, strict=True)]
    drawn = count_clips(ClipTimes(frames=16, stride=2, random=3), lengths)
    assert drawn.tolist() == [3 * bool(found) for found in starts]


@given(index=any_video(), rate=st.fractions(Fraction(1, 10), 200), first=st.integers(0, 40))
def test_a_rate_picks_the_frame_shown_at_each_moment(index: PacketIndex, rate: Fraction, first: int) -> None:
    times = ClipTimes(frames=5, fps=rate, short="pad")
    unit = Fraction(*index.facts.time_base)
    shown = [(int(time) - int(index.pts.min())) * unit for time in sorted(index.pts)]
    end = (index.facts.end - int(index.pts.min())) * unit
    length = sum(Fraction(k) / rate < end for k in range(int(end * rate) + 2))
    assert length_of(times, index) == length
    clip = frames_of(times, first, index)
    for k, number, valid in zip(range(first, first + 5), clip.numbers, clip.valid, strict=True):
        moment = min(k, length - 1) / rate
        assert valid == (k < length)
        assert number == sum(time <= moment for time in shown) - 1


@given(
    index=any_video(), anchor=st.integers(-(10**9), 10**10), offsets=st.lists(st.integers(-(10**9), 10**9), min_size=1)
)
def test_anchors_pick_the_frames_shown_around_them(index: PacketIndex, anchor: int, offsets: list[int]) -> None:
    clip = frames_of(ClipTimes(frames=len(offsets), at=tuple(offsets)), anchor, index)
    unit = Fraction(*index.facts.time_base)
    shown = [(int(time) - int(index.pts.min())) * unit for time in sorted(index.pts)]
    end = (index.facts.end - int(index.pts.min())) * unit
    for offset, number, valid in zip(offsets, clip.numbers, clip.valid, strict=True):
        moment = Fraction(anchor + offset + 1000, 10**9)
        moment = moment // unit * unit
        assert valid == (0 <= moment < end)
        assert number == max(sum(time <= moment for time in shown) - 1, 0)


def test_a_time_that_was_rounded_as_a_float_is_not_before_its_frame() -> None:
    index = video(list(range(300)), 300, (1, 30))
    times = clip_times(**{**ALL, "at": [0], "anchors": "x"}, short="drop")
    for number in range(300):
        for seconds in (number / 30, float(np.float32(number / 30)) if number < 100 else number / 30):
            start = round(Fraction(seconds) * 10**9)
            assert frames_of(times, start, index).numbers.tolist() == [number]


def test_a_short_video_is_looped_or_padded() -> None:
    index = video([0, 1, 2], 3)
    looped = frames_of(ClipTimes(frames=4, stride=2, short="loop"), 0, index)
    padded = frames_of(ClipTimes(frames=4, stride=2, short="pad"), 0, index)
    assert looped.numbers.tolist() == [0, 2, 1, 0]
    assert looped.valid.all()
    assert padded.numbers.tolist() == [0, 2, 2, 2]
    assert padded.valid.tolist() == [True, True, False, False]
    assert seconds_of(padded, index) == (0, 3 / 25)


def test_a_clip_that_its_facts_promised_is_short() -> None:
    index = video(list(range(10)), 10)
    assert not is_short(ClipTimes(frames=4), 6, index)
    assert is_short(ClipTimes(frames=4), 7, index)
    assert is_short(ClipTimes(frames=4, short="loop"), 7, index)
    assert not is_short(ClipTimes(frames=40, short="pad"), 0, index)


def columns(times: ClipTimes) -> VideoColumns:
    return VideoColumns(names=("video",), packets=("packets",), times=times)


def test_a_view_has_the_clips_of_each_video_one_after_another() -> None:
    view = ClipView(Whole(3), columns(ClipTimes(frames=4, every=3)), np.array([10, 2, 7]))
    ids, extras = view.resolve(np.arange(len(view)))
    assert ids.tolist() == [0, 0, 0, 2, 2]
    assert extras["clip"].tolist() == [0, 1, 2, 0, 1]
    assert extras["clip_start"].tolist() == [0, 3, 6, 0, 3]
    assert extras["clip_id"].tolist() == list(range(5))
    assert view.occurrences == 3


def test_clips_of_repeated_videos_have_occurrences_of_their_own() -> None:
    base = Select(Whole(2), [1, 0, 1])
    view = ClipView(base, columns(ClipTimes(frames=4, every=3)), np.array([10, 7, 10]))
    ids, extras = view.resolve(np.arange(len(view)))
    pairs = list(zip(ids.tolist(), extras["occurrence"].tolist(), strict=True))
    assert len(set(pairs)) == len(view)
    assert max(occurrence for _, occurrence in pairs) < view.occurrences


def test_random_starts_are_uniform_and_depend_on_seed_and_epoch() -> None:
    view = ClipView(Whole(2), columns(ClipTimes(frames=3, stride=2, random=4_000)), np.array([8, 5]))
    positions = np.arange(len(view))
    starts = {key: view.resolve(positions, *key)[1]["clip_start"] for key in [(0, 0), (1, 0), (0, 1)]}
    counts = np.bincount(starts[0, 0][:4_000])
    assert len(counts) == 4
    assert np.abs(counts - 1_000).max() < 150
    assert (starts[0, 0][4_000:] == 0).all()
    assert (starts[0, 0] != starts[1, 0]).any()
    assert (starts[0, 0] != starts[0, 1]).any()


def test_the_digest_tells_settings_apart() -> None:
    settings = [
        ClipTimes(frames=4, every=3),
        ClipTimes(frames=4, every=4),
        ClipTimes(frames=4, every=3, short="pad"),
        ClipTimes(frames=4, random=3),
        ClipTimes(frames=4, every=3, fps=Fraction(4)),
        ClipTimes(frames=1, at=(0,), anchors="x"),
        ClipTimes(frames=1, at=(1,), anchors="x"),
        ClipTimes(frames=1, at=(0,), anchors="y"),
        ClipTimes(frames=4, every=3, clock="container"),
        ClipTimes(frames=1, at=(0,), anchors="x", clock="container"),
    ]
    lengths = np.array([10, 20])
    views = [ClipView(Whole(2), columns(times), lengths) for times in settings]
    assert len({view.digest for view in views}) == len(views)
    assert ClipView(Whole(2), columns(ClipTimes(frames=4, every=3)), lengths).digest == views[0].digest
    assert ClipView(Whole(3), columns(ClipTimes(frames=4, every=3)), lengths).digest != views[0].digest


def test_the_digest_is_that_of_the_specification(repository: Path) -> None:
    vectors = json.loads((repository / "format_spec" / "vectors" / "views.json").read_text())["clips"]
    times = ClipTimes(frames=16, stride=2, every=8)
    assert ClipView(Whole(10), columns(times), np.full(10, 99)).digest == vectors[0]["text"]
    offsets = clip_times(**{**ALL, "at": [-0.2, 0], "anchors": "x"}, short="drop").settings()
    assert ["at", [[-1, 5], [0, 1]]] in vectors[1]["list"]
    assert ["at", [[-1, 5], [0, 1]]] in offsets
    assert ["fps", [30000, 1001]] in ClipTimes(frames=2, fps=Fraction(30000, 1001)).settings()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "frames: expected the number of frames"),
        ({"frames": 0}, "frames: expected an int from 1"),
        ({"frames": 4, "stride": 0}, "stride: expected an int from 1"),
        ({"frames": 4, "every": -1}, "every: expected an int from 1"),
        ({"frames": 4, "fps": 10, "stride": 2}, "stride: expected None beside fps="),
        ({"frames": 4, "random": 2, "every": 2}, "every: expected None beside random="),
        ({"frames": 4, "fps": 0}, "fps: expected a number above 0"),
        ({"frames": 4, "fps": float("inf")}, "fps: expected a number above 0"),
        ({"frames": 4, "short": "cut"}, "short: expected one of 'drop', 'loop', 'pad'"),
        ({"frames": 4, "clock": "wall"}, "clock: expected one of 'first', 'container'"),
        ({"at": [0]}, "at and anchors: expected both"),
        ({"at": [0], "anchors": "x", "frames": 2}, "frames: expected None beside at="),
        ({"at": [], "anchors": "x"}, "at: expected seconds"),
        ({"at": [float("nan")], "anchors": "x"}, "at: expected seconds"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(mx8.SettingError, match=message):
        clip_times(**({**ALL, "short": "drop"} | given))


def test_a_rate_is_the_number_that_was_written() -> None:
    assert clip_times(**{**ALL, "frames": 2, "fps": 29.97}, short="drop").fps == Fraction(2997, 100)
    assert clip_times(**{**ALL, "frames": 2, "fps": Fraction(30000, 1001)}, short="drop").fps == Fraction(30000, 1001)


@pytest.mark.parametrize("rate", [None, Fraction(25)])
def test_cameras_of_different_lengths_repeat_and_end_with_the_clock(rate: Fraction | None) -> None:
    left, right = video(list(range(40)), 40), video(list(range(48)), 48)
    looped = frames_of(ClipTimes(frames=60, fps=rate, short="loop"), 0, right, left)
    assert looped.numbers.tolist() == [*range(40), *range(20)]
    assert looped.valid.all()
    padded = frames_of(ClipTimes(frames=60, fps=rate, short="pad"), 0, right, left)
    assert padded.numbers.tolist() == [*range(40), *[39] * 20]
    assert padded.valid.tolist() == [True] * 40 + [False] * 20


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30_000, 1001), Fraction(60), Fraction(25), Fraction(1000, 17)])
@pytest.mark.parametrize("clock", ["first", "container"])
def test_cameras_in_containers_that_round_times_and_in_others_show_equal_frames(rate: Fraction, clock: Any) -> None:
    moments = [number / rate for number in range(400)]
    cameras = [
        video([round(moment * per) for moment in moments[:-1]], round(moments[-1] * per), (1, per))
        for per in (1000, 90_000, 15_360, 1_000_000)
    ]
    times = ClipTimes(frames=133, stride=3, clock=clock)
    for left in cameras:
        for right in cameras:
            found = frames_of(times, 0, right, left)
            assert found.numbers.tolist() == [*range(0, 399, 3)]
            assert found.valid.all()


@pytest.mark.parametrize("rate", [None, Fraction(25)])
def test_cameras_that_begin_at_different_times_are_aligned_by_the_clock_that_was_chosen(rate: Fraction | None) -> None:
    left = video(list(range(20)), 20)  # 1/25 s each
    right = video([40 * number for number in range(10, 30)], 1_200, (1, 1_000))  # begins 0.4 s later, in milliseconds
    first = frames_of(ClipTimes(frames=12, fps=rate, short="pad"), 5, right, left)
    assert first.numbers.tolist() == [*range(5, 17)]
    assert first.valid.all()
    container = ClipTimes(frames=12, fps=rate, short="pad", clock="container")
    shared = frames_of(container, 5, right, left)
    assert shared.numbers.tolist() == [0] * 5 + list(range(7))
    assert shared.valid.tolist() == [False] * 5 + [True] * 7
    assert frames_of(container, 5, left, left).numbers.tolist() == [*range(5, 17)]
    back = frames_of(container, 8, left, right)  # the clip begins 0.4 + 0.32 s after time 0
    assert back.numbers.tolist() == [18, 19, *[19] * 10]
    assert back.valid.tolist() == [True] * 2 + [False] * 10


def test_anchors_on_the_clock_of_the_container_count_from_its_zero() -> None:
    since_1970 = video([1_700_000_000_000 + 40 * number for number in range(10)], 1_700_000_000_400, (1, 1_000))
    times = ClipTimes(frames=3, at=(-40_000_000, 0, 40_000_000), anchors="grasp", clock="container")
    assert frames_of(times, 1_700_000_000_080_000_000, since_1970).numbers.tolist() == [1, 2, 3]


def test_the_bounds_of_a_clip_are_those_of_its_earliest_and_latest_frames() -> None:
    whole, at = video(list(range(40)), 40), (0, -200_000_000, 200_000_000)
    assert seconds_of(frames_of(ClipTimes(frames=45, short="loop"), 0, whole), whole) == (0.0, 1.6)
    assert seconds_of(frames_of(ClipTimes(frames=3, at=at, anchors="grasp"), 10**9, whole), whole) == (0.8, 1.24)
