"""Is a picture file a decompression bomb: does opening or decoding it cost far more than its size suggests?

Pillow parses a file's header in Python, by bytes, chunks or tags, and libjpeg processes the whole picture for each
scan. So a small file can occupy a core for minutes. `check_cost` parses the header first, with fast searches, and
refuses files that no ordinary encoder writes. It checks the cost only: a file that passes may still be damaged.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import numpy as np

from mx8shards.errors import DecodeError

# Encoders write far fewer scans: libjpeg's script has 10, those of mozjpeg and jpegli have a few more. libtiff has this
# limit too. Each scan is a pass over all blocks, so decoding takes at most 10 times as long as with libjpeg's script.
MOST_SCANS = 100

_SMALL_BYTES = 1 << 16  # parsing a smaller file takes a few milliseconds at most
_MOST_FILLING = 1 << 16  # fill bytes and comments in a header
_MOST_SEGMENTS = 4096  # segments of a JPEG; the longest known metadata (depth maps in XMP) need a few hundred
_MOST_COMMENTS = 1024  # comments of a plain PPM: Pillow copies up to 1 MiB for each
_MOST_VALUES = 1 << 17  # values of a TIFF tag: Pillow makes a Python object of each

_SCAN_PAIR = 0xDAFF  # the marker 0xFF 0xDA, read as a little-endian number
_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_BARE_MARKERS = frozenset((*range(0xC0), *range(0xD0, 0xDA), *range(0xF0, 0xFE), 0xC8))  # markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_FILL = re.compile(rb"\xff*")
# The markers that end a scan. libjpeg treats markers below 0xC0 as having no length, or refuses them.
_MARKER_IN_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_TIFF_BYTES = frozenset((1, 2, 6, 7))  # types whose values Pillow keeps as bytes
_DIRECTORIES = frozenset((34665, 34853, 40965))  # tags with the offsets of the EXIF, GPS and Interop directories
_TIFF_HEADS = re.compile(rb"II\*\0|MM\0\*")
_MOST_HEADS = 64  # EXIF headers in an AVIF; by chance, pixel data contain about one such pattern per 2 GiB


def check_cost(data: bytes) -> None:
    """DecodeError for a picture file whose header or scans cost far more than its size suggests."""
    if data.startswith(_JPEG):
        head = walk_jpeg(data)
        check_exif(head.exif)
        if head.several_scans:
            check_scans(data, head.scan)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        check_tags(data)
    elif data[4:8] == b"ftyp":
        _check_avif(data)
    elif len(data) <= _SMALL_BYTES:
        return
    elif data.startswith(_PNG):
        _check_png(data)
    elif data.startswith(b"GIF8"):
        _check_gif(data)
    elif data[:1] == b"P" and data[1:2] in b"123456fy0":
        _check_ppm(data)


class JpegHead(NamedTuple):
    """The offsets of a JPEG's frame and scan headers (0: none), and the bytes that Pillow uses as its EXIF data."""

    frame: int
    scan: int
    several_scans: bool
    exif: bytes

    def size(self, data: bytes) -> tuple[int, int, int]:
        """Height, width and number of components; all 0 without a frame header."""
        if not self.frame or self.frame + 10 > len(data):
            return 0, 0, 0
        height, width, count = struct.unpack_from(">HHB", data, self.frame + 5)
        return height, width, count

    def coefficient_bytes(self, data: bytes) -> int:
        """The memory of libjpeg for a picture in several scans: all coefficients, with two bytes each; otherwise 0."""
        height, width, count = self.size(data)
        if not self.several_scans:
            return 0
        factors = [divmod(byte, 16) for byte in data[self.frame + 11 : self.frame + 10 + 3 * count : 3]]
        h, v = (max((1, *(factor[i] for factor in factors))) for i in (0, 1))
        return int(-(-width // (8 * h)) * -(-height // (8 * v)) * 128 * sum(a * b for a, b in factors))


def walk_jpeg(data: bytes) -> JpegHead:
    """Parse the header of a JPEG in the way Pillow does. DecodeError for too many fill bytes or segments."""
    at, filling, frame, exif = 2, 0, 0, b""
    parts: list[bytes] = []
    for _ in range(_MOST_SEGMENTS):
        begin = at
        at = data.find(b"\xff", at)
        if at < 0:
            at = len(data)
        at = max(at, _FILL.match(data, at).end() - 1)  # type: ignore[union-attr]  # it matches the empty string
        filling += at - begin
        if filling > _MOST_FILLING:
            raise DecodeError(expected=f"at most {_MOST_FILLING} fill bytes in a JPEG's header", found="more")
        if at + 4 > len(data):
            return JpegHead(frame, 0, False, b"".join(parts))
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if marker in _BARE_MARKERS:
            at += 2
            filling += 2
            continue
        if marker in _FRAMES:
            frame = at
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            parts.append(data[at + 10 : at + 2 + length])
        elif marker == 0xE2 and data[at + 4 : at + 8] == b"MPF\0":
            check_exif(data[at + 8 : at + 2 + length])
        elif marker == 0xDA:
            exif = b"".join(parts)
            partial = frame > 0 and data[at + 4 : at + 5] != data[frame + 9 : frame + 10]
            return JpegHead(frame, at, partial or (frame > 0 and data[frame + 1] in _PROGRESSIVE), exif)
        at += 2 + length
    raise DecodeError(expected=f"at most {_MOST_SEGMENTS} segments in a JPEG's header", found="more")


def check_scans(data: bytes, at: int) -> None:
    """DecodeError for a JPEG with too many scans; `at` is the offset of the first one."""
    if _starts_of_scans(data, at) <= MOST_SCANS:
        return
    scans = 0
    while at + 4 <= len(data) and data[at + 1] != 0xD9:
        scans += data[at + 1] == 0xDA
        found = _MARKER_IN_SCAN.search(data, at + 2 + (data[at + 2] << 8 | data[at + 3]))
        if found is None:
            break
        at = found.start()
    if scans > MOST_SCANS:
        raise DecodeError(expected=f"a JPEG of at most {MOST_SCANS} scans", found=f"{scans}")


def _starts_of_scans(data: bytes, at: int) -> int:
    """A quick upper bound of the number of scans: all occurrences of the scan marker's bytes from `at` on."""
    pairs = (np.frombuffer(data, "<u2", (len(data) - begin) // 2, begin) for begin in (at, at + 1))
    return sum(int(np.count_nonzero(pair == _SCAN_PAIR)) for pair in pairs)


def check_exif(exif: bytes | memoryview) -> None:
    """DecodeError for EXIF data whose tags overlap, so that together they take many times the memory of the data."""
    if exif[:2] in (b"II", b"MM"):
        check_tags(exif)


def check_tags(data: bytes | memoryview) -> None:
    """DecodeError for a TIFF whose tags claim several times the size of the file, or far too many numbers.

    Checks the first directory of tags and the EXIF directories below it, which are those that Pillow loads.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:3] == b"+" or data[3:4] == b"+"
    forms = ("HHQ8s", "Q", "8xQ") if big else ("HHI4s", "H", "4xI")
    entry, count, first = (struct.Struct(order + form) for form in forms)
    claimed = entries = 0
    seen: set[int] = set()
    left = list(first.unpack_from(data)) if len(data) >= first.size else []
    while left:
        at = left.pop()
        if at in seen or at + count.size > len(data):
            continue
        seen.add(at)
        begin = at + count.size
        end = min(begin + count.unpack_from(data, at)[0] * entry.size, len(data) - entry.size + 1)
        for offset in range(begin, end, entry.size):
            tag, kind, values, value = entry.unpack_from(data, offset)
            size = values * _TIFF_SIZES.get(kind, 0)
            entries += 1
            if size > len(data):
                continue  # Pillow skips tags that claim more bytes than the file has
            claimed += size
            if claimed > 4 * len(data) or entries > _MOST_VALUES:
                raise DecodeError(expected="tags of the file's size", found="many tags that share their bytes")
            if kind not in _TIFF_BYTES and values > _MOST_VALUES:
                raise DecodeError(expected=f"tags of at most {_MOST_VALUES} numbers", found=f"{values}")
            if tag in _DIRECTORIES and values == 1 and size <= len(value):
                left.append(int.from_bytes(value[:size], "little" if order == "<" else "big"))


def _check_png(data: bytes) -> None:
    """DecodeError for a PNG with too many chunks: for Pillow, an empty chunk takes as long as 1 KiB of data."""
    at, most = len(_PNG), _MOST_SEGMENTS + len(data) // 512
    for _ in range(most):
        if at + 12 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise DecodeError(expected=f"at most {most} chunks in a PNG of {len(data)} bytes", found="more")


def _check_gif(data: bytes) -> None:
    """DecodeError for a GIF with too many blocks up to the second frame, which is the last one that is examined."""
    most, frames = _MOST_SEGMENTS + len(data) // 64, 0
    at = 13 + (3 << (data[10] % 8 + 1) if data[10] & 0x80 else 0)
    for _ in range(most):
        if at + 11 > len(data) or frames == 2:
            return
        if data[at] == 0x2C:
            frames += 1
            at += 11 + (3 << (data[at + 9] % 8 + 1) if data[at + 9] & 0x80 else 0)
        elif data[at] == 0x21:
            at += 2
        elif data[at] == 0x3B:
            return
        else:
            at += 1
            continue
        while at < len(data) and data[at]:
            at += 1 + data[at]
            most -= 1
            if most < 0:
                break
        at += 1
    raise DecodeError(expected="a GIF whose blocks have 64 bytes on average", found="smaller blocks")


def _check_avif(data: bytes) -> None:
    """DecodeError for an AVIF with overlapping EXIF tags, as Pillow may copy all of them while opening the file."""
    for number, head in enumerate(_TIFF_HEADS.finditer(data)):
        if number == _MOST_HEADS:
            raise DecodeError(expected=f"at most {_MOST_HEADS} EXIF headers in an AVIF", found="more")
        check_tags(memoryview(data)[head.start() :])


def _check_ppm(data: bytes) -> None:
    """DecodeError for a PPM with long comments, as Pillow reads headers byte by byte and copies a block per comment."""
    if data[1:2] in b"123" and data.count(b"#") > _MOST_COMMENTS:
        raise DecodeError(expected=f"at most {_MOST_COMMENTS} comments in a plain PPM", found="more")
    wanted, at, inside = 2 if data[1:2] in b"14" else 3, 2, False
    while wanted and at < _MOST_FILLING:
        byte = data[at : at + 1]
        if byte == b"#":
            ends = [end for end in (data.find(line, at, _MOST_FILLING) for line in (b"\n", b"\r")) if end >= 0]
            at = min(ends, default=_MOST_FILLING)
        elif byte.isspace():
            wanted -= inside
            inside = False
        else:
            inside = True
        at += 1
    if wanted:
        raise DecodeError(expected=f"a PPM whose header ends within {_MOST_FILLING} bytes", found="long comments")
