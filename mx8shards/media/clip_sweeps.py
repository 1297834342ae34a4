"""Which frames does each clip of a batch want, and which bytes of its video? All clips of a video form one sweep.

The functions below `Sweep` are what stages of clips have in common.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, FormatError, SettingError, require
from mx8shards.format.clip_times import START, ClipFrames, IndexFile, frames_of, is_short
from mx8shards.format.packet_index import PacketIndex, parse_packet_index
from mx8shards.kernels.payloads import copy_payload
from mx8shards.kernels.records import READ_FAILED, REFUSED
from mx8shards.media.clip_counts import ClipCounts, class_of
from mx8shards.media.packet_plan import Ints, stretches
from mx8shards.media.video_decoding import Copy
from mx8shards.stages import ClipColumns, DecoderContext, Work

Array = npt.NDArray[Any]

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


def require_clips(context: DecoderContext) -> ClipColumns:
    """What is known of the clips of a column; SettingError if the view has none of it."""
    if context.clips is None:
        raise SettingError(
            subject="decode",
            place=f"column {context.column!r}",
            expected="a view of clips of this column: dataset.clips(…)",
            found="whole samples",
        )
    require("av", "video")
    return context.clips


def payloads_of(work: Work, number: int) -> Array:
    """The spans of the payloads of a column, as they were before stages narrowed them."""
    found: Array = work.notes.setdefault(("payloads", number), work.spans[:, number].copy())
    return found


def frames_in(work: Work, row: int, index: PacketIndex, columns: ClipColumns) -> ClipFrames:
    """The frames of the clip in a row; DecodeError if the video is shorter than its facts say."""
    start = int(work.extras[START][row])
    clock = index if columns.clock == columns.packets else read_index(work, row, columns.clock)
    if is_short(columns.times, start, clock):
        found = f"{len(clock.frames)} frames"
        raise DecodeError(expected=f"a clip that begins at {start}", found=found, reason="short")
    return frames_of(columns.times, start, index, clock)


def copier(work: Work, row: int, begin: int, size: int) -> Copy:
    """The function that copies parts of the payload of a row to an address."""

    def copy(at: int, count: int, to: int) -> bool:
        inside = 0 <= at <= at + count <= size
        return inside and bool(copy_payload(work.shards, work.rows[row], begin + at, count, to))

    return copy


@contextmanager
def failing(work: Work, rows: list[int], counts: ClipCounts) -> Iterator[None]:
    """Refuse these rows of one sample if an error is raised, and keep the error."""
    try:
        yield
    except (DecodeError, FormatError, OSError) as error:
        work.rows["status"][rows] = READ_FAILED if class_of(error) == "io" else REFUSED
        counts.failed(int(work.rows["sample_id"][rows[0]]), error, len(rows))
