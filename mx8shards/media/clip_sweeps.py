"""Which frames does each clip of a batch want, and which bytes of its video? All clips of a video form one sweep."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from mx8shards.errors import DecodeError
from mx8shards.format.clip_times import ClipFrames, IndexFile
from mx8shards.format.packet_index import PacketIndex, parse_packet_index
from mx8shards.kernels.payloads import copy_payload
from mx8shards.media.packet_plan import Ints, stretches
from mx8shards.stages import Work

Place = tuple[int, int]  # a row and the number of a frame in its clip


@dataclass
class Sweep:
    """The clips of one video in a batch, by row. The first of these rows stands for the video."""

    index: PacketIndex
    clips: dict[int, ClipFrames] = field(default_factory=dict)

    @property
    def row(self) -> int:
        """The first row."""
        return next(iter(self.clips))

    def wanted(self) -> dict[int, list[Place]]:
        """The places that want the frame of each packet, in ascending order of the packets."""
        found: defaultdict[int, list[Place]] = defaultdict(list)
        for row, clip in self.clips.items():
            for t, packet in enumerate(self.index.frames[clip.numbers].tolist()):
                found[packet].append((row, t))
        return dict(sorted(found.items()))

    def packets(self) -> Ints:
        """The packets whose frames are wanted, in ascending order."""
        found: Ints = np.unique(np.concatenate([self.index.frames[clip.numbers] for clip in self.clips.values()]))
        return found

    def split(self) -> list[Sweep]:
        """A sweep for each clip."""
        return [Sweep(self.index, {row: clip}) for row, clip in self.clips.items()]

    def needed(self, size: int) -> tuple[int, int]:
        """Where the bytes lie that are decoded, in a payload of this size: offset and size."""
        if not self.index.facts.slices:
            return 0, size
        packets = np.concatenate([part.packets for part in stretches(self.index, self.packets())])
        begin = int(self.index.position[packets].min())
        return begin, int((self.index.position + self.index.size)[packets].max()) - begin


def read_index(work: Work, row: int, source: int | IndexFile, video: int | None = None) -> PacketIndex:
    """The packet index of a row, in the column with this number or in a file.

    `video`: the number of the column of the video that it describes. OSError if it cannot be read, FormatError or
    DecodeError if there is none.
    """
    if isinstance(source, int):
        begin, size = work.spans[row, source].tolist()
        memory = np.empty(size, np.uint8)
        if not copy_payload(work.shards, work.rows[row], begin, size, memory.ctypes.data):
            raise OSError("the packet index cannot be read")
        data = memory.tobytes()
    else:
        data = source.read(int(work.rows["sample_id"][row]))
    if not data:
        raise DecodeError(expected="a packet index", found="an empty one", reason="missing")
    return parse_packet_index(data, None if video is None else int(work.spans[row, video]["size"]))
