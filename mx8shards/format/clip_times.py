"""Which frames does a clip have? Clips of a video are counted, and their frames found, with integers only.

A clip has `frames` frames, and begins at a *start*. What a start counts depends on the settings:

    stride   frames of the video: the clip has every `stride`-th frame
    fps      moments 0, 1/fps, 2/fps, … after the first frame: the clip has the frame shown at each moment
    at       nanoseconds: the clip has the frames shown at these offsets from the start

A frame is shown from its own time until that of the next frame. Times count from the first frame of each video, or,
with the clock "container", from time 0 of its container, so that cameras may begin at different times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mx8shards.format.packet_index import PacketIndex

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Short = Literal["drop", "loop", "pad"]
SHORT: tuple[Short, ...] = ("drop", "loop", "pad")
Clock = Literal["first", "container"]
CLOCKS: tuple[Clock, ...] = ("first", "container")

# The names of extras: the position of a clip among all clips, its number in its video, and where it begins.
CLIP_ID = "clip_id"
CLIP = "clip"
START = "clip_start"

SOUND = ".audio"  # behind the name of a column of videos: the key of the sound of its clips

NANOSECONDS = 10**9
_EARLY = 1_000  # nanoseconds by which a time given as a float may be before its frame, because floats are rounded


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTimes:
    """Which frames a clip has, and which clips a video has. The module explains `stride`, `fps` and `at`.

    every    the distance between the starts of two clips
    at       offsets in nanoseconds from each time in the column `anchors`
    random   the number of clips with random starts that a video has in each epoch; None: clips cover the video
    short    what becomes of a video that is shorter than a clip: it has no clip, its frames repeat from the beginning,
             or its last frame repeats
    clock    where times count from, those of anchors and those that several columns have in common: the first frame of
             each video, or time 0 of its container
    """

    frames: int
    stride: int = 1
    every: int = 1
    fps: Fraction | None = None
    at: tuple[int, ...] | None = None
    anchors: str = ""
    random: int | None = None
    short: Short = "drop"
    clock: Clock = "first"

    @property
    def span(self) -> int:
        """How many frames of the video, or moments, there are from the first one of a clip to its last."""
        return (self.frames - 1) * self.stride + 1

    def settings(self) -> list[list[object]]:
        """The settings that apply, as pairs of name and JSON value, in ascending order of their names (spec §12.6)."""
        found: dict[str, object] = {} if self.clock == "first" else {"clock": self.clock}
        if self.at is not None:
            offsets = [Fraction(offset, NANOSECONDS) for offset in self.at]
            found |= {"anchors": self.anchors, "at": [[each.numerator, each.denominator] for each in offsets]}
            return [[name, found[name]] for name in sorted(found)]
        found |= {"frames": self.frames, "short": self.short}
        found |= {"every": self.every} if self.random is None else {"random": self.random}
        found |= {"stride": self.stride} if self.fps is None else {"fps": [self.fps.numerator, self.fps.denominator]}
        return [[name, found[name]] for name in sorted(found)]


class IndexFile(Protocol):
    """A file with the packet indices of a dataset that has no column of them."""

    def size(self, sample_id: int, /) -> int:
        """The size of the packet index of a sample; 0 if it has none."""

    def read(self, sample_id: int, most: int, /) -> bytes:
        """The first `most` bytes of the packet index of a sample."""

    def reason(self, sample_id: int, /) -> str:
        """Why a sample has no packet index; empty if that is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoColumns:
    """The columns of videos of which a view has clips. The first is the reference: starts count its frames or moments.

    packets      for each of them, the column or the file with its packet index
    mean_length  of the videos of the reference, in frames or moments; 0 if it is not known
    """

    names: tuple[str, ...]
    packets: tuple[str | IndexFile, ...]
    times: ClipTimes
    mean_length: float = 0.0

    def packets_of(self, name: str) -> str | IndexFile:
        """The column or the file with the packet index of a column of videos."""
        return self.packets[self.names.index(name)]


class ClipFrames(NamedTuple):
    """The frames of one clip by their numbers in order of presentation, and which of them are in the video."""

    numbers: Ints
    valid: Bools


def moments(fps: Fraction, duration: int, time_base: tuple[int, int]) -> int:
    """How many of the moments 0, 1/fps, 2/fps, … there are in a video of this duration in units of its time base."""
    unit, per_second = time_base
    return -(-duration * unit * fps.numerator // (per_second * fps.denominator))


def count_clips(times: ClipTimes, lengths: Ints) -> Ints:
    """The number of clips of videos of these lengths, in frames or moments."""
    long = lengths >= times.span
    if times.random is not None:
        counts = np.where(long, times.random, 0)
        spare = times.random
    else:
        counts = np.where(long, 1 + (lengths - times.span) // times.every, 0)
        spare = 1
    if times.short != "drop":
        counts[~long & (lengths > 0)] = spare
    return counts.astype(np.int64)


def frames_of(times: ClipTimes, start: int, index: PacketIndex, reference: PacketIndex | None = None) -> ClipFrames:
    """The frames of the clip that begins at `start`.

    `reference`: the index of the video whose frames the start counts, if that is another video of the same sample.
    Then a clip with a stride has the frames that are shown at the times of that video's frames.
    """
    steps = start + times.stride * np.arange(times.frames)
    first = index if reference is None else reference
    valid: Bools | bool = True
    if times.at is not None:
        ticks = [_ticks(start + offset + _EARLY, index.facts.time_base) for offset in times.at]
    elif times.fps is not None:
        steps, valid = _within(steps, length_of(times, first), times.short)
        ticks = _ticks_of_moments(steps.tolist(), times, first, index.facts.time_base)
    else:
        steps, valid = _within(steps, len(first.frames), times.short)
        if first is index:
            return ClipFrames(steps, valid)
        ticks = _ticks_of_frames(steps, times, first, index.facts.time_base)
    found = _shown_at(ticks, index, _origin(times, index))
    return ClipFrames(found.numbers, found.valid & valid)


def is_short(times: ClipTimes, start: int, reference: PacketIndex) -> bool:
    """Whether a clip goes on after the end of its video, although the video was counted as long enough for it."""
    if times.at is not None or (start == 0 and times.short != "drop"):
        return False
    return start + times.span > length_of(times, reference)


def length_of(times: ClipTimes, index: PacketIndex) -> int:
    """The length of a video in frames or moments."""
    shown = index.pts[index.frames]
    if times.fps is None:
        return len(shown)
    return moments(times.fps, index.facts.end - int(shown[0]), index.facts.time_base)


def bounds_of(clip: ClipFrames, index: PacketIndex) -> tuple[Fraction, Fraction]:
    """When the earliest frame of a clip is first shown and its latest frame is last shown, in seconds."""
    shown = index.pts[index.frames]
    numbers = clip.numbers[clip.valid] if clip.valid.any() else clip.numbers
    first, last = int(numbers.min()), int(numbers.max())
    end = int(shown[last + 1]) if last + 1 < len(shown) else index.facts.end
    unit, begin = Fraction(*index.facts.time_base), int(shown[0])
    return (int(shown[first]) - begin) * unit, (end - begin) * unit


def seconds_of(clip: ClipFrames, index: PacketIndex) -> tuple[float, float]:
    """The bounds of a clip as floats."""
    begin, end = bounds_of(clip, index)
    return float(begin), float(end)


def _within(steps: Ints, length: int, short: Short) -> tuple[Ints, Bools]:
    """The steps within a video of this length: those after its end repeat it, or its last frame."""
    inside = steps < length
    if inside.all():
        return steps, inside
    if short == "loop":
        return steps % length, np.ones(len(steps), np.bool_)
    return np.minimum(steps, length - 1), inside


def _ticks(nanoseconds: int, time_base: tuple[int, int]) -> int:
    """A time in units of the time base, rounded down."""
    unit, per_second = time_base
    return nanoseconds * per_second // (NANOSECONDS * unit)


def _origin(times: ClipTimes, index: PacketIndex) -> int:
    """When the first frame is shown, in units of its time base, by the clock from whose time 0 times count."""
    return 0 if times.clock == "first" else int(index.pts[index.frames[0]])


def _ticks_of_moments(
    steps: Sequence[int], times: ClipTimes, reference: PacketIndex, want: tuple[int, int]
) -> list[int]:
    """The times of these moments of a video in units of another time base, rounded down."""
    assert times.fps is not None
    (unit, per_second), rate = reference.facts.time_base, times.fps
    begin, step = _origin(times, reference) * unit * rate.numerator, rate.denominator * per_second
    divisor = per_second * rate.numerator * want[0]
    return [(begin + number * step) * want[1] // divisor for number in steps]


def _ticks_of_frames(numbers: Ints, times: ClipTimes, reference: PacketIndex, want: tuple[int, int]) -> list[int]:
    """The times of these frames of a video in units of another time base, rounded down.

    Almost half a unit of both time bases is added: containers round times, so that of two frames of the same moment the
    second one may be shown that much later.
    """
    shown, (unit, per_second) = reference.pts[reference.frames], reference.facts.time_base
    ticks = shown[numbers] - shown[0] + _origin(times, reference)
    ours, theirs = unit * want[1], per_second * want[0]
    return [(2 * tick * ours + ours + theirs - 1) // (2 * theirs) for tick in ticks.tolist()]


def _shown_at(ticks: Sequence[int], index: PacketIndex, begin: int) -> ClipFrames:
    """The frames shown at these times, if the first one is shown at `begin`. Other times have the first or last one."""
    shown = index.pts[index.frames]
    length = index.facts.end - int(shown[0])
    valid = np.array([0 <= tick - begin < length for tick in ticks], np.bool_)
    inside = np.array([min(max(tick - begin, 0), length - 1) for tick in ticks], np.int64)
    return ClipFrames(np.searchsorted(shown - shown[0], inside, side="right") - 1, valid)
