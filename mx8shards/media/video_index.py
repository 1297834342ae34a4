"""How is the packet index of a video made? By demuxing its container once, and decoding all frames unless told not to.

The position of a packet is where its bytes are in the payload. It is found by comparing bytes, because containers name
the position of a packet's header. If one packet is not found (as in MPEG-TS, which divides packets), the payload can
only be read by a demuxer, in order.

Decoding tells which packets give a frame and in which order, whatever the container's times are: packets before the
first keyframe or cut off by an edit list give none. AVI has no times of presentation; there the frame that is shown
k-th gets the k-th time of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, FormatError
from mx8shards.format.packet_index import MOST_TIME, PacketIndex, VideoFacts, encode_packet_index
from mx8shards.media.chroma_siting import siting_of
from mx8shards.media.container_ends import check_whole, size_of
from mx8shards.media.containers import (
    PIXEL_FORMATS,
    check_size,
    codec_name,
    has_audio,
    opened,
    video_stream,
)
from mx8shards.media.display_matrix import check_rotation, rotation_of
from mx8shards.media.nal_units import Kind, packet_kinds, reader_of_kinds
from mx8shards.media.video_colour import check_colours

Ints = npt.NDArray[np.int64]

_MOST_HEAD_BYTES = 256  # between the position that a container names and the bytes of the packet
_FLV_JUMP_MS = 1 << 30  # between two frames: such a pause is no video
_REENCODE = "re-encode it (--gop)"


class IndexedVideo(NamedTuple):
    """A packet index, and whether the container has sound."""

    packets: PacketIndex
    has_audio: bool


@dataclass
class _Packets:
    """The packets of a stream as they are demuxed, in lists."""

    kinds: list[Kind] = field(default_factory=list)
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    keyframe: list[bool] = field(default_factory=list)
    discard: list[bool] = field(default_factory=list)

    def add(self, packet: Any, kind: Kind, position: int) -> None:
        """Append a packet whose bytes stand at this position of the payload, or -1."""
        self.kinds.append(kind)
        self.pts.append(packet.pts)
        self.dts.append(packet.dts)
        self.durations.append(packet.duration or 0)
        self.position.append(position)
        self.sizes.append(packet.size)
        self.keyframe.append(packet.is_keyframe)
        self.discard.append(packet.is_discard)


@dataclass
class _Decoded:
    """The result of decoding: the packet of each frame in the order of presentation, and the kind of frames."""

    packets: list[int] = field(default_factory=list)
    kinds: set[tuple[Any, ...]] = field(default_factory=set)
    first: Any = None

    def add(self, frames: Sequence[Any]) -> None:
        """Note the next frames. DecodeError if one is damaged, or unlike the others."""
        for frame in frames:
            check_frame(frame, len(self.packets))
            self.first = self.first or frame
            self.packets.append(frame.opaque[0])
            self.kinds.add((frame.format.name, frame.width, frame.height))
            if len(self.kinds) > 1:
                found = " and ".join(f"{name} {width} x {height}" for name, width, height in sorted(self.kinds))
                raise DecodeError(expected="frames of one size and format", found=found, hint=_REENCODE)


def index_video(source: bytes | IO[bytes], *, decode: bool = True, for_clips: bool = True) -> IndexedVideo:
    """Make the packet index of a video. DecodeError if it is damaged, or of a kind that clips cannot be decoded from.

    Args:
        source: The container's bytes, or its file. Positions of packets are found in bytes only.
        decode: Decode all frames, so that damage is found and the number of frames is exact. False: only the first one,
            unless the container does not tell when frames are shown.
        for_clips: False: also of a video whose pixels or rotation clips do not support, to copy or re-encode it.
    """
    check_whole(source)
    with opened(source) as container:
        stream = video_stream(container)
        packets, decoded = _read(source, container, stream, decode)
        if decoded.first is None:
            raise DecodeError(expected="at least one frame", found="none")
        if not decode and not _times_are_known(packets, stream.codec_context.reorder_depth):
            return index_video(source, for_clips=for_clips)
        if for_clips:
            _check_for_clips(decoded.first)
        kinds = packet_kinds(packets.kinds, np.array(packets.keyframe, bool))
        pts, dts, shown = _times(packets, decoded, decode)
        if container.format.name == "flv":
            _check_flv(np.sort(pts[shown]))
        facts = _facts(stream, decoded.first, pts, shown, packets, decode)
        if for_clips:
            check_colours(facts)
        index = PacketIndex(
            facts,
            stream.codec_context.extradata or b"",
            pts,
            dts,
            np.array(packets.position if facts.slices else [0] * len(pts), np.int64),
            np.array(packets.sizes, np.int64),
            kinds.keyframe,
            kinds.disposable,
            shown,
        )
        return IndexedVideo(_checked(index), has_audio(container))


def _read(source: bytes | IO[bytes], container: Any, stream: Any, decode: bool) -> tuple[_Packets, _Decoded]:
    """Demux the stream, and decode all frames or only those before and including the first one."""
    packets, decoded = _Packets(), _Decoded()
    context = stream.codec_context
    context.thread_count = 1
    context.copy_opaque = True
    kind_of = reader_of_kinds(codec_name(stream), context.extradata or b"")
    last = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if last > size_of(source):
        raise DecodeError(expected=f"{last} bytes (its index)", found=f"{size_of(source)}")
    for packet in container.demux(stream):
        if packet.size:
            _check_packet(packet)
            packet.opaque = (len(packets.kinds),)  # PyAV needs an object of its own, as it finds it by its id()
            data = bytes(packet)
            packets.add(packet, kind_of(data), _position(source, packet.pos, data))
        if decode or decoded.first is None:
            decoded.add(context.decode(packet if packet.size else None))
    return packets, decoded


def check_frame(frame: Any, number: int) -> None:
    """DecodeError if a decoder has concealed damage in this frame."""
    if frame.is_corrupt:
        raise DecodeError(expected="a whole video", found=f"damage in frame {number}")


def _check_packet(packet: Any) -> None:
    if packet.is_corrupt:
        raise DecodeError(expected="a whole video", found="a packet that is cut short")
    if packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change"):
        raise DecodeError(expected="one set of decoder parameters", found="a change of them", hint=_REENCODE)


def _position(source: bytes | IO[bytes], at: int | None, data: bytes) -> int:
    """Where a packet's bytes stand in the payload, at or close behind the position that it names; -1 if nowhere."""
    if at is None or not isinstance(source, bytes):
        return -1
    return source.find(data, at, at + _MOST_HEAD_BYTES + len(data))


def _times_are_known(packets: _Packets, reorder: int) -> bool:
    """Whether times of presentation are there and, if the decoder reorders frames, have another order than packets."""
    if None in packets.pts:
        return False
    pts = np.array(packets.pts)
    shown = pts[~np.array(packets.discard, bool)]
    return len(np.unique(shown)) == len(shown) and (not reorder or bool((np.diff(pts) < 0).any()))


def _times(packets: _Packets, decoded: _Decoded, decode: bool) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Times of presentation and decoding, and which packets are shown."""
    count = len(packets.kinds)
    shown = ~np.array(packets.discard, bool)
    if decode:
        shown = np.zeros(count, bool)
        shown[decoded.packets] = True
        if shown.sum() != len(decoded.packets):
            raise DecodeError(expected="one frame per packet", found="a packet with several", hint=_REENCODE)
    pts = _filled(packets.pts, packets.dts)
    dts = decoding_times(pts) if None in packets.dts else np.array(packets.dts, np.int64)
    order = np.array(decoded.packets if decode else np.flatnonzero(shown)[np.argsort(pts[shown], kind="stable")])
    missing = [number for number in order.tolist() if packets.pts[number] is None]
    if missing or (np.diff(pts[order]) <= 0).any():
        times = np.sort(dts[order])
        if not decode or None in packets.dts or (np.diff(times) <= 0).any():
            raise DecodeError(
                expected="a time for every frame",
                found="times that are missing or contradict their order",
                hint=_REENCODE,
            )
        pts[order] = times
    return pts, dts, shown


def _check_flv(times: Ints) -> None:
    """DecodeError for negative times, for which FLV has no bits: they become 2³¹ ms, and those after them 2³² ms."""
    if (np.diff(times) >= _FLV_JUMP_MS).any():
        hint = "write it again from its source, with FFmpeg's -avoid_negative_ts make_zero"
        raise DecodeError(expected="times of FLV from 0 on", found="negative ones, stored as 24 days", hint=hint)


def _filled(times: Sequence[int | None], others: Sequence[int | None]) -> Ints:
    """The times; a missing one is the other time of its packet, or that of the packet before."""
    found: list[int] = []
    for time, other in zip(times, others, strict=True):
        value = time if time is not None else other
        found.append(value if value is not None else found[-1] if found else 0)
    return np.array(found, np.int64)


def decoding_times(pts: Ints) -> Ints:
    """Times of decoding for packets in this order: increasing as the times of presentation do, and none after its own.

    Args:
        pts: The times of presentation, in the order of decoding.
    """
    times = np.sort(pts)
    return times - max(0, int((times - pts).max()))


def times_in_order(source: bytes) -> Ints | None:
    """The times of all frames in order, if they are not those of the packets; None if they are.

    Args:
        source: The container's bytes.
    """
    with opened(source) as container:
        stream = video_stream(container)
        packets, _ = _read(source, container, stream, decode=False)
        if _times_are_known(packets, stream.codec_context.reorder_depth) or None in packets.dts:
            return None
        return np.sort(np.array(packets.dts, np.int64))


def _check_for_clips(frame: Any) -> None:
    """DecodeError for frames that are not decoded into clips."""
    if frame.format.name not in PIXEL_FORMATS:
        hint = f"{_REENCODE} as 8-bit 4:2:0"
        raise DecodeError(expected=f"8-bit pixels ({', '.join(PIXEL_FORMATS)})", found=frame.format.name, hint=hint)
    check_rotation(frame)


def _facts(
    stream: Any, frame: Any, pts: Ints, shown: npt.NDArray[np.bool_], packets: _Packets, decoded: bool
) -> VideoFacts:
    check_size(frame.width, frame.height)
    name = frame.format.name
    context = stream.codec_context
    aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio
    aspect = (aspect.numerator, aspect.denominator) if aspect else (1, 1)
    times = np.sort(pts[shown])
    last = int(np.argmax(np.where(shown, pts, -MOST_TIME)))
    usual = int(np.median(np.diff(times))) if len(times) > 1 else 1
    return VideoFacts(
        codec=codec_name(stream),
        pixel_format=name,
        width=frame.width,
        height=frame.height,
        rotation=rotation_of(frame) or 0,
        time_base=(stream.time_base.numerator, stream.time_base.denominator),
        sample_aspect=aspect,
        matrix=int(frame.colorspace),
        range=2 if name.startswith("yuvj") else int(frame.color_range),
        siting=siting_of(codec_name(stream), context.extradata or b""),
        reorder=int(context.reorder_depth),
        end=int(times[-1]) + (packets.durations[last] or max(usual, 1)),
        stream=stream.index,
        slices=min(packets.position) >= 0,
        decoded=decoded,
    )


def _checked(index: PacketIndex) -> PacketIndex:
    """The index, if it can be encoded; DecodeError otherwise."""
    try:
        encode_packet_index(index)
    except FormatError as error:
        raise DecodeError(expected=error.expected, found=error.found, hint=_REENCODE) from error
    return index
