"""How is the packet index of a video encoded? (spec: packet index)

A packet index lists the packets of one video stream in decoding order, so that a clip can be decoded from its payload
without a demuxer. Times are integers in units of the stream's time base. All integers are little-endian.

    header      _HEADER below, with the magic and the facts of the stream
    names       the codec and the pixel format, as FFmpeg calls them (ASCII)
    extradata   what the decoder gets before the first packet
    columns     pts - dts; dts - previous dts; size; position - previous end: each one base, step, width, then integers
                of that width. A value is base + step * integer. The second and the last column begin with packet 1.
    flags       a byte per packet

Every packet has a byte of flags, so an index never describes more packets than it has bytes. `parsing_bytes` tells from
the header how much memory parsing takes.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MAGIC = b"MX8PKT1\n"
FORMAT = "packets 1"
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "mpeg1video", "mpeg2video")  # FFmpeg has hundreds
# FFmpeg's names of colour matrices, by their codes; empty: not tagged
MATRICES = {0: "rgb", 1: "bt709", 2: "", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco"}
MATRICES |= {9: "bt2020nc", 10: "bt2020c"}
VIDEOS = "videos"  # key of the metadata: {"video": {"packets": "packets", "format": FORMAT}}, for each column of videos
MOST_TIME = 1 << 60  # the largest absolute value of a time or position
MOST_SIDE = 1 << 16
MOST_EXTRADATA = 1 << 20
MOST_PACKETS = 1 << 24  # of a video: days of it
MOST_REORDER = 16  # frames that H.264 and HEVC may hold back; FFmpeg ends the process above it

# magic; flags; stream, rotation; matrix, range, siting, reorder; width, height; time base; sample aspect; first dts,
# end, first position; packets; bytes of extradata; bytes of the names of codec and pixel format
_HEADER = struct.Struct("<8sHHHBBBBIIIIIIqqqIIBB")
_COLUMN = struct.Struct("<qQB")
_SLICES, _DECODED = 1, 2  # flags of the header
_KEYFRAME, _DISPOSABLE, _SHOWN = 1, 2, 4  # flags of a packet
_UNSIGNED = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_NO_VALUES = np.zeros(0, np.uint8)  # of a column whose values are all equal
_NAME = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)
_ROTATIONS = (0, 90, 180, 270)
_PACKET_BYTES = 100  # an upper bound of the memory that parsing takes per packet
_FIXED_BYTES = 16 << 10  # … and beside that

HEAD_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """Facts that are equal for all frames of a video stream.

    Attributes:
        codec: FFmpeg's name of the codec, such as "h264".
        pixel_format: FFmpeg's name of the decoded format, such as "yuv420p".
        width, height: Size of the decoded frames, before the rotation.
        rotation: Degrees by which frames are turned clockwise to be shown: 0, 90, 180 or 270.
        time_base: The unit of times in seconds, as (numerator, denominator).
        sample_aspect: Width over height of a pixel, as (numerator, denominator); (1, 1) if unknown.
        matrix: Code of the colour matrix (ITU-T H.273): 1 BT.709, 2 unknown, 5 and 6 BT.601, 9 BT.2020, ….
        range: 0 unknown, 1 limited, 2 full.
        siting: Where chroma samples lie (AVChromaLocation): 0 unknown, 1 left, 2 centre, 3 top left, ….
        reorder: How many frames the decoder holds back to put them in order.
        end: The time at which the last frame is no longer shown.
        stream: The number of the stream in its container.
        slices: Whether every packet is a part of the payload. Otherwise positions are 0, and only a demuxer reads it.
        decoded: Whether all frames were decoded when the index was made.
    """

    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    time_base: tuple[int, int]
    sample_aspect: tuple[int, int]
    matrix: int
    range: int
    siting: int
    reorder: int
    end: int
    stream: int
    slices: bool
    decoded: bool


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """The packets of a video in decoding order: arrays with one element per packet.

    Attributes:
        facts: Facts about the whole stream.
        extradata: What the decoder gets before the first packet.
        pts: When its frame is shown, in units of the time base.
        dts: When it is decoded, in units of the time base.
        position: Where it begins in the payload.
        size: Its size in bytes.
        keyframe: Whether decoding can begin with it.
        disposable: Whether no other packet needs it, so that it can be left out if its frame is not wanted.
        shown: Whether it gives a frame that is shown; False for packets that an edit list cuts off.
    """

    facts: VideoFacts
    extradata: bytes
    pts: Ints
    dts: Ints
    position: Ints
    size: Ints
    keyframe: Bools
    disposable: Bools
    shown: Bools

    @cached_property
    def frames(self) -> Ints:
        """The packet of each shown frame, in the order of presentation."""
        shown = np.flatnonzero(self.shown)
        return shown[np.argsort(self.pts[shown], kind="stable")]

    @property
    def largest(self) -> int:
        """The size of the largest packet."""
        return int(self.size.max(initial=0))


def encode_packet_index(index: PacketIndex) -> bytes:
    """The bytes of a packet index. FormatError if it violates a rule that `parse_packet_index` checks."""
    facts = index.facts
    _check(index, None)
    header = _HEADER.pack(
        MAGIC,
        _SLICES * facts.slices | _DECODED * facts.decoded,
        facts.stream,
        facts.rotation,
        *(facts.matrix, facts.range, facts.siting, facts.reorder),
        *(facts.width, facts.height, *facts.time_base, *facts.sample_aspect),
        *(int(index.dts[0]), facts.end, int(index.position[0])),
        *(len(index.pts), len(index.extradata), len(facts.codec), len(facts.pixel_format)),
    )
    columns = (
        index.pts - index.dts,
        np.diff(index.dts),
        index.size,
        index.position[1:] - (index.position + index.size)[:-1],
    )
    flags = _KEYFRAME * index.keyframe | _DISPOSABLE * index.disposable | _SHOWN * index.shown
    names = (facts.codec + facts.pixel_format).encode()
    return b"".join((header, names, index.extradata, *map(_encode_column, columns), flags.astype(np.uint8).tobytes()))


def parse_packet_index(data: bytes | memoryview, payload_bytes: int | None = None) -> PacketIndex:
    """Parse a packet index; FormatError if it violates the spec, or describes bytes beyond the payload.

    Args:
        data: The bytes of the index.
        payload_bytes: The size of the video; None if it is unknown.
    """
    try:
        return _parse(memoryview(data), payload_bytes)
    except FormatError as error:
        raise error.at(subject="packet index") from None


def parsing_bytes(head: bytes | memoryview, size_bytes: int) -> int:
    """The most memory that reading and parsing an index of this size takes, from its first HEAD_BYTES bytes.

    FormatError if it has no valid header.
    """
    try:
        _check_header(memoryview(head))
    except FormatError as error:
        raise error.at(subject="packet index") from None
    return size_bytes + _PACKET_BYTES * min(_count_in(head), size_bytes) + _FIXED_BYTES


def _check_header(data: memoryview) -> None:
    if len(data) < _HEADER.size or bytes(data[: len(MAGIC)]) != MAGIC:
        raise FormatError(expected=f"{MAGIC!r} and a header of {_HEADER.size} bytes", found=f"{bytes(data[:8])!r}")


def _count_in(head: bytes | memoryview) -> int:
    """The number of packets that a header names."""
    count: int = _HEADER.unpack_from(head)[-4]
    return count


def _parse(data: memoryview, payload_bytes: int | None) -> PacketIndex:
    _check_header(data)
    _, flags, stream, rotation, matrix, colour_range, siting, reorder, *rest = _HEADER.unpack_from(data)
    width, height, unit, per_second, across, down, first_dts, end, first_position, count, extra, *names = rest
    reader = _Reader(data, _HEADER.size)
    facts = VideoFacts(
        codec=reader.name(names[0], "codec"),
        pixel_format=reader.name(names[1], "pixel format"),
        width=width,
        height=height,
        rotation=rotation,
        time_base=(unit, per_second),
        sample_aspect=(across, down),
        matrix=matrix,
        range=colour_range,
        siting=siting,
        reorder=reorder,
        end=end,
        stream=stream,
        slices=bool(flags & _SLICES),
        decoded=bool(flags & _DECODED),
    )
    if flags > _SLICES | _DECODED or not 1 <= count <= min(len(data), MOST_PACKETS):
        raise FormatError(place="header", expected="known flags and packets", found=f"flags {flags}, {count} packets")
    extradata = bytes(reader.bytes(extra, "extradata"))
    delay, step = reader.column(count, "pts - dts"), reader.column(count - 1, "dts")
    size, gap = reader.column(count, "size"), reader.column(count - 1, "position")
    bits = np.frombuffer(reader.bytes(count, "flags"), np.uint8)
    if reader.at != len(data) or (bits > (_KEYFRAME | _DISPOSABLE | _SHOWN)).any():
        raise FormatError(place="flags", expected="known flags, and no bytes behind them", found="others")
    dts = _summed(first_dts, step, "dts")
    index = PacketIndex(
        facts=facts,
        extradata=extradata,
        pts=dts + delay,
        dts=dts,
        position=_summed(first_position, gap + size[:-1], "position"),
        size=size,
        keyframe=(bits & _KEYFRAME) != 0,
        disposable=(bits & _DISPOSABLE) != 0,
        shown=(bits & _SHOWN) != 0,
    )
    _check(index, payload_bytes)
    return index


class _Reader:
    """Takes the parts of an index one after the other, each within its bytes."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data = data
        self.at = at

    def bytes(self, size: int, place: str) -> memoryview:
        """The next bytes."""
        end = self.at + size
        if end > len(self.data):
            raise FormatError(place=place, expected=f"{size} bytes", found=f"{len(self.data) - self.at}")
        self.at, begin = end, self.at
        return self.data[begin:end]

    def name(self, size: int, place: str) -> str:
        """The next bytes as a name of FFmpeg."""
        found = str(self.bytes(size, place), "latin-1")
        _check_name(found, place)
        return found

    def column(self, count: int, place: str) -> Ints:
        """The next column of `count` values, all of at most MOST_TIME."""
        base, step, width = _COLUMN.unpack(self.bytes(_COLUMN.size, place))
        if width and width not in _UNSIGNED:
            raise FormatError(place=place, expected="a width of 0, 1, 2, 4 or 8 bytes", found=str(width))
        kind = np.dtype(_UNSIGNED.get(width, "<u8"))
        stored = np.frombuffer(self.bytes(count * width, place), kind) if width else _NO_VALUES
        most = int(stored.max(initial=0))
        too_large = abs(base) > MOST_TIME or base + step * most > MOST_TIME or (most > 0 and step > MOST_TIME)
        if step < 1 or too_large:
            raise FormatError(place=place, expected=f"a step, and values up to {MOST_TIME}", found="larger values")
        if not width:
            return np.full(count, base, np.int64)
        values: Ints = stored.astype(np.int64)
        values *= min(step, MOST_TIME)  # without integers above 0, any step will do
        values += base
        return values


def _encode_column(values: Ints) -> bytes:
    """The column as base, step and the narrowest integers that hold all values."""
    if not len(values):
        return _COLUMN.pack(0, 1, 0)
    base = int(values.min())
    step = int(np.gcd.reduce(values - base)) or 1
    stored = (values - base) // step
    most = int(stored.max())
    width = next(width for width in (0, 1, 2, 4, 8) if most < 1 << 8 * width)
    return _COLUMN.pack(base, step, width) + (stored.astype(np.dtype(_UNSIGNED[width])).tobytes() if width else b"")


def _summed(first: int, steps: Ints, place: str) -> Ints:
    """`first` and its sums with the steps. FormatError if a sum could leave the range of times."""
    most = abs(first) + len(steps) * max(int(steps.max(initial=0)), -int(steps.min(initial=0)))
    if most > MOST_TIME and not _sums_fit(first, steps):
        raise FormatError(place=place, expected=f"values up to {MOST_TIME}", found="larger ones")
    sums = np.empty(len(steps) + 1, np.int64)
    sums[0] = first
    np.cumsum(steps, out=sums[1:])
    sums[1:] += first
    return sums


def _sums_fit(first: int, steps: Ints) -> bool:
    """Whether all sums are in range, computed without overflow."""
    total, fits = first, abs(first) <= MOST_TIME
    for step in steps.tolist():
        total += step
        fits = fits and abs(total) <= MOST_TIME
    return fits


def _check_name(name: str, place: str) -> None:
    if not _NAME.fullmatch(name):
        raise FormatError(place=place, expected="a name of a-z, 0-9 and _", found=repr(name))


def _check(index: PacketIndex, payload_bytes: int | None) -> None:
    """FormatError unless the index keeps the rules of the spec."""
    facts = index.facts
    _check_name(facts.codec, "codec")
    _check_name(facts.pixel_format, "pixel format")
    most = MOST_TIME if payload_bytes is None else payload_bytes
    shown = index.pts[index.frames]  # in ascending order
    rules = (
        (1 <= facts.width <= MOST_SIDE and 1 <= facts.height <= MOST_SIDE, f"a width and height up to {MOST_SIDE}"),
        (all(facts.time_base), "a time base above 0"),
        (all(facts.sample_aspect), "a sample aspect above 0"),
        (facts.rotation in _ROTATIONS, "a rotation by a multiple of 90 degrees"),
        (facts.range <= 2, "a range of 0, 1 or 2"),
        (facts.reorder <= MOST_REORDER, f"at most {MOST_REORDER} frames that are held back"),
        (len(index.pts) <= MOST_PACKETS, f"at most {MOST_PACKETS} packets"),
        (len(index.extradata) <= MOST_EXTRADATA, f"at most {MOST_EXTRADATA} bytes of extradata"),
        (max(int(index.pts.max()), -int(index.pts.min())) <= MOST_TIME, f"times up to {MOST_TIME}"),
        (bool((index.size >= 0).all()), "packets with a size"),
        (not facts.slices or _lie_within(index, most), "packets inside the payload"),
        (bool(index.keyframe[0]), "a keyframe first"),
        (len(shown) > 0, "a packet that is shown"),
        (bool((shown[1:] != shown[:-1]).all()), "a time of its own for every shown frame"),
        (len(shown) > 0 and shown[-1] < facts.end <= MOST_TIME, "an end after the last frame"),
    )
    broken = next((rule for holds, rule in rules if not holds), None)
    if broken is not None:
        raise FormatError(expected=broken, found="another index")


def _lie_within(index: PacketIndex, size_bytes: int) -> bool:
    """Whether all packets lie in a payload of this size."""
    return int(index.position.min()) >= 0 and int((index.position + index.size).max()) <= size_bytes
