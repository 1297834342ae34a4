"""Is a container cut short? FFmpeg reads AVI and Matroska files without their ends, and does not say so."""

from __future__ import annotations

from mx8shards.errors import DecodeError

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MOST_HEAD_BYTES = 4096


def check_not_cut(payload: bytes) -> None:
    """DecodeError if an AVI or Matroska file says that it is longer than the payload. Others pass."""
    if payload.startswith(b"RIFF") and payload[8:11] == b"AVI":
        needed = int.from_bytes(payload[4:8], "little") + 8
    elif payload.startswith(_EBML):
        needed = _matroska_bytes(payload)
    else:
        return
    if needed > len(payload):
        raise DecodeError(expected=f"{needed} bytes (its head)", found=f"{len(payload)}")


def _matroska_bytes(payload: bytes) -> int:
    """Where the segment ends; 0 if it says that its size is unknown, as in live streams."""
    at = payload.find(_SEGMENT, 0, _MOST_HEAD_BYTES) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(payload):
        return 0
    length = 9 - payload[at].bit_length()
    if length > 8:
        return 0
    size = int.from_bytes(payload[at : at + length], "big") & ((1 << 7 * length) - 1)
    return 0 if size == (1 << 7 * length) - 1 else at + length + size
