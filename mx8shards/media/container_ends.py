"""Is a container cut short? FFmpeg reads AVI and Matroska files without their ends, and does not say so."""

from __future__ import annotations

import os
from typing import IO

from mx8shards.errors import DecodeError

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MOST_HEAD_BYTES = 4096


def check_not_cut(source: bytes | IO[bytes]) -> None:
    """DecodeError if an AVI or Matroska file says that it is longer than it is. Others pass."""
    head = source[:_MOST_HEAD_BYTES] if isinstance(source, bytes) else _head_of(source)
    if head.startswith(b"RIFF") and head[8:11] == b"AVI":
        needed = int.from_bytes(head[4:8], "little") + 8
    elif head.startswith(_EBML):
        needed = _matroska_bytes(head)
    else:
        return
    if needed > size_of(source):
        raise DecodeError(expected=f"{needed} bytes (its head)", found=f"{size_of(source)}")


def size_of(source: bytes | IO[bytes]) -> int:
    """The size of a payload or a file, whose position stays."""
    if isinstance(source, bytes):
        return len(source)
    at = source.tell()
    try:
        return source.seek(0, os.SEEK_END)
    finally:
        source.seek(at)


def _head_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_MOST_HEAD_BYTES)


def _matroska_bytes(head: bytes) -> int:
    """Where the segment ends; 0 if it says that its size is unknown, as in live streams."""
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(head):
        return 0
    length = 9 - head[at].bit_length()
    if length > 8:
        return 0
    size = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    return 0 if size == (1 << 7 * length) - 1 else at + length + size
