"""Where do the chroma samples of an H.264 video lie? By its sequence parameter set; PyAV does not tell.

Other codecs are taken to be untagged: 8-bit videos with another position than the usual one are rare.
"""

from __future__ import annotations

import re

UNKNOWN = 0

_SPS, _START_CODE, _EMULATION = 7, b"\0\0\1", re.compile(b"\0\0\3(?=[\0-\3])")
_WITH_CHROMA_FORMAT = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))  # profiles
_MOST_REFERENCES = 255
_EXTENDED_ASPECT = 255


def siting_of(codec: str, extradata: bytes) -> int:
    """The code of the position of chroma samples in VideoFacts, by what the decoder gets first; 0 if it is unknown."""
    sps = _first_sps(extradata) if codec == "h264" else b""
    try:
        location = _location(_Bits(_EMULATION.sub(b"\0\0", sps[1:]))) if sps else None
    except _EndError:
        return UNKNOWN
    return UNKNOWN if location is None or location > 5 else location + 1


def _first_sps(extradata: bytes) -> bytes:
    """The first sequence parameter set of an AVCDecoderConfigurationRecord or of units behind start codes."""
    if extradata[:1] == b"\1":
        size = int.from_bytes(extradata[6:8], "big")
        return extradata[8 : 8 + size]
    units = extradata.split(_START_CODE)[1:]
    return next((unit for unit in units if unit and unit[0] & 31 == _SPS), b"")


class _EndError(Exception):
    """The bits end before the field that is read."""


class _Bits:
    """Reads fields of bits and Exp-Golomb codes."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._left -= count
        if self._left < 0:
            raise _EndError
        value = self._bits >> self._left
        self._bits &= (1 << self._left) - 1
        return value

    def code(self) -> int:
        """The next Exp-Golomb code."""
        zeros = self._left - self._bits.bit_length()
        self.take(zeros)
        return self.take(zeros + 1) - 1


def _location(bits: _Bits) -> int | None:
    """chroma_sample_loc_type_top_field, or None if it is not there (H.264, 7.3.2.1.1 and E.1.1)."""
    profile = bits.take(8)
    bits.take(16)
    bits.code()  # seq_parameter_set_id
    if profile in _WITH_CHROMA_FORMAT:
        _skip_chroma_format(bits)
    bits.code()  # log2_max_frame_num_minus4
    _skip_order(bits)
    bits.code()  # max_num_ref_frames
    bits.take(1)
    bits.code(), bits.code()  # width and height in macroblocks
    if not bits.take(1):  # frame_mbs_only_flag
        bits.take(1)
    bits.take(1)
    if bits.take(1):  # frame_cropping_flag
        for _ in range(4):
            bits.code()
    return _location_in_vui(bits) if bits.take(1) else None


def _skip_chroma_format(bits: _Bits) -> None:
    chroma = bits.code()
    if chroma == 3:
        bits.take(1)
    bits.code(), bits.code()  # bit depths
    bits.take(1)
    if bits.take(1):  # seq_scaling_matrix_present_flag
        for number in range(8 if chroma != 3 else 12):
            if bits.take(1):
                _skip_scaling_list(bits, 16 if number < 6 else 64)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.code()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


def _skip_order(bits: _Bits) -> None:
    kind = bits.code()  # pic_order_cnt_type
    if kind == 0:
        bits.code()
    elif kind == 1:
        bits.take(1)
        bits.code(), bits.code()
        count = bits.code()
        if count > _MOST_REFERENCES:
            raise _EndError
        for _ in range(count):
            bits.code()


def _location_in_vui(bits: _Bits) -> int | None:
    if bits.take(1) and bits.take(8) == _EXTENDED_ASPECT:
        bits.take(32)
    if bits.take(1):  # overscan_info_present_flag
        bits.take(1)
    if bits.take(1):  # video_signal_type_present_flag
        bits.take(4)
        if bits.take(1):
            bits.take(24)
    return bits.code() if bits.take(1) else None
