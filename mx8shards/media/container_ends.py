"""Is a container whole? FFmpeg reads AVI and Matroska files that are cut short or damaged, and does not say so."""

from __future__ import annotations

import os
from typing import IO

from mx8shards.errors import DecodeError
from mx8shards.media.matroska_elements import EBML, check_elements

_MOST_HEAD_BYTES = 12


def check_whole(source: bytes | IO[bytes]) -> None:
    """DecodeError if an AVI or Matroska file is longer than its bytes, or a Matroska file has gaps. Others pass."""
    head, size = source[:_MOST_HEAD_BYTES] if isinstance(source, bytes) else _head_of(source), size_of(source)
    if head.startswith(EBML):
        check_elements(source, size)
    elif head.startswith(b"RIFF") and head[8:11] == b"AVI":
        needed = int.from_bytes(head[4:8], "little") + 8
        if needed > size:
            raise DecodeError(expected=f"{needed} bytes (its head)", found=f"{size}")


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
