"""How are MP4 files changed that FFmpeg has written: the index moved to the front, and the end of an edit list set?

Only for files that we have muxed ourselves: their boxes are trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_HEAD = 8
_TO_OFFSETS = (b"mdia", b"minf", b"stbl")
_OFFSETS = {b"stco": ">u4", b"co64": ">u8"}
_EDITS_AT, _COUNT_AT = 16, 12  # from the begin of an elst or stco box: their first entry, and the number of entries
_EDIT_BYTES = {0: 12, 1: 20}  # by version


class _Box(NamedTuple):
    """A box: its kind, where its content begins, and where it ends."""

    kind: bytes
    at: int
    begin: int
    end: int


def with_index_first(mp4: bytes) -> bytes:
    """The file with `moov` before `mdat`, so that its head tells where everything is (faststart)."""
    boxes = list(_boxes(mp4, 0, len(mp4)))
    moov = next(box for box in boxes if box.kind == b"moov")
    first = next(box for box in boxes if box.kind == b"mdat")
    if moov.at < first.at:
        return mp4
    head = bytearray(mp4[moov.at : moov.end])
    for box in _tables(head):
        kind = np.dtype(_OFFSETS[box.kind])
        (count,) = struct.unpack_from(">I", head, box.at + _COUNT_AT)
        offsets = np.frombuffer(head, kind, count, box.at + _EDITS_AT)
        moved = offsets.astype(np.int64) + np.where(offsets < moov.at, len(head), 0)
        if len(moved) and moved.max() > np.iinfo(kind).max:
            return mp4  # 32-bit offsets that have no room for the shift
        head[box.at + _EDITS_AT : box.at + _EDITS_AT + count * kind.itemsize] = moved.astype(kind).tobytes()
    return b"".join((mp4[: first.at], head, mp4[first.at : moov.at], mp4[moov.end :]))


def with_end(mp4: bytes, track: int, duration: int) -> bytes:
    """The file with the duration of the last edit of a track set, in units of the movie's time scale."""
    moov = next(box for box in _boxes(mp4, 0, len(mp4)) if box.kind == b"moov")
    trak = [box for box in _boxes(mp4, moov.begin, moov.end) if box.kind == b"trak"][track]
    edts = next(box for box in _boxes(mp4, trak.begin, trak.end) if box.kind == b"edts")
    elst = next(_boxes(mp4, edts.begin, edts.end))
    version = mp4[elst.begin]
    (count,) = struct.unpack_from(">I", mp4, elst.at + _COUNT_AT)
    at = elst.at + _EDITS_AT + (count - 1) * _EDIT_BYTES[version]
    size = 8 if version else 4
    return mp4[:at] + duration.to_bytes(size, "big") + mp4[at + size :]


def _tables(moov: bytes | bytearray) -> Iterator[_Box]:
    """The tables of offsets of all tracks."""
    for trak in _boxes(moov, _HEAD, len(moov)):
        if trak.kind == b"trak":
            inside = trak
            for kind in _TO_OFFSETS:
                inside = next(box for box in _boxes(moov, inside.begin, inside.end) if box.kind == kind)
            yield from (box for box in _boxes(moov, inside.begin, inside.end) if box.kind in _OFFSETS)


def _boxes(data: bytes | bytearray, at: int, end: int) -> Iterator[_Box]:
    """The boxes in a range of bytes."""
    while at + _HEAD <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        begin = at + _HEAD
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        size = size or end - at
        yield _Box(kind, at, begin, at + size)
        at += size
