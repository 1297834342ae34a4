"""How are chosen frames of a video decoded? From its packets if they are parts of the payload, else by a demuxer.

Every packet gets its number in the packet index as its time, so that a decoded frame tells which packet it is from.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, require
from mx8shards.format.packet_index import CODECS, PacketIndex, VideoFacts
from mx8shards.media.containers import codec_name, opened, pyav_errors
from mx8shards.media.packet_plan import Ints, Stretch, from_start, stretches
from mx8shards.media.video_colour import FORMATS
from mx8shards.media.video_decoders import Decoders, most_pixels, never
from mx8shards.media.video_memory import CodecParameters, Described, decoder_bytes

Bytes = npt.NDArray[np.uint8]
Planes = tuple[Bytes, Bytes, Bytes]

# Copies bytes of a payload to an address: offset, size, address. False if they cannot be read.
Copy = Callable[[int, int, int], bool]

# Takes the number of a packet and the planes of its frame.
TakeFrame = Callable[[int, Planes], None]

ENOUGH_ROOM = nullcontext()

_NO_ROWS = np.zeros((0, 1), np.uint8)


@dataclass
class Decoded:
    """Counts: packets that a decoder got, and decoded frames."""

    packets_fed: int = 0
    frames: int = 0

    def add(self, other: Decoded) -> None:
        """Add the counts of another one."""
        self.packets_fed += other.packets_fed
        self.frames += other.frames


class Readable(Protocol):
    """Bytes of a known size, of which parts can be copied."""

    @property
    def size(self) -> int:
        """The number of bytes."""

    @property
    def copy(self) -> Copy:
        """The function that copies parts."""


@dataclass(frozen=True)
class PayloadBytes:
    """A payload without its packet index: its size, and the function that copies parts of it."""

    size: int
    copy: Copy


@dataclass(frozen=True)
class Payload:
    """A video: its packet index, its size, and the function that copies parts of it."""

    index: PacketIndex
    size: int
    copy: Copy


def decode_frames(video: Payload, wanted: Ints, decoders: Decoders, take: TakeFrame) -> Decoded:
    """Decode the frames of these packets, in ascending order, and pass each on once. DecodeError if one is missing."""
    index, stream = video.index, CodecParameters.of(video.index)
    if not index.facts.slices:
        counts, missing = decode_container(stream, index.size, video, wanted, decoders, take)
    else:
        counts, missing = decode_stretches(stream, stretches(index, wanted), video.copy, decoders, take)
        if len(missing):
            more, missing = decode_stretches(stream, [from_start(index, missing)], video.copy, decoders, take)
            counts.add(more)
    if len(missing):
        raise frame_missing(int(np.flatnonzero(index.frames == missing[0])[0]))
    return counts


def decode_stretches(
    stream: CodecParameters,
    parts: list[Stretch],
    copy: Copy,
    decoders: Decoders,
    take: TakeFrame,
    is_stopped: Callable[[], bool] = never,
    room: AbstractContextManager[None] = ENOUGH_ROOM,
) -> tuple[Decoded, Ints]:
    """Decode the wanted frames of these stretches; counts, and the wanted packets that gave no good frame.

    If there are any, a keyframe may not start decoding, although its index says so: decode them with `from_start`.
    `is_stopped` says whether frames are not wanted any more, which ends a wait for decoders with a LoaderError.
    `room` is the memory of the stretches: its lock is taken last, as a crop may need it while the decoder is held.
    """
    counts = Decoded()
    missing: list[int] = []
    with decoder_errors(), decoders.decoder(stream, is_stopped) as context, room:
        for part in parts:
            counts.packets_fed += len(part.packets)
            awaited = set(part.wanted.tolist())
            for frame in _decoded(stream, part, copy, context):
                counts.frames += 1
                if frame.pts in awaited and not frame.is_corrupt:
                    take(frame.pts, planes_of(frame, stream))
                    awaited.discard(frame.pts)
                del frame
            missing += awaited
    return counts, np.array(sorted(missing), np.int64)


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Raise PyAV's exceptions for errors of FFmpeg as DecodeErrors."""
    errors = require("av.error", "video")
    try:
        yield
    except errors.InvalidDataError as error:
        raise DecodeError(f"FFmpeg cannot decode it: {error.strerror}", reason="corrupt") from None
    except errors.FFmpegError as error:
        raise DecodeError(f"FFmpeg failed: {error}", reason="backend") from None


def _decoded(stream: CodecParameters, part: Stretch, copy: Copy, context: Any) -> Iterator[Any]:
    """The frames of these packets in the order in which the decoder gives them."""
    new_packet = require("av", "video").Packet
    context.flush_buffers()
    context.reorder_depth = stream.facts.reorder  # FFmpeg would guess it, and drop frames until its guess is right
    columns = part.packets, part.position, part.size, part.keyframe
    with pyav_errors():  # once for all packets: for each of them, it would take a twentieth of the time
        for number, begin, size, keyframe in zip(*(column.tolist() for column in columns), strict=True):
            packet = new_packet(size)
            if not copy(begin, size, packet.buffer_ptr):
                raise unreadable()
            packet.pts = packet.dts = number
            packet.is_keyframe = keyframe
            frames = context.decode(packet)
            yield from frames
            del frames  # they are memory of the decoder
        yield from context.decode(None)


def decode_container(
    stream: CodecParameters,
    sizes: Ints,
    payload: Readable,
    wanted: Ints,
    decoders: Decoders,
    take: TakeFrame,
    is_stopped: Callable[[], bool] = never,
    room: AbstractContextManager[None] = ENOUGH_ROOM,
) -> tuple[Decoded, Ints]:
    """Decode in the order of the container up to the last wanted frame: for containers whose packets are not slices.

    `sizes` are those of all packets, and `room` is their memory. Returns what `decode_stretches` does.
    """
    awaited = set(wanted.tolist())
    counts = Decoded()
    reserved = decoders.memory(decoder_bytes(stream), is_stopped)
    with reserved, room, closing(_demuxed(stream, sizes, payload)) as frames:
        for number, frame in frames:
            counts.frames += 1
            if number in awaited:
                take(number, planes_of(frame, stream))
                awaited.discard(number)
            del frame
            if not awaited:
                break
    counts.packets_fed = counts.frames
    return counts, np.array(sorted(awaited), np.int64)


def _demuxed(stream: CodecParameters, sizes: Ints, payload: Readable) -> Generator[tuple[int, Any], None, None]:
    """All frames of a container, with the numbers of their packets: times would not do, as ASF has wrong ones."""
    facts, number = stream.facts, 0
    with opened(io.BufferedReader(LazyPayload(payload)), most_pixels(facts)) as container:
        source = _stream_of(container, facts)
        context = source.codec_context
        context.thread_count = 1
        context.copy_opaque = True
        context.options = {"max_pixels": str(most_pixels(facts))}
        for packet in container.demux(source):
            if packet.size:
                if number >= len(sizes) or packet.size != sizes[number]:
                    raise DecodeError(
                        expected="the packets of its index", found=f"another packet {number}", reason="corrupt"
                    )
                packet.opaque = (number,)  # an object of its own, as PyAV finds it by its id()
                number += 1
            for frame in context.decode(packet if packet.size else None):
                yield (frame.opaque[0] if frame.opaque else -1), frame


def _stream_of(container: Any, facts: VideoFacts) -> Any:
    """The container's stream of video. DecodeError, before anything is decoded, if it does not have these facts."""
    streams, number = container.streams, facts.stream
    if number >= len(streams) or streams[number].type != "video":
        found = f"{len(streams)} streams" if number >= len(streams) else streams[number].type
        raise DecodeError(expected=f"a stream {number} of video", found=found, reason="missing")
    name = codec_name(streams[number])
    if name != facts.codec or name not in CODECS:
        found = name or "an unknown codec"
        raise DecodeError(expected=f"the codec {facts.codec} of its index", found=found, reason="unsupported")
    context = streams[number].codec_context
    if context.width * context.height > most_pixels(facts):
        found = f"{context.width} × {context.height}"
        raise DecodeError(expected=f"frames of {facts.width} × {facts.height}", found=found, reason="unsupported")
    return streams[number]


class LazyPayload(io.RawIOBase):
    """A payload as a file, of which only the parts that are read are copied."""

    def __init__(self, payload: Readable) -> None:
        super().__init__()
        self._payload = payload
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the beginning, from here or from the end; return the offset from the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._payload.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The offset from the beginning."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as the buffer holds and the payload has."""
        to = np.frombuffer(buffer, np.uint8)
        size = min(len(to), max(0, self._payload.size - self._at))
        if size and not self._payload.copy(self._at, size, to.ctypes.data):
            raise unreadable()
        self._at += size
        return size


def planes_of(frame: Any, index: Described) -> Planes:
    """Y, Cb and Cr of a frame as arrays of whole rows with their padding; those of grey frames have no rows."""
    facts = index.facts
    if (frame.width, frame.height, frame.format.name) != (facts.width, facts.height, facts.pixel_format):
        raise other_frame(facts, frame.width, frame.height, frame.format.name)
    form = FORMATS[facts.pixel_format]
    luma, *chroma = frame.planes
    rows = -(-facts.height // max(form.down, 1))
    if not form.across:
        return _rows(luma, facts.height), _NO_ROWS, _NO_ROWS
    return _rows(luma, facts.height), _rows(chroma[0], rows), _rows(chroma[1], rows)


def _rows(plane: Any, rows: int) -> Bytes:
    if plane.line_size <= 0:
        raise reversed_rows()
    return np.frombuffer(plane, np.uint8, rows * plane.line_size).reshape(rows, plane.line_size)


def unreadable() -> OSError:
    """The error for packets that cannot be read."""
    return OSError("the file is shorter than it was, or cannot be read")


def reversed_rows() -> DecodeError:
    """The error for frames that are upside down in memory."""
    return DecodeError(expected="rows from top to bottom", found="rows from bottom to top", reason="unsupported")


def other_frame(facts: VideoFacts, width: int, height: int, pixel_format: str) -> DecodeError:
    """The error for a frame that is not as the packet index says."""
    expected = f"frames of {facts.width} × {facts.height} {facts.pixel_format}, as at the beginning of the video"
    return DecodeError(expected=expected, found=f"{width} × {height} {pixel_format}", reason="unsupported")


def frame_missing(number: int) -> DecodeError:
    """The error for a frame that the decoder did not give."""
    return DecodeError(expected=f"frame {number}", found="none, or a damaged one", reason="corrupt")
