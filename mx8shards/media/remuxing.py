"""How is a video copied into a new MP4 without re-encoding, whole or a part of it?

Packets are copied unchanged. Times are those of the packet index; the first frame of a part is shown at 0. Frames that
a part needs, but that are shown before its begin or behind its end, are cut off by an edit list, which players heed. A
codec that MP4 does not hold (VP8) goes to Matroska, which has no edit lists, so only whole videos go there.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import IO, Any, NamedTuple

import numpy as np

from mx8shards.errors import DecodeError
from mx8shards.format.packet_index import PacketIndex
from mx8shards.media.containers import codec_name, new_container, opened, video_stream
from mx8shards.media.mp4_boxes import with_end, with_index_first
from mx8shards.media.packet_plan import one_stretch
from mx8shards.media.video_cuts import Span, frames_in
from mx8shards.media.video_index import Ints, decoding_times

_LEAST_SCALE = 10_000  # units of time per second that FFmpeg gives a track at least
_MOST_AUDIO_LATE_S = 10  # audio may stand that much behind the video that it belongs to


class _Part(NamedTuple):
    """The part to copy: its packets, their times, and the seconds of the source that are shown."""

    numbers: Ints
    pts: Ints
    dts: Ints
    begin: Fraction
    end: Fraction


class _Packet(NamedTuple):
    """A packet to copy: the number of its stream among those copied, and its new times."""

    packet: Any
    stream: int
    pts: int
    dts: int


class _LostPlaceError(Exception):
    """The packet that a seek led to is not in the index."""


def remuxed(source: bytes | IO[bytes], index: PacketIndex, *, span: Span | None = None, audio: bool = True) -> bytes:
    """The video, or the part of it that is shown in `span`, as a new file. DecodeError if that is impossible.

    Args:
        source: The container's bytes, or its file.
        index: The packet index of `source`.
        span: The part, in units of the time base. None: all.
        audio: Copy the audio, too.
    """
    part = _part(index, span)
    try:
        return _copied(source, index, part, span, audio, seek=part.numbers[0] > 0)
    except _LostPlaceError:
        return _copied(source, index, part, span, audio, seek=False)


def _part(index: PacketIndex, span: Span | None) -> _Part:
    unit = Fraction(*index.facts.time_base)
    wanted = index.frames if span is None else frames_in(index, span)
    numbers = np.arange(len(index.pts)) if span is None else one_stretch(index, np.sort(wanted)).packets
    begin, end = int(index.pts[wanted[0]]), index.facts.end
    if span is None:
        begin = min(begin, 0)  # times are kept, unless they are negative
    else:
        end = min(span[1], end)
    pts = index.pts[numbers] - begin
    dts = index.dts[numbers] - begin
    if (np.diff(dts) <= 0).any() or (dts > pts).any():
        dts = decoding_times(pts)
    return _Part(numbers, pts, dts, begin * unit, end * unit)


def _copied(
    source: bytes | IO[bytes], index: PacketIndex, part: _Part, span: Span | None, audio: bool, *, seek: bool
) -> bytes:
    with opened(source) as container:
        video = video_stream(container)
        streams = [video, *(container.streams.audio if audio else ())]
        if seek:
            container.seek(int(index.dts[part.numbers[0]]), stream=video)
        packets = list(_packets(container, streams, index, part, whole=span is None, seek=seek))
        scale = _scale(index.facts.time_base[1])
        try:
            data = _muxed("mp4", packets, streams, scale)
        except ValueError:  # MP4 does not hold one of the codecs
            if span is not None:
                found = " and ".join(map(codec_name, streams))
                hint = "--no-audio leaves out the audio, --gop re-encodes the video"
                raise DecodeError(expected="codecs that MP4 holds", found=found, hint=hint) from None
            return _muxed("matroska", packets, streams, scale)
    if span is not None and part.pts.max() > part.pts[np.isin(part.numbers, frames_in(index, span))].max():
        data = with_end(data, 0, int((part.end - part.begin) * scale))
    return with_index_first(data)


def _scale(per_second: int) -> int:
    """FFmpeg's time scale of a track with this time base."""
    while per_second < _LEAST_SCALE:
        per_second *= 2
    return per_second


def _packets(
    container: Any, streams: Sequence[Any], index: PacketIndex, part: _Part, *, whole: bool, seek: bool
) -> Iterator[_Packet]:
    """The packets to copy, in the order of the container."""
    places = {int(number): place for place, number in enumerate(part.numbers)}
    last, number, late = int(part.numbers[-1]), 0, False
    copies = {stream.index: copy for copy, stream in enumerate(streams)}
    for packet in container.demux(streams):
        if not packet.size or (packet.dts is None and packet.pts is None and packet.stream_index != streams[0].index):
            continue
        if packet.stream_index != streams[0].index:
            if moved := _moved_audio(packet, copies[packet.stream_index], part, whole=whole):
                yield moved
            continue
        number = _number_of(packet, index, int(part.numbers[0])) if seek else number
        seek = False
        if number in places:
            place = places[number]
            yield _Packet(packet, 0, int(part.pts[place]), int(part.dts[place]))
        number += 1
        late = number > last and (len(streams) == 1 or _seconds(packet) > part.end + _MOST_AUDIO_LATE_S)
        if late and not whole:
            return


def _number_of(packet: Any, index: PacketIndex, wanted: int) -> int:
    """The number of the first packet after a seek, which may not lie behind the wanted one."""
    found = np.flatnonzero((index.dts == packet.dts) & (index.pts == packet.pts) & (index.size == packet.size))
    if packet.dts is None or packet.pts is None or len(found) != 1 or found[0] > wanted:
        raise _LostPlaceError
    return int(found[0])


def _moved_audio(packet: Any, stream: int, part: _Part, *, whole: bool) -> _Packet | None:
    """A packet of audio with its new times; None if it lies outside of the part.

    The packet before the part is copied, too, because decoders need it to be exact; it gets a time before 0.
    """
    length = (packet.duration or 0) * packet.time_base
    begin = _seconds(packet)
    if not whole and not (part.begin - length < begin + length and begin < part.end):
        return None
    shift = round(part.begin / packet.time_base)
    pts = packet.dts if packet.pts is None else packet.pts
    dts = packet.pts if packet.dts is None else packet.dts
    return _Packet(packet, stream, pts - shift, dts - shift)


def _seconds(packet: Any) -> Fraction:
    time = packet.dts if packet.pts is None else packet.pts
    return Fraction(time or 0) * Fraction(packet.time_base)


def _muxed(kind: str, packets: Iterable[_Packet], streams: Sequence[Any], scale: int) -> bytes:
    """The packets in a new container. ValueError if it does not hold one of the codecs."""
    out = io.BytesIO()
    with new_container(kind, out, {"movie_timescale": str(scale)} if kind == "mp4" else {}) as target:
        copies = [target.add_stream_from_template(stream, opaque=True) for stream in streams]
        for packet, stream, pts, dts in packets:
            packet.pts, packet.dts = pts, dts
            packet.stream = copies[stream]
            target.mux(packet)
    return out.getvalue()
