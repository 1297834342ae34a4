"""Where can a video be cut without re-encoding, and which frames are in a part?

A part is the frames that are shown from its begin to before its end, in units of the time base. Its packets begin with
a keyframe from which all of them are decoded; further frames, which they need, are in it and not shown.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError
from mx8shards.format.packet_index import PacketIndex

Span = tuple[int, int]


def frames_in(index: PacketIndex, span: Span) -> npt.NDArray[np.int64]:
    """The packets of the frames in a part, in the order of presentation. DecodeError if there are none."""
    times = index.pts[index.frames]
    found = index.frames[(times >= span[0]) & (times < span[1])]
    if not len(found):
        unit, per_second = index.facts.time_base
        begin, end = (f"{time * unit / per_second:g}" for time in span)
        last = f"{index.facts.end * unit / per_second:g}"
        if span[0] >= index.facts.end:
            raise DecodeError(expected=f"a part that begins before the video ends, at {last} s", found=f"{begin} s")
        raise DecodeError(expected=f"frames from {begin} s to {end} s", found=f"none: the video ends at {last} s")
    return found


def whole_of(index: PacketIndex) -> Span:
    """All frames."""
    return int(index.pts[index.frames[0]]), index.facts.end


def span_of(index: PacketIndex, begin: float | None, end: float | None) -> Span:
    """The part from `begin` to `end`, in seconds from the first frame. None: from the first, to the last."""
    unit, per_second = index.facts.time_base
    start = int(index.pts[index.frames[0]])
    times = [None if time is None else start + round(time * per_second / unit) for time in (begin, end)]
    return (
        start if times[0] is None else times[0],
        index.facts.end if times[1] is None else min(times[1], index.facts.end),
    )


def seconds_of(index: PacketIndex, span: Span) -> tuple[float, float]:
    """When a part begins and ends, in seconds from the first frame."""
    unit = Fraction(*index.facts.time_base)
    start = int(index.pts[index.frames[0]])
    return float((span[0] - start) * unit), float((min(span[1], index.facts.end) - start) * unit)


def parts_of(index: PacketIndex, seconds: float) -> list[Span]:
    """The parts that begin with a keyframe each and, but for the last one, take at least `seconds`."""
    unit, per_second = index.facts.time_base
    least = seconds * per_second / unit
    keyframes = np.sort(index.pts[index.keyframe & index.shown])
    begins = [int(index.pts[index.frames[0]])]
    for time in keyframes.tolist():
        if time >= begins[-1] + least:
            begins.append(time)
    return list(pairwise([*begins, index.facts.end]))
