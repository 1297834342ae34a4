"""How is a JPEG rotated losslessly, so that its EXIF orientation becomes 1?

libturbojpeg mirrors and transposes the coefficients of each block. This is exact if the sides that become the top or
left side consist of whole MCUs. Otherwise, and without the library, a JPEG cannot be rotated losslessly.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from typing import Literal

from mx8shards.kernels import turbo
from mx8shards.kernels.jpeg import TILES_MAGIC

_OPERATIONS = {2: 1, 3: 6, 4: 2, 5: 3, 6: 5, 7: 4, 8: 7}  # EXIF orientation → the TJXOP_ constant that undoes it
_PERFECT = 1  # TJXOPT_PERFECT: refuse partial MCUs
_COPY_NOTHING = 64  # TJXOPT_COPYNONE
_ORIENTATION = 0x0112
_SHORT = 3  # EXIF type of uint16
_EXIF, _XMP, _MPF = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"MPF\0"
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[1-8](?=\s*[\"'<])")
_APP0, _APP1, _SOS, _COM = 0xE0, 0xE1, 0xDA, 0xFE
_FILL = re.compile(rb"\xff*")
_MOST_SEGMENTS = 4096  # a JPEG with more segments counts as one that cannot be rotated losslessly
_COPIED = frozenset(range(0xE1, 0xF0)) - {0xEE}  # APP1 to APP15; the library writes Adobe (and JFIF)


class _Transform(ctypes.Structure):
    """tjtransform of turbojpeg.h, 2.x and 3.x."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("x", "y", "w", "h", "op", "options")),
        ("data", ctypes.c_void_p),
        ("custom_filter", ctypes.c_void_p),
    )


def upright_jpeg(jpeg: bytes, orientation: int) -> bytes | None:
    """Rotate a JPEG so that its orientation is 1, also in its metadata; None if that is not possible losslessly."""
    rotated = _transform(jpeg, _OPERATIONS[orientation])
    return None if rotated is None else _with_segments(rotated, jpeg)


def has_library() -> bool:
    """Whether the libturbojpeg in use can transform JPEGs."""
    return turbo.library is not None and all(
        hasattr(turbo.library, name) for name in ("tjInitTransform", "tjTransform", "tjFree")
    )


def _transform(jpeg: bytes, operation: int) -> bytes | None:
    library = turbo.library
    if library is None or not has_library():
        return None
    start, transform, free, destroy = library.tjInitTransform, library.tjTransform, library.tjFree, library.tjDestroy
    start.restype = ctypes.c_void_p
    transform.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
    ]
    free.argtypes = destroy.argtypes = [ctypes.c_void_p]
    handle = start()
    if not handle:
        raise MemoryError("libturbojpeg has no memory for a transformer")
    out, size = ctypes.c_void_p(), ctypes.c_ulong()
    options = _Transform(op=operation, options=_PERFECT | _COPY_NOTHING)
    try:
        failed = transform(
            *(handle, jpeg, len(jpeg), 1),
            *(ctypes.byref(out), ctypes.byref(size), ctypes.byref(options), turbo.STRICT),
        )
        return None if failed or not out.value else ctypes.string_at(out.value, size.value)
    finally:
        free(out)
        destroy(handle)


def _with_segments(rotated: bytes, source: bytes) -> bytes | None:
    """Add the source's EXIF, XMP, ICC and other segments to the rotated JPEG, with orientation 1 in EXIF and XMP.

    Versions of the library copy different segments, so all are copied here. Segments that no longer match the file are
    omitted: the index of further pictures (MPF), and a tile index.
    """
    kept = []
    changed = False
    for number, (marker, segment) in enumerate(_segments(source)):
        if number == _MOST_SEGMENTS:
            return None
        if marker == _APP1 and segment[4:].startswith(_EXIF):
            at = _orientation_at(segment)
            if at is None:
                return None
            value = (1).to_bytes(2, _order(segment[10:]))
            kept.append(segment[:at] + value + segment[at + 2 :])
            changed = True
        elif marker == _APP1 and segment[4:].startswith(_XMP):  # some readers use this orientation instead of EXIF's
            kept.append(_XMP_ORIENTATION.sub(rb"\g<1>1", segment))
        elif (marker in _COPIED or marker == _COM) and not segment[4:].startswith((_MPF, TILES_MAGIC)):
            kept.append(segment)
    head = 2
    if rotated[2:4] == bytes((0xFF, _APP0)):  # the JFIF segment has to be the first
        head += 2 + int.from_bytes(rotated[4:6], "big")
    return b"".join((rotated[:head], *kept, rotated[head:])) if changed else None


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the bytes of each segment before the first scan."""
    at = 2
    while jpeg[at : at + 1] == b"\xff":
        if jpeg[at + 1 : at + 2] == b"\xff":  # fill bytes: the last one begins the marker
            at = _FILL.match(jpeg, at).end() - 1  # type: ignore[union-attr]  # it also matches ""
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if end > len(jpeg) or jpeg[at + 1] == _SOS:
            return
        yield jpeg[at + 1], jpeg[at:end]
        at = end


def _order(tiff: bytes) -> Literal["little", "big"]:
    return "little" if tiff.startswith(b"II") else "big"


def _orientation_at(segment: bytes) -> int | None:
    """The offset of the orientation's value in an EXIF segment; None unless it is one uint16, stored in the entry."""
    tiff = segment[10:]
    order = _order(tiff)
    directory = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[directory : directory + 2], order)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        head = tiff[entry : entry + 8]
        if len(head) == 8 and int.from_bytes(head[:2], order) == _ORIENTATION:
            usual = head[2:] == _SHORT.to_bytes(2, order) + (1).to_bytes(4, order)
            return 10 + entry + 8 if usual and len(tiff) >= entry + 12 else None
    return None
