"""How are picture files opened with Pillow, and which are refused (bit depth, mode, frames, size, orientation)?

Everything that opens picture files with Pillow uses this module. Files are untrusted: the cost is checked first
(`picture_cost`), only a few formats are tried, and depth, frames and size are checked before pixels are decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import SEEK_END, BytesIO
from typing import Any

from mx8shards.errors import DecodeError, error_text, require
from mx8shards.format.picture_cost import check_cost, check_exif

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
JPEGS = frozenset(("JPEG", "MPO"))  # an MPO file contains several JPEGs; all decoders use the first

MOST_PIXELS = 1 << 27  # the limit for pictures that need not be decoded whole: a Loader may decode regions of a JPEG
MOST_DECODED_BYTES = 256 << 20  # memory for decoding one picture, in the Loader, `summary --pixels` and `convert`

# Memory of Pillow and its codecs for each pixel, including its pixels and our copy (measured as process memory).
_PIXEL_BYTES = {"PNG": 14, "BMP": 14, "TIFF": 14, "PPM": 14, "GIF": 14}
_MOST_PIXEL_BYTES = 20

# Pillow's decoders that are written in Python: up to a microsecond per byte or sample.
_SLOW_DECODERS = frozenset(("ppm", "ppm_plain", "bmp_rle"))
_MOST_SLOW = 1 << 21

# Pillow's 8-bit modes that convert to RGB without a colour profile.
RGB_MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"))

TO_RGB8 = "`convert imagefolder --rgb8` converts it to 8-bit RGB or grey"

_BITS_PER_SAMPLE = 258  # tags of TIFF
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_ORIENTATION = 274
_SHORT, _LONG = 3, 4  # types of their values


def open_picture(data: bytes, formats: Sequence[str] = FORMATS) -> Any:
    """Open a picture file with Pillow, without decoding it. DecodeError if its cost is too high, or Pillow's errors."""
    check_cost(data)
    picture = require("PIL.Image", "images").open(BytesIO(data), formats=formats)
    check_exif(_exif_of(picture))  # for formats other than JPEG: check_cost has checked the EXIF data of JPEGs
    return picture


def refusal(data: bytes, error: Exception) -> DecodeError:
    """The DecodeError for an exception that Pillow raised: SyntaxError, struct.error, one of its own, and others."""
    if isinstance(error, require("PIL.Image", "images").UnidentifiedImageError):
        found = f"{len(data)} bytes that begin with {bytes(data[:8])!r}" if data else "no bytes"
        return DecodeError(expected=f"a picture ({', '.join(FORMATS)})", found=found)
    return DecodeError(expected="a whole picture", found=error_text(error))


def checked_orientation(picture: Any) -> int:
    """EXIF's orientation from all sources that Pillow knows: EXIF data anywhere in the file, or XMP.

    DecodeError for EXIF data that would take far more memory than the size of the file.
    """
    if picture.format == "PNG":
        if "exif" not in picture.info:
            picture.load()  # EXIF data may follow the pixels
        check_exif(_exif_of(picture))
        check_exif(_profile_of(picture))
    found = picture.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def check_kind(picture: Any) -> None:
    """DecodeError for a picture of an unsupported depth, mode or number of frames, or that Pillow decodes slowly."""
    check_mode(picture)
    check_frames(picture)
    check_speed(picture)


def check_mode(picture: Any, modes: frozenset[str] = RGB_MODES) -> None:
    """DecodeError for a picture of more than 8 bits per channel, or whose mode is not among `modes`."""
    bits = bits_of(picture)
    if bits > 8 or picture.mode not in modes:
        found = f"{bits} bits (mode {picture.mode})" if bits > 8 else f"mode {picture.mode}"
        hint = TO_RGB8 if can_be_rgb8(picture) else ""
        raise DecodeError(expected="a picture of 8 bits per channel, in RGB or grey", found=found, hint=hint)


def can_be_rgb8(picture: Any) -> bool:
    """Whether `convert imagefolder --rgb8` can convert the picture: CMYK, or 9 to 16 bits per channel, unsigned."""
    signed = picture.mode == "I" and picture.format == "TIFF"
    return bool(8 < bits_of(picture) <= 16 or picture.mode == "CMYK") and not signed


def check_whole_jpeg(data: bytes, colours: str = "GRAY") -> None:
    """DecodeError for a JPEG for which libjpeg reports an error or a warning.

    It is decoded at an eighth of its size, which still reads every byte. NotImplementedError if libjpeg cannot convert
    the JPEG to these colours.
    """
    small = {"fastdct": True, "min_factor": 8, "min_width": 1, "min_height": 1, "strict": True}
    try:
        require("simplejpeg", "images").decode_jpeg(data, colorspace=colours, **small)
    except ValueError as error:
        if "cmyk" in str(error).lower() or "colorspace" in str(error).lower():
            raise NotImplementedError from error
        raise DecodeError(expected="a whole JPEG", found=error_text(error)) from error


def check_frames(picture: Any) -> None:
    """DecodeError for an animation, or a file of several pages. Parses the file up to the second frame only."""
    if picture.format not in JPEGS and getattr(picture, "is_animated", False):
        raise DecodeError(expected="one picture", found="several frames")


def check_speed(picture: Any) -> None:
    """DecodeError for a large picture that Pillow decodes in Python, or a TIFF with tiles larger than the picture."""
    pixels = picture.width * picture.height
    slow = picture.tile and picture.tile[0][0] in _SLOW_DECODERS
    if slow and max(pixels * len(picture.getbands()), picture.fp.seek(0, SEEK_END)) > _MOST_SLOW:
        kind = (
            "with run-length encoding"
            if picture.tile[0][0] == "bmp_rle"
            else "in text, or with a maximum other than 255"
        )
        raise DecodeError(
            expected=f"at most {_MOST_SLOW} samples and bytes of a {picture.format} {kind}",
            found=f"{picture.width} x {picture.height}",
        )
    tags = getattr(picture, "tag_v2", {})
    if picture.format == "TIFF" and _tile_pixels(tags) > 2 * pixels + (1 << 22):
        raise DecodeError(expected="a TIFF whose tiles are no larger than the picture", found=f"{_tile_pixels(tags)}")


def bits_of(picture: Any) -> int:
    """Bits per channel in the file. Pillow silently reduces deeper colours to 8 bits."""
    mode, arguments = picture.mode, picture.tile[0][3] if picture.tile else ()
    if picture.format == "TIFF":
        return int(max(picture.tag_v2.get(_BITS_PER_SAMPLE, (1,))))
    if picture.format == "PNG":
        return 16 if str(arguments).endswith(";16B") else 8
    if picture.format == "PPM" and mode != "F":
        white = arguments[-1] if isinstance(arguments, tuple) and isinstance(arguments[-1], int) else 255
        return 16 if white > 255 or mode == "I" else 8
    return 16 if mode.startswith("I;16") else 32 if mode in ("I", "F") else 8


def orientation_of(picture: Any) -> int:
    """EXIF's orientation, from 1 (upright) to 8. It is 1 for TIFFs, which Pillow itself turns upright."""
    return 1 if picture.format == "TIFF" else orientation_in(_exif_of(picture))


def _exif_of(picture: Any) -> bytes:
    exif: bytes = picture.info.get("exif") or b""
    return exif.removeprefix(b"Exif\0\0")


def _profile_of(picture: Any) -> bytes:
    """EXIF data in the old form for PNG: hexadecimal text after three title lines (ImageMagick's raw profile)."""
    try:
        profile = bytes.fromhex("".join(picture.info.get("Raw profile type exif", "").split("\n")[3:]))
    except ValueError:  # Pillow raises it for such a text, too
        return b""
    return profile.removeprefix(b"Exif\0\0")


def orientation_in(exif: bytes) -> int:
    """The orientation in EXIF data; 1 if there is none or it is invalid."""
    if exif[:2] not in (b"II", b"MM"):
        return 1
    order = "<" if exif[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(f"{order}4xI", exif)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for offset in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", exif, offset)
            if tag == _ORIENTATION:
                form, most = ("H", 2) if kind == _SHORT else ("I", 1)
                (found,) = struct.unpack_from(order + form, exif, offset + 8)  # the first, if there are two values
                return int(found) if kind in (_SHORT, _LONG) and 1 <= values <= most and 1 <= found <= 8 else 1
    except struct.error:
        pass
    return 1


def decoded_bytes(picture: Any) -> int:
    """An upper bound of the memory for decoding the picture."""
    return int(picture.width * picture.height * _PIXEL_BYTES.get(picture.format, _MOST_PIXEL_BYTES))


def check_size(width: int, height: int, size_bytes: int, most_bytes: int = MOST_DECODED_BYTES, hint: str = "") -> None:
    """DecodeError for a picture whose decoding takes too much memory (a possible denial of service)."""
    if size_bytes > most_bytes:
        raise DecodeError(
            expected=f"a picture that takes at most {most_bytes} bytes of memory to decode",
            found=f"{width} x {height} pixels, which take {size_bytes}",
            hint=hint,
        )


def _tile_pixels(tags: Any) -> int:
    sides = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    return sides[0] * sides[1] if isinstance(sides[0], int) and isinstance(sides[1], int) else 0
