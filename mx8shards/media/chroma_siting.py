"""Where do the chroma samples of a video lie? By what its decoder gets first; PyAV does not tell.

H.264 and HEVC have it in their sequence parameter sets, AV1 in its configuration. Other codecs are taken to be
untagged, and so is what only the container says. A VP9 stream has no field for it. The box vpcC in MP4 has one, but
FFmpeg writes "at the top left" there if it does not know, so that most files have a wrong tag.
"""

from __future__ import annotations

from collections.abc import Callable

from mx8shards.media.header_bits import Bits, EndError, location_in_vui
from mx8shards.media.hevc_headers import hevc_location

UNKNOWN = 0

_SPS, _START_CODE = 7, b"\0\0\1"
_WITH_CHROMA_FORMAT = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))  # profiles
_MOST_REFERENCES = 255
_AV1_CONFIGURATION = 0x81  # marker and version


def siting_of(codec: str, extradata: bytes) -> int:
    """The code of the position of chroma samples in VideoFacts, by what the decoder gets first; 0 if it is unknown."""
    find = _LOCATIONS.get(codec)
    try:
        location = find(extradata) if find else None
    except EndError:
        return UNKNOWN
    return UNKNOWN if location is None or location > 5 else location + 1


def _h264_location(extradata: bytes) -> int | None:
    sps = _first_sps(extradata)
    return _location(Bits(sps[1:])) if sps else None


def _av1_location(extradata: bytes) -> int | None:
    """chroma_sample_position in an AV1CodecConfigurationRecord: 1 is on the left, 2 at the top left."""
    position = extradata[2] & 3 if len(extradata) > 3 and extradata[0] == _AV1_CONFIGURATION else 0
    return {1: 0, 2: 2}.get(position)


def _first_sps(extradata: bytes) -> bytes:
    """The first sequence parameter set of an AVCDecoderConfigurationRecord or of units behind start codes."""
    if extradata[:1] == b"\1":
        size = int.from_bytes(extradata[6:8], "big")
        return extradata[8 : 8 + size]
    units = extradata.split(_START_CODE)[1:]
    return next((unit for unit in units if unit and unit[0] & 31 == _SPS), b"")


def _location(bits: Bits) -> int | None:
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
    return location_in_vui(bits) if bits.take(1) else None


def _skip_chroma_format(bits: Bits) -> None:
    chroma = bits.code()
    if chroma == 3:
        bits.take(1)
    bits.code(), bits.code()  # bit depths
    bits.take(1)
    if bits.take(1):  # seq_scaling_matrix_present_flag
        for number in range(8 if chroma != 3 else 12):
            if bits.take(1):
                _skip_scaling_list(bits, 16 if number < 6 else 64)


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.code()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


def _skip_order(bits: Bits) -> None:
    kind = bits.code()  # pic_order_cnt_type
    if kind == 0:
        bits.code()
    elif kind == 1:
        bits.take(1)
        bits.code(), bits.code()
        count = bits.code()
        if count > _MOST_REFERENCES:
            raise EndError
        for _ in range(count):
            bits.code()


_LOCATIONS: dict[str, Callable[[bytes], int | None]] = {
    "h264": _h264_location,
    "hevc": hevc_location,
    "av1": _av1_location,
}
