"""Which file format does a payload have, by its first bytes? Nothing is decoded; Pillow and Numba are not needed."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

_JPEG = b"\xff\xd8\xff"
_TILES = b"mx8tiles"  # TILES_MAGIC of kernels.jpeg, whose import would load Numba
_TILES_MARKER = 0xE9
_PLANES = b"mx8yuv\0\1"
_PARSED_BYTES = 1 << 20  # of text that are parsed as JSON
_TEXT_BYTES = 4096  # of a payload that are tested for text
_MOST_FILLING = 4096  # fill bytes in a JPEG's head
_MOST_SEGMENTS = 512  # of a JPEG's head; the longest known metadata (depth maps in XMP) take a few hundred
_BRANDS_BYTES = 256  # of the box that names an ISO file's brands
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
    **dict.fromkeys((b"isom", b"iso2", b"mp41", b"mp42", b"avc1"), "MP4"),
}
_TEXT_CONTROLS = frozenset("\t\n\r\f")

# First bytes of other formats, whose sizes are not read.
_BEGINNINGS = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "ZIP"),
    (b"%PDF-", "PDF"),
    (b"\x93NUMPY", "NumPy array file"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"OggS", "Ogg"),
    (b"fLaC", "FLAC"),
    (b"ID3", "MP3"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (b"MX8PKT1\n", "packet index of a video"),
)


def sniff(payload: bytes) -> str:
    """Describe the format of a payload, as "JPEG 500×375, tiled"; "" if it is unknown."""
    for begin, describe in _PICTURES:
        if payload.startswith(begin):
            try:
                return describe(payload)
            except (struct.error, IndexError):
                return f"{describe.__name__[1:].upper()}, cut short"
    if payload[4:8] == b"ftyp":
        return _iso_media(payload)
    known = next((kind for begin, kind in _BEGINNINGS if payload.startswith(begin)), "")
    return known or _text(payload)


def _jpeg(payload: bytes) -> str:
    """Walk over the segments up to the first scan. With too many segments or fill bytes, the result is "JPEG" alone."""
    at, size, more, filling, segments = 2, "", [], 0, 0
    while payload[at] == 0xFF and payload[at + 1] != 0xDA:
        marker = payload[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            filling += 1
            if filling > _MOST_FILLING:
                return "JPEG"
            continue
        segments += 1
        if segments > _MOST_SEGMENTS:
            return "JPEG"
        (length,) = struct.unpack_from(">H", payload, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", payload, at + 5)
            size = f"{width}×{height}"
            more += ["progressive"] if marker == 0xC2 else []
            more += {1: ["grey"], 4: ["CMYK"]}.get(components, [])
        elif marker == _TILES_MARKER and payload.startswith(_TILES, at + 4):
            more.append("tiled")
        at += 2 + max(2, length)
    return ", ".join([f"JPEG {size}".rstrip(), *more])


def _iso_media(payload: bytes) -> str:
    """AVIF, HEIC and MP4 share this container. The major brand and then the compatible brands tell them apart."""
    end = min(int.from_bytes(payload[:4], "big"), _BRANDS_BYTES)
    brands = (payload[at : at + 4] for at in (8, *range(16, end, 4)))  # bytes 12 to 15 are the minor version
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "MP4")


def _png(payload: bytes) -> str:
    width, height = struct.unpack_from(">II", payload, 16)
    return f"PNG {width}×{height}"


def _gif(payload: bytes) -> str:
    width, height = struct.unpack_from("<HH", payload, 6)
    return f"GIF {width}×{height}"


def _bmp(payload: bytes) -> str:
    if payload[6:10] != bytes(4):
        return _text(payload)
    width, height = struct.unpack_from("<ii", payload, 18)
    return f"BMP {width}×{abs(height)}"


def _webp(payload: bytes) -> str:
    """WebP in one of its layouts (lossy, lossless, extended), or another RIFF file."""
    if payload[8:12] != b"WEBP":
        return "WAV" if payload[8:12] == b"WAVE" else "RIFF"
    kind = payload[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", payload, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", payload, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(payload[at : at + 3], "little") + 1 for at in (24, 27))
        payload[29]  # IndexError if the payload is truncated
    return f"WebP {width}×{height}"


def _yuv420(payload: bytes) -> str:
    height, width = struct.unpack_from("<II", payload, len(_PLANES))
    return f"planes {width}×{height} (yuv420)"


_PICTURES: tuple[tuple[bytes, Callable[[bytes], str]], ...] = (
    (_JPEG, _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF8", _gif),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (_PLANES, _yuv420),
)


def _text(payload: bytes) -> str:
    """ "JSON" or "UTF-8 text"; "" if the first bytes are not printable text."""
    if not payload:
        return ""
    try:
        text = payload[:_TEXT_BYTES].decode()
    except UnicodeDecodeError as error:
        if len(payload) <= _TEXT_BYTES or error.start < _TEXT_BYTES - 3:  # else the last character is cut off
            return ""
        text = payload[: error.start].decode()
    if not all(character.isprintable() or character in _TEXT_CONTROLS for character in text):
        return ""
    return "JSON" if text.lstrip()[:1] in ("{", "[") and _is_json(payload) else "UTF-8 text"


def _is_json(payload: bytes) -> bool:
    try:
        json.loads(payload[:_PARSED_BYTES])
    except (ValueError, RecursionError):
        return False
    return True
