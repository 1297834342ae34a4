"""Where does each decoded frame of sound begin, in samples? By its time; exactly, even if containers round times.

Matroska and FLV round times to milliseconds, which are 44 samples at 44,100 Hz: by its time alone, a frame would
overlap the one before it, or leave a gap. So frames that follow each other, but for the rounding, are placed end to
end. After a seek there is no frame before; if all frames are equally long, the first one is a whole number of them
after the first frames of the sound, which are decoded for that, once per video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

_MOST_SLACK = Fraction(1, 500)  # seconds by which a container may round times


class Grid(NamedTuple):
    """Frames of `size` samples follow each other from `origin` on, in samples from time 0 of the container."""

    origin: Fraction
    size: int

    def nearest(self, time: Fraction) -> Fraction:
        """Where the frame begins that is nearest to a time."""
        return self.origin + round((time - self.origin) / self.size) * self.size


class SoundPlaces:
    """Places the frames of a stream one after another.

    unit    samples per unit of the stream's time base
    rate    samples per second
    grid    where frames begin; None if that is not known
    """

    def __init__(self, unit: Fraction, rate: int, grid: Grid | None = None) -> None:
        self._slack = min(max(unit, Fraction(1)), _MOST_SLACK * rate)
        self._grid = grid
        self._end: Fraction | None = None

    def place(self, time: Fraction, samples: int) -> Fraction:
        """Where the next frame begins. `time`: its own time in samples."""
        begin = time
        if self._grid is not None and samples == self._grid.size and self._fits(time, self._grid.nearest(time)):
            begin = self._grid.nearest(time)
        elif self._end is not None and self._fits(time, self._end):
            begin = self._end
        self._end = begin + samples
        return begin

    def _fits(self, time: Fraction, begin: Fraction) -> bool:
        return abs(time - begin) <= self._slack


class Grids:
    """The grids of the last videos. Sound may begin late, and then finding its first frames reads much of the file."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[int, Grid | None] = {}

    def of(self, sample_id: int, find: Callable[[], Grid | None]) -> Grid | None:
        """The grid of a video; `find` finds it, if it is not known. Several threads may find it at once."""
        if sample_id in (known := self._found):
            return known[sample_id]
        grid = find()
        self._found = {**known, sample_id: grid} if len(known) < self._most else {sample_id: grid}
        return grid


def grid_of(frames: Iterable[Any], unit: Fraction, rate: int) -> Grid | None:
    """Where frames begin, by the first ones of the stream; None if they are of several sizes. The first may be cut."""
    places, begins, sizes = SoundPlaces(unit, rate), [], []
    for frame in islice((frame for frame in frames if frame.pts is not None), 3):
        begins.append(places.place(frame.pts * unit, frame.samples))
        sizes.append(frame.samples)
    return Grid(begins[1], sizes[1]) if len(sizes) == 3 and sizes[1] == sizes[2] else None
