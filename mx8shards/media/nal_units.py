"""Which packets are keyframes, and which does no other packet need? By the first bytes of their frames.

Containers say which packets are keyframes, but not always truthfully, and most do not say which can be left out. H.264
and HEVC packets consist of NAL units, with a length before each (in MP4 and Matroska) or a start code (Annex B).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]

_START_CODE = re.compile(b"\0\0\1")
_AVC_CONFIGURATION, _AVC_LENGTH_AT, _HEVC_LENGTH_AT = 1, 4, 21
_HEAD_BYTES = 24  # of a slice that hold its first two numbers
_IDR, _SEI, _RECOVERY_POINT = 5, 6, 6
_H264_SLICES = frozenset((1, 2, 5))
_I_SLICES = frozenset((2, 4, 7, 9))  # I and SI, of a picture that has other slices too or only these
_AV1_FRAMES = frozenset((3, 6))  # OBU_FRAME_HEADER and OBU_FRAME
_HEVC_VCL, _HEVC_IRAP = range(32), range(16, 24)


class Kinds(NamedTuple):
    """Per packet: can decoding begin here, and does no other packet need it?"""

    keyframe: Bools
    disposable: Bools


def packet_kinds(codec: str, extradata: bytes, packets: Sequence[bytes], keyframe: Bools) -> Kinds:
    """The kinds of packets in decoding order. `keyframe` is what the container says.

    A keyframe by the container that has other frames' pixels in it is none. If it is unknown which packets another one
    needs, none is disposable.
    """
    nothing = np.zeros(len(packets), bool)
    if codec == "h264":
        kinds = _h264(extradata, packets, keyframe)
    elif codec == "hevc":
        kinds = _hevc(extradata, packets, keyframe)
    elif codec in _FIRST_BYTES:
        intra, unused = zip(*map(_FIRST_BYTES[codec], packets), strict=True) if packets else ((), ())
        kinds = Kinds(keyframe & np.array(intra, bool), np.array(unused, bool))
    else:
        kinds = Kinds(keyframe, nothing)
    if kinds.keyframe.all():
        return Kinds(kinds.keyframe, ~nothing)
    return kinds


def _h264(extradata: bytes, packets: Sequence[bytes], keyframe: Bools) -> Kinds:
    length = _length_bytes(extradata, _AVC_LENGTH_AT)
    intra, whole, unused = [], [], []
    for packet in packets:
        units = list(_units(packet, length))
        slices = [unit for unit in units if unit[0] & 31 in _H264_SLICES]
        idr = any(unit[0] & 31 == _IDR for unit in slices)
        recovery = any(unit[0] & 31 == _SEI and _is_recovery_point(unit) for unit in units)
        only_intra = bool(slices) and all(_slice_type(unit) in _I_SLICES for unit in slices)
        intra.append(only_intra)
        whole.append(only_intra and (idr or recovery))
        unused.append(bool(slices) and not any(unit[0] >> 5 & 3 for unit in slices))
    begins = np.array(intra, bool) if all(intra) else np.array(whole, bool)
    return Kinds(keyframe & begins, np.array(unused, bool))


def _hevc(extradata: bytes, packets: Sequence[bytes], keyframe: Bools) -> Kinds:
    """A frame of the highest temporal layer that its own layer does not need is needed by none."""
    length = _length_bytes(extradata, _HEVC_LENGTH_AT)
    begins, unneeded, layers = [], [], []
    for packet in packets:
        slices = [unit for unit in _units(packet, length) if len(unit) > 1 and unit[0] >> 1 & 63 in _HEVC_VCL]
        kinds = [unit[0] >> 1 & 63 for unit in slices]
        begins.append(bool(kinds) and all(kind in _HEVC_IRAP for kind in kinds))
        unneeded.append(bool(kinds) and all(kind < _HEVC_IRAP[0] and kind % 2 == 0 for kind in kinds))
        layers.append(max((unit[1] & 7 for unit in slices), default=8))
    highest = np.array(layers) == max(layers, default=0)
    return Kinds(keyframe & np.array(begins, bool), np.array(unneeded, bool) & highest)


def _length_bytes(extradata: bytes, at: int) -> int:
    """The number of bytes of the length before each NAL unit; 0 for start codes."""
    if len(extradata) <= at or extradata[0] != _AVC_CONFIGURATION:
        return 0
    return (extradata[at] & 3) + 1


def _units(packet: bytes, length: int) -> Iterator[bytes]:
    """The beginnings of the NAL units of a packet; those that do not lie in the packet end it."""
    if not length:
        starts = [match.end() for match in _START_CODE.finditer(packet)]
        yield from (packet[at : at + _HEAD_BYTES] for at in starts if at < len(packet))
        return
    at = 0
    while at + length < len(packet):
        size = int.from_bytes(packet[at : at + length], "big")
        at += length
        if size:
            yield packet[at : at + min(size, _HEAD_BYTES)]
        at += size


def _is_recovery_point(unit: bytes) -> bool:
    """Whether an SEI unit says that frames are right from here on. recovery_frame_cnt 0 is a single 1 bit."""
    at = 1
    while at + 2 < len(unit):
        if unit[at] == _RECOVERY_POINT:
            return unit[at + 2] >= 0x80
        if 255 in unit[at : at + 2]:  # a long message: the head ends before the next one
            return False
        at += 2 + unit[at + 1]
    return False


def _slice_type(unit: bytes) -> int:
    """The slice_type of an H.264 slice; -1 if its head is damaged."""
    head = unit[1:].replace(b"\0\0\3", b"\0\0")
    bits = int.from_bytes(head, "big")
    left = 8 * len(head)
    for number in range(2):
        zeros = left - bits.bit_length()
        left -= 2 * zeros + 1
        if left < 0 or not bits:
            return -1
        value = (bits >> left) - 1
        bits &= (1 << left) - 1
        if number:
            return value
    return -1


def _mpeg4(packet: bytes) -> tuple[bool, bool]:
    at = packet.find(b"\0\0\1\xb6") + 4
    kind = packet[at] >> 6 if 4 <= at < len(packet) else 1
    return kind == 0, kind == 2  # I and B


def _mpeg12(packet: bytes) -> tuple[bool, bool]:
    at = packet.find(b"\0\0\1\0") + 4
    kind = packet[at + 1] >> 3 & 7 if 4 <= at < len(packet) - 1 else 2
    return kind == 1, kind == 3  # I and B


def _vp8(packet: bytes) -> tuple[bool, bool]:
    return bool(packet) and not packet[0] & 1, False


def _vp9(packet: bytes) -> tuple[bool, bool]:
    """Two bits of marker, two of the profile (3 is followed by a zero), show_existing_frame, and 1 for inter frames."""
    if not packet:
        return False, False
    shift = 1 if packet[0] >> 4 & 3 == 3 else 2
    return packet[0] >> shift & 3 == 0, False


def _av1(packet: bytes) -> tuple[bool, bool]:
    """The first frame header begins with show_existing_frame, two bits of the frame's type, and show_frame."""
    at = 0
    while at < len(packet) and packet[at] >> 3 & 15 not in _AV1_FRAMES:
        if not packet[at] & 2:  # no size: the last unit
            return False, False
        size, at = _leb128(packet, at + 1 + (packet[at] >> 2 & 1))
        at += size
    if at >= len(packet):
        return False, False
    extended, sized = packet[at] >> 2 & 1, packet[at] >> 1 & 1
    begin = _leb128(packet, at + 1 + extended)[1] if sized else at + 1 + extended
    return begin < len(packet) and packet[begin] >> 4 == 1, False


def _leb128(packet: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and the place behind it."""
    value = 0
    for number, byte in enumerate(packet[at : at + 8]):
        value |= (byte & 127) << 7 * number
        if byte < 128:
            return value, at + number + 1
    return len(packet), len(packet)


_FIRST_BYTES: dict[str, Callable[[bytes], tuple[bool, bool]]] = {
    "mpeg4": _mpeg4,
    "mpeg1video": _mpeg12,
    "mpeg2video": _mpeg12,
    "av1": _av1,
    "vp8": _vp8,
    "vp9": _vp9,
}
