"""What does the sequence parameter set of an HEVC video say about the position of chroma samples? (H.265, 7.3.2.2)"""

from __future__ import annotations

from mx8shards.media.header_bits import Bits, EndError, location_in_vui

_SPS, _START_CODE = 33, b"\0\0\1"
_ARRAYS_AT = 22  # in an HEVCDecoderConfigurationRecord: the number of its arrays of units
_MOST_SETS, _MOST_PICTURES = 64, 16  # reference picture sets, and pictures in each


def hevc_location(extradata: bytes) -> int | None:
    """chroma_sample_loc_type_top_field; None if it is not there. EndError if the bits end before it."""
    sps = _first_sps(extradata)
    return _location(Bits(sps[2:])) if sps else None


def _first_sps(extradata: bytes) -> bytes:
    """The first sequence parameter set of an HEVCDecoderConfigurationRecord or of units behind start codes."""
    if extradata[:1] != b"\1":
        units = extradata.split(_START_CODE)[1:]
        return next((unit for unit in units if unit and unit[0] >> 1 & 63 == _SPS), b"")
    at, kind = _ARRAYS_AT + 1, -1
    for _ in range(extradata[_ARRAYS_AT] if len(extradata) > _ARRAYS_AT else 0):
        kind, count, at = _number(extradata, at, 1) & 63, _number(extradata, at + 1, 2), at + 3
        for _ in range(count):
            size, at = _number(extradata, at, 2), at + 2
            if kind == _SPS:
                return extradata[at : at + size]
            at += size
    return b""


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise EndError
    return int.from_bytes(data[at : at + size], "big")


def _location(bits: Bits) -> int | None:
    bits.take(4)
    layers = bits.take(3)  # sps_max_sub_layers_minus1
    bits.take(1)
    _skip_profile(bits, layers)
    bits.code()  # sps_seq_parameter_set_id
    if bits.code() == 3:  # chroma_format_idc
        bits.take(1)
    bits.code(), bits.code()  # width and height
    if bits.take(1):  # conformance_window_flag
        _skip_codes(bits, 4)
    _skip_codes(bits, 2)  # bit depths
    time_bits = bits.code() + 4
    _skip_codes(bits, 3 * (layers + 1 if bits.take(1) else 1))
    _skip_codes(bits, 6)  # sizes of blocks
    if bits.take(1) and bits.take(1):  # scaling lists
        _skip_scaling_lists(bits)
    bits.take(2)
    if bits.take(1):  # pcm_enabled_flag
        bits.take(8)
        _skip_codes(bits, 2)
        bits.take(1)
    _skip_picture_sets(bits)
    if bits.take(1):  # long_term_ref_pics_present_flag
        for _ in range(_bounded(bits.code(), _MOST_SETS)):
            bits.take(time_bits + 1)
    bits.take(2)
    return location_in_vui(bits) if bits.take(1) else None


def _skip_codes(bits: Bits, count: int) -> None:
    for _ in range(count):
        bits.code()


def _bounded(value: int, most: int) -> int:
    if value > most:
        raise EndError
    return value


def _skip_profile(bits: Bits, layers: int) -> None:
    bits.take(88 + 8)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)


def _skip_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for _ in range(0, 6, 3 if size == 3 else 1):
            if bits.take(1):
                _skip_codes(bits, min(64, 16 << 2 * size) + (size > 1))
            else:
                bits.code()


def _skip_picture_sets(bits: Bits) -> None:
    """Short-term reference picture sets. One can be coded by its differences to the one before."""
    before: list[int] = []
    for number in range(_bounded(bits.code(), _MOST_SETS)):
        if number and bits.take(1):
            before = _changed(bits, before)
        else:
            counts = _bounded(bits.code(), _MOST_PICTURES), _bounded(bits.code(), _MOST_PICTURES)
            before = [time for sign, count in zip((-1, 1), counts, strict=True) for time in _times(bits, sign, count)]


def _times(bits: Bits, sign: int, count: int) -> list[int]:
    """The distances in time of pictures before (-1) or after (1) the current one."""
    found, time = [], 0
    for _ in range(count):
        time += sign * (bits.code() + 1)
        bits.take(1)
        found.append(time)
    return found


def _changed(bits: Bits, before: list[int]) -> list[int]:
    sign = -1 if bits.take(1) else 1
    difference = sign * (bits.code() + 1)
    found = []
    for time in (*before, 0):
        is_kept = bits.take(1) or bits.take(1)
        if is_kept and time + difference:
            found.append(time + difference)
    return sorted((time for time in found if time < 0), reverse=True) + sorted(time for time in found if time > 0)
