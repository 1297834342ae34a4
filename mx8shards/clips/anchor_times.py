"""When are the anchors of each video, in nanoseconds? From the numbers of a column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SchemaError
from mx8shards.format.clip_times import NANOSECONDS, Clock
from mx8shards.format.codec import describe
from mx8shards.views import Ids

_MOST = {"first": 10**9, "container": 1 << 32}  # seconds; clocks of containers may count from 1970
_EXPECTED = {  # and a hint
    "first": ("seconds from the first frame of the video", 'clock="container" counts from time 0 of the container'),
    "container": ("seconds on the clock of the container", "are they milliseconds?"),
}
_NUMBERS = "seconds: a number, or several"
_NONE = "a video without anchors has an empty list, in a column of encoding json"


def anchors_of(name: str, values: Iterable[Any], clock: Clock) -> tuple[Ids, Ids]:
    """The anchors of all videos in nanoseconds, and where those of each video begin; then the number of anchors.

    Args:
        name: The column of anchors.
        values: Its values, one for each video: a number, or several.
        clock: Where they count from.
    """
    if isinstance(values, np.ndarray) and values.ndim == 1:  # a number for each
        times = _nanoseconds(name, values, clock, None)
        return times, np.arange(len(times) + 1, dtype=np.int64)
    found = [_nanoseconds(name, value, clock, position) for position, value in enumerate(values)]
    starts = np.cumsum([0, *map(len, found)], dtype=np.int64)
    return np.concatenate([np.zeros(0, np.int64), *found]), starts


def _nanoseconds(name: str, value: Any, clock: Clock, position: int | None) -> Ids:
    """Anchors in nanoseconds: those of one video or, if `position` is None, one for each video."""
    seconds = _numbers(value)
    if seconds is None:
        raise _error(name, position or 0, _NUMBERS, describe(value))
    good = (seconds >= -_MOST[clock]) & (seconds <= _MOST[clock])
    if not good.all():
        first = int(np.argmin(good))
        expected, hint = (_NUMBERS, _NONE) if np.isnan(seconds[first]) else _EXPECTED[clock]
        found = str(float(seconds[first]))
        raise _error(name, first if position is None else position, expected, found, hint)
    return exact_nanoseconds(seconds.astype(np.float64) + _rounded_off(seconds))


def _rounded_off(seconds: npt.NDArray[Any]) -> npt.NDArray[np.float64] | float:
    """By how much float32 may have rounded a time down: 2 µs after half a minute, which would give the frame before."""
    return np.spacing(np.abs(seconds)).astype(np.float64) / 2 if seconds.dtype == np.float32 else 0.0


def exact_nanoseconds(seconds: npt.NDArray[np.float64]) -> Ids:
    """Seconds as integer numbers of nanoseconds: whole seconds and their fraction alone are exact in float64."""
    whole = np.floor(seconds)
    times: Ids = whole.astype(np.int64) * NANOSECONDS + np.rint((seconds - whole) * NANOSECONDS).astype(np.int64)
    return times


def _numbers(value: Any) -> npt.NDArray[Any] | None:
    """A number or a list of them as an array; None for anything else."""
    try:
        numbers: npt.NDArray[Any] = np.atleast_1d(np.asarray(value))
    except ValueError:  # lists of different lengths
        return None
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        return None
    return numbers.astype(np.float64) if numbers.dtype == np.float16 else numbers  # which does not hold the bounds


def _error(name: str, position: int, expected: str, found: str, hint: str = "") -> SchemaError:
    subject, place = f"column {name!r}", f"sample {position}"
    return SchemaError(subject=subject, place=place, expected=expected, found=found, hint=hint)
