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


class Kind(NamedTuple):
    """What a packet's own bytes say about it."""

    begins: bool  # decoding can begin here
    intra: bool  # it is decoded without other packets
    unneeded: bool  # no other packet of its temporal layer needs it
    layer: int = 0  # its temporal layer


class Kinds(NamedTuple):
    """Per packet: can decoding begin here, and does no other packet need it?"""

    keyframe: Bools
    disposable: Bools


def reader_of_kinds(codec: str, extradata: bytes) -> Callable[[bytes], Kind]:
    """The function that tells the kind of a packet of this codec."""
    if codec == "h264":
        length = _length_bytes(extradata, _AVC_LENGTH_AT)
        return lambda packet: _h264(packet, length)
    if codec == "hevc":
        length = _length_bytes(extradata, _HEVC_LENGTH_AT)
        return lambda packet: _hevc(packet, length)
    return _FIRST_BYTES.get(codec, lambda packet: Kind(True, True, False))


def packet_kinds(found: Sequence[Kind], keyframe: Bools) -> Kinds:
    """The kinds of all packets of a stream. `keyframe` is what the container says.

    A packet that needs others is no keyframe, whatever the container says. If all packets are keyframes, none needs
    another. A packet that its own temporal layer does not need may be needed by higher ones.
    """
    begins, intra, unneeded = (np.array(values, bool) for values in list(zip(*found, strict=True))[:3])
    layers = np.array([kind.layer for kind in found])
    keyframe = keyframe & (intra if intra.all() else begins)
    disposable = np.ones(len(found), bool) if keyframe.all() else unneeded & (layers == layers.max())
    return Kinds(keyframe, disposable)


def _h264(packet: bytes, length: int) -> Kind:
    """A frame without an IDR can be a keyframe if a recovery point says that the frames behind it need none before."""
    units = list(_units(packet, length))
    slices = [unit for unit in units if unit[0] & 31 in _H264_SLICES]
    intra = bool(slices) and all(_slice_type(unit) in _I_SLICES for unit in slices)
    begins = any(unit[0] & 31 == _IDR or (unit[0] & 31 == _SEI and _is_recovery_point(unit)) for unit in units)
    return Kind(intra and begins, intra, bool(slices) and not any(unit[0] >> 5 & 3 for unit in slices))


def _hevc(packet: bytes, length: int) -> Kind:
    slices = [unit for unit in _units(packet, length) if len(unit) > 1 and unit[0] >> 1 & 63 in _HEVC_VCL]
    kinds = [unit[0] >> 1 & 63 for unit in slices]
    intra = bool(kinds) and all(kind in _HEVC_IRAP for kind in kinds)
    unneeded = bool(kinds) and all(kind < _HEVC_IRAP[0] and kind % 2 == 0 for kind in kinds)
    return Kind(intra, intra, unneeded, max((unit[1] & 7 for unit in slices), default=0))


def _length_bytes(extradata: bytes, at: int) -> int:
    """The number of bytes of the length before each NAL unit; 0 for start codes."""
    if len(extradata) <= at or extradata[0] != _AVC_CONFIGURATION:
        return 0
    return (extradata[at] & 3) + 1


def _units(packet: bytes, length: int) -> Iterator[bytes]:
    """The first bytes of each NAL unit of a packet. A length that leads out of the packet ends the iteration.

    Some files have start codes where lengths should be. FFmpeg decodes them, as no unit has one byte.
    """
    if not length or packet.startswith(b"\0\0\0\1"):
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


def _mpeg4(packet: bytes) -> Kind:
    at = packet.find(b"\0\0\1\xb6") + 4
    kind = packet[at] >> 6 if 4 <= at < len(packet) else 1
    return Kind(kind == 0, kind == 0, kind == 2)  # I and B


def _mpeg12(packet: bytes) -> Kind:
    at = packet.find(b"\0\0\1\0") + 4
    kind = packet[at + 1] >> 3 & 7 if 4 <= at < len(packet) - 1 else 2
    return Kind(kind == 1, kind == 1, kind == 3)  # I and B


def _vp8(packet: bytes) -> Kind:
    intra = bool(packet) and not packet[0] & 1
    return Kind(intra, intra, False)


def _vp9(packet: bytes) -> Kind:
    """Two bits of marker, two of the profile (3 is followed by a zero), show_existing_frame, and 1 for inter frames."""
    shift = 1 if packet and packet[0] >> 4 & 3 == 3 else 2
    intra = bool(packet) and packet[0] >> shift & 3 == 0
    return Kind(intra, intra, False)


def _av1(packet: bytes) -> Kind:
    """The first frame header begins with show_existing_frame, two bits of the frame's type, and show_frame."""
    at = 0
    while at < len(packet):
        kind, extended, sized = packet[at] >> 3 & 15, packet[at] >> 2 & 1, packet[at] >> 1 & 1
        at += 1 + extended
        size, at = _leb128(packet, at) if sized else (len(packet) - at, at)
        if kind in _AV1_FRAMES:
            intra = at < len(packet) and packet[at] >> 4 == 1
            return Kind(intra, intra, False)
        at += size
    return Kind(False, False, False)


def _leb128(packet: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and the place behind it."""
    value = 0
    for number, byte in enumerate(packet[at : at + 8]):
        value |= (byte & 127) << 7 * number
        if byte < 128:
            return value, at + number + 1
    return len(packet), len(packet)


_FIRST_BYTES: dict[str, Callable[[bytes], Kind]] = {
    "mpeg4": _mpeg4,
    "mpeg1video": _mpeg12,
    "mpeg2video": _mpeg12,
    "av1": _av1,
    "vp8": _vp8,
    "vp9": _vp9,
}
