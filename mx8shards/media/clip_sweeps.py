"""Which frames does each clip of a batch want, and which bytes of its video? All clips of a video form one sweep.

The functions below `Sweep` are shared by the stages of pictures and of sound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, FormatError, SettingError, require
from mx8shards.format.clip_times import START, ClipFrames, frames_of, is_short, seconds_of
from mx8shards.format.packet_index import PacketIndex
from mx8shards.kernels.clip_decoding import PLACE
from mx8shards.kernels.payloads import copy_payload
from mx8shards.kernels.records import OK, READ_FAILED, REFUSED, SPAN
from mx8shards.media.clip_counts import ClipCounts, class_of
from mx8shards.media.clip_painting import ClipPainter, Place
from mx8shards.media.index_reading import Indices
from mx8shards.media.packet_plan import Ints, Stretch, merged_spans, reach, stretches
from mx8shards.media.video_decoders import check_wanted
from mx8shards.media.video_decoding import Copy, TakeFrame
from mx8shards.media.video_memory import CodecParameters
from mx8shards.stages import ClipColumns, DecoderContext, Work

Array = npt.NDArray[Any]

Span = tuple[int, int]

_KEPT_PACKETS = 512  # per clip: with more, a sweep keeps no packets, and reads the index again when it is decoded
_PACKET_BYTES = 5 * 8 + 1
_ROW_BYTES = 4 << 10  # of the objects of a clip


class SweepClip(NamedTuple):
    """The frames of a clip, the packets that they are decoded from, and when it begins and ends in seconds.

    `reach`: the packets that a plain decoder would get, from the keyframe before the clip to its last frame.
    """

    frames: ClipFrames
    packets: Ints
    bounds: tuple[float, float]
    reach: tuple[int, int]


@dataclass(frozen=True)
class Sweep:
    """The clips of one video in a batch, by row. The first of these rows stands for the video.

    `parts` are the packets to decode; None if they have to be found in the packet index.
    """

    stream: CodecParameters
    clips: Mapping[int, SweepClip]
    parts: list[Stretch] | None

    @property
    def row(self) -> int:
        """The first row."""
        return next(iter(self.clips))

    def packets(self) -> Ints:
        """The packets whose frames are wanted: distinct numbers in ascending order."""
        return _wanted(self.clips)

    def taken_by(self, painter: ClipPainter) -> TakeFrame:
        """A function that has the frame of each packet painted into the places that want it."""
        places: defaultdict[int, list[Place]] = defaultdict(list)
        for row, clip in self.clips.items():
            for t, packet in enumerate(clip.packets.tolist()):
                places[packet].append((row, t))
        return lambda packet, planes: painter.paint(places[packet], planes)

    def frame_of(self, packet: int) -> int:
        """The number of the frame of a packet, in a clip that wants it."""
        for clip in self.clips.values():
            found = np.flatnonzero(clip.packets == packet)
            if len(found):
                return int(clip.frames.numbers[found[0]])
        raise KeyError(packet)

    def covered(self) -> int:
        """How many packets a plain decoder would get, those of several clips only once."""
        count = end = 0
        for begin, stop in sorted(clip.reach for clip in self.clips.values()):
            count += max(0, stop - max(begin, end))
            end = max(end, stop)
        return count

    def split(self) -> list[Sweep]:
        """A sweep for each clip."""
        return [Sweep(self.stream, {row: clip}, None) for row, clip in self.clips.items()]


def _wanted(clips: Mapping[int, SweepClip]) -> Ints:
    """The packets whose frames clips want: distinct numbers in ascending order."""
    found: Ints = np.unique(np.concatenate([clip.packets for clip in clips.values()]))
    return found


def note_bytes(frames: int) -> int:
    """The most memory that a sweep takes per clip, until it is decoded."""
    return _ROW_BYTES + _KEPT_PACKETS * _PACKET_BYTES + frames * (8 + 8 + 1 + PLACE.itemsize)


def sweep_of(index: PacketIndex, clips: Mapping[int, SweepClip], size: int) -> tuple[Sweep, list[Span]]:
    """The sweep of these clips of a video, and where the bytes lie that it needs, in a payload of this size."""
    if not index.facts.slices:
        return Sweep(CodecParameters.of(index), clips, None), [(0, size)]
    parts = stretches(index, _wanted(clips))
    few = sum(len(part.packets) for part in parts) <= _KEPT_PACKETS * len(clips)
    return Sweep(CodecParameters.of(index), clips, parts if few else None), merged_spans(parts)


def clip_in(work: Work, row: int, indices: Indices, columns: ClipColumns) -> SweepClip:
    """The clip in a row; DecodeError if its video is shorter than its facts say."""
    index = indices.video
    frames = frames_in(work, row, indices, columns)
    packets = index.frames[frames.numbers]
    return SweepClip(frames, packets, seconds_of(frames, index), reach(index, packets))


def frames_in(work: Work, row: int, indices: Indices, columns: ClipColumns) -> ClipFrames:
    """The frames of the clip in a row; DecodeError if its video is shorter than its facts say."""
    start, (index, reference) = int(work.extras[START][row]), indices
    if is_short(columns.times, start, reference):
        found = f"{len(reference.frames)} frames"
        raise DecodeError(expected=f"a clip that begins at {start}", found=found, reason="short")
    return frames_of(columns.times, start, index, reference)


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
    """The spans of the payloads of a column. At first, they become empty in `work`: stages add the parts they need."""
    key = "payloads", number
    if key not in work.notes:
        work.notes[key] = work.spans[:, number].copy()
        work.spans["size"][:, number] = 0
    found: Array = work.notes[key]
    return found


def rows_of_videos(work: Work) -> list[list[int]]:
    """The good rows of each video."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(work.rows["status"] == OK).tolist():
        found[int(work.rows["sample_id"][row])].append(row)
    return list(found.values())


def need_parts(work: Work, payloads: Array, needed: Mapping[int, list[Span]]) -> bool:
    """Add the parts of payloads that the rows need: where each begins and ends. Whether they are less than all."""
    spans = [(row, begin, end - begin) for row, parts in needed.items() for begin, end in parts]
    rows, begins, sizes = np.array(spans, np.int64).reshape(-1, 3).T
    found = np.empty(len(rows), SPAN)
    found["begin"], found["size"] = payloads["begin"][rows] + begins, sizes
    work.parts.append((rows, found))
    return int(sizes.sum()) < int(payloads["size"].sum())


def copier(work: Work, row: int, begin: int, size: int) -> Copy:
    """The function that copies parts of the payload of a row to an address.

    LoaderError if the batch is not wanted any more: whatever reads a long payload ends soon then.
    """

    def copy(at: int, count: int, to: int) -> bool:
        check_wanted(work.is_stopped)
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
        counts.failed(work, rows, error)
