"""Do the elements of a Matroska file follow each other without a gap?

FFmpeg's demuxer skips elements that it does not know. If the header of a block is damaged, it may lose the rest of the
file, and raises no error. Elements of unknown size, as in live streams, are not checked.
"""

from __future__ import annotations

from typing import IO, NamedTuple

from mx8shards.errors import DecodeError

EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
# all elements of a cluster (RFC 9559): time, blocks, position, size of the cluster before, silent tracks, padding, CRC
_IN_CLUSTERS = frozenset((0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0xAF, 0x5854, 0xEC, 0xBF))
_MOST_HEAD_BYTES = 12  # an id of 4 bytes and a size of 8


class _Element(NamedTuple):
    id: int
    begin: int  # of its data
    end: int | None  # None: unknown


def check_elements(source: bytes | IO[bytes], size: int) -> None:
    """DecodeError if the elements of a Matroska file do not fill the element they are in, or the file is cut short.

    Args:
        source: The file, or its bytes.
        size: The number of its bytes.
    """
    head = _element(source, 0, size)
    segment = None if head.end is None else _element(source, head.end, size)
    if segment is None or segment.id != _SEGMENT or segment.end is None:
        return
    if segment.end > size:
        raise DecodeError(expected=f"{segment.end} bytes (its head)", found=f"{size}")
    at = segment.begin
    while at < segment.end:
        element = _element(source, at, segment.end)
        if element.end is None:
            return
        if element.id == _CLUSTER:
            _check_cluster(source, element.begin, element.end)
        at = _end_inside(element.end, segment.end, at)


def _check_cluster(source: bytes | IO[bytes], at: int, end: int) -> None:
    while at < end:
        element = _element(source, at, end)
        if element.id not in _IN_CLUSTERS:
            raise _damage(at)
        if element.end is None:
            return
        at = _end_inside(element.end, end, at)


def _end_inside(end: int, limit: int, at: int) -> int:
    if end > limit:
        raise _damage(at)
    return end


def _damage(at: int) -> DecodeError:
    return DecodeError(expected="a whole video", found=f"a damaged element at byte {at}")


def _element(source: bytes | IO[bytes], at: int, limit: int) -> _Element:
    """The element whose head stands at a position. DecodeError if it is none."""
    if isinstance(source, bytes):
        head = source[at : min(at + _MOST_HEAD_BYTES, limit)]
    else:
        source.seek(at)
        head = source.read(min(_MOST_HEAD_BYTES, limit - at))
    of_id = _number_bytes(head, 0)
    of_size = _number_bytes(head, of_id)
    if not 0 < of_id <= 4 or not of_size or len(head) < of_id + of_size:
        raise _damage(at)
    most = (1 << 7 * of_size) - 1
    size = int.from_bytes(head[of_id : of_id + of_size], "big") & most
    begin = at + of_id + of_size
    return _Element(int.from_bytes(head[:of_id], "big"), begin, None if size == most else begin + size)


def _number_bytes(head: bytes, at: int) -> int:
    """The length of a number that stands in a head; 0 if it is none."""
    return 9 - head[at].bit_length() if at < len(head) and head[at] else 0
