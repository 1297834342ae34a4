"""Which packets must a decoder get for some frames of a video? From a keyframe on, without those that nothing needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.format.packet_index import PacketIndex

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Stretch(NamedTuple):
    """Packets that a decoder gets one after another, beginning with a keyframe, to decode the frames of some of them.

    packets, position, size, keyframe    their numbers, and what the packet index says about each
    wanted                               the numbers of those whose frames are wanted
    """

    packets: Ints
    position: Ints
    size: Ints
    keyframe: Bools
    wanted: Ints

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return sum(each.nbytes for each in self[:5])

    @property
    def span(self) -> tuple[int, int]:
        """Where they begin and end in the payload."""
        return int(self.position.min()), int((self.position + self.size).max())


def stretches(index: PacketIndex, wanted: Ints) -> list[Stretch]:
    """The stretches to decode for the wanted packets: distinct numbers in ascending order.

    Before each stretch, the decoder is reset. A stretch goes on over the following keyframes as long as no packets
    between two wanted ones can be left out.
    """
    found: list[Stretch] = []
    begin = first = 0
    for i, keyframe in enumerate(keyframes_before(index, wanted).tolist()):
        if i and keyframe > wanted[i - 1] + 1:
            found.append(_stretch(index, begin, wanted[first:i]))
            first = i
        if i == first:
            begin = keyframe
        begin = min(begin, keyframe)
    return [*found, _stretch(index, begin, wanted[first:])]


def keyframes_before(index: PacketIndex, wanted: Ints) -> Ints:
    """For each of these packets, the last keyframe that is not after it, both in decoding order and in presentation.

    In an open GOP, frames that follow a keyframe in decoding order are shown before it, and need the GOP before.
    """
    keyframes = np.flatnonzero(index.keyframe)
    at = np.searchsorted(keyframes, wanted, side="right") - 1
    while (late := (at > 0) & (index.pts[keyframes[at]] > index.pts[wanted])).any():
        at[late] -= 1
    found: Ints = keyframes[at]
    return found


def reach(index: PacketIndex, wanted: Ints) -> tuple[int, int]:
    """The packets that a plain decoder gets for these frames, from the keyframe to the last frame: begin and end."""
    return int(keyframes_before(index, wanted).min()), int(wanted.max()) + 1


def one_stretch(index: PacketIndex, wanted: Ints) -> Stretch:
    """One stretch for all wanted packets: distinct numbers in ascending order."""
    return _stretch(index, int(keyframes_before(index, wanted).min()), wanted)


def _stretch(index: PacketIndex, begin: int, wanted: Ints) -> Stretch:
    """The packets from `begin` to the last wanted one, without the unwanted ones that no other packet needs."""
    end = int(wanted[-1]) + 1
    needed = ~index.disposable[begin:end]
    needed[wanted - begin] = True
    packets = begin + np.flatnonzero(needed)
    columns = index.position[packets], index.size[packets], index.keyframe[packets]
    return Stretch(packets, *columns, wanted)


def from_start(index: PacketIndex, wanted: Ints) -> Stretch:
    """All packets from the first to the last wanted one, if a keyframe does not start decoding after all."""
    end = int(wanted[-1]) + 1
    columns = index.position[:end].copy(), index.size[:end].copy(), index.keyframe[:end].copy()
    return Stretch(np.arange(end), *columns, wanted)


def merged_spans(parts: Iterable[Stretch]) -> list[tuple[int, int]]:
    """Where the bytes of stretches begin and end in the payload, in ascending order; those that overlap are one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(part.span for part in parts):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found
