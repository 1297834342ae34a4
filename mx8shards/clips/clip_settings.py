"""Which clips does `dataset.clips(…)` ask for? Its arguments, checked."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NoReturn

from mx8shards.errors import SettingError, finite_numbers, is_number, one_of, shown, whole_number
from mx8shards.format.clip_times import CLOCKS, NANOSECONDS, SHORT, ClipTimes, Clock, Short

_MOST_FRAMES = 1 << 16  # of a clip
_MOST = 1 << 40
_MOST_FPS = 100_000
_MOST_SECONDS = 10**9


def clip_times(
    frames: int | None,
    stride: int | None,
    every: int | None,
    fps: Any,
    at: Sequence[float] | None,
    anchors: str | None,
    random: int | None,
    short: Short,
    clock: Clock = "first",
) -> ClipTimes:
    """The frames of clips; SettingError for arguments that are invalid or contradict each other."""
    one_of("short", short, SHORT)
    one_of("clock", clock, CLOCKS)
    if (at is None) != (anchors is None):
        _refuse("at and anchors", "both, or neither", (at, anchors))
    if at is not None:
        given = {"frames": frames, "stride": stride, "every": every, "fps": fps, "random": random}
        for name, value in given.items():
            if value is not None:
                _refuse(name, "None beside at=, which says where the frames are", value)
        return _around_anchors(at, anchors, clock)
    if frames is None:
        _refuse("frames", "the number of frames of a clip", frames)
    if fps is not None and stride is not None:
        _refuse("stride", "None beside fps=", stride)
    if random is not None and every is not None:
        _refuse("every", "None beside random=", every)
    count = whole_number("frames", frames, 1, _MOST_FRAMES)
    step = 1 if stride is None else whole_number("stride", stride, 1, _MOST)
    return ClipTimes(
        frames=count,
        stride=step,
        every=(count - 1) * step + 1 if every is None else whole_number("every", every, 1, _MOST),
        fps=None if fps is None else _rate(fps),
        random=None if random is None else whole_number("random", random, 1, _MOST_FRAMES),
        short=short,
        clock=clock,
    )


def nanoseconds(seconds: float) -> int:
    """Seconds as an integer number of nanoseconds."""
    return round(Fraction(seconds) * NANOSECONDS)


def _around_anchors(at: Any, anchors: Any, clock: Clock) -> ClipTimes:
    if not isinstance(anchors, str):
        _refuse("anchors", "the name of a column", anchors)
    offsets = finite_numbers(at)
    if offsets is None or len(offsets) > _MOST_FRAMES or max(map(abs, offsets)) > _MOST_SECONDS:
        _refuse("at", "seconds before or after an anchor, such as [-0.2, -0.1, 0]", at)
    return ClipTimes(frames=len(offsets), at=tuple(map(nanoseconds, offsets)), anchors=anchors, clock=clock)


def _rate(fps: Any) -> Fraction:
    """Frames per second as a fraction: 29.97 is 2997/100, as it is written."""
    if not is_number(fps) or not 0 < fps <= _MOST_FPS:
        _refuse("fps", f"a number above 0 and up to {_MOST_FPS}", fps)
    rate = fps if isinstance(fps, (int, Fraction)) else Fraction(repr(float(fps)))
    return Fraction(rate).limit_denominator(1 << 20)


def _refuse(name: str, expected: str, found: object) -> NoReturn:
    raise SettingError(subject=name, expected=expected, found=shown(found))
