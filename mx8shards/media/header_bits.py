"""How are fields of bits and Exp-Golomb codes read in the headers of H.264 and HEVC?"""

from __future__ import annotations

import re

_EMULATION = re.compile(b"\0\0\3(?=[\0-\3])")
_EXTENDED_ASPECT = 255


class EndError(Exception):
    """The bits end before the field that is read."""


class Bits:
    """Reads fields of the payload of a NAL unit."""

    def __init__(self, data: bytes) -> None:
        data = _EMULATION.sub(b"\0\0", data)
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._left -= count
        if self._left < 0:
            raise EndError
        value = self._bits >> self._left
        self._bits &= (1 << self._left) - 1
        return value

    def code(self) -> int:
        """The next Exp-Golomb code."""
        zeros = self._left - self._bits.bit_length()
        self.take(zeros)
        return self.take(zeros + 1) - 1


def location_in_vui(bits: Bits) -> int | None:
    """chroma_sample_loc_type_top_field, or None if it is not there: VUI of H.264 (E.1.1) and HEVC (E.2.1)."""
    if bits.take(1) and bits.take(8) == _EXTENDED_ASPECT:
        bits.take(32)
    if bits.take(1):  # overscan_info_present_flag
        bits.take(1)
    if bits.take(1):  # video_signal_type_present_flag
        bits.take(4)
        if bits.take(1):
            bits.take(24)
    return bits.code() if bits.take(1) else None
