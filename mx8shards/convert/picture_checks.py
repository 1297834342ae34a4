"""Which pictures may a training set hold, and how do those in CMYK or of 16 bits become 8-bit RGB?"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mx8shards.errors import DecodeError, require
from mx8shards.format.picture_cost import walk_jpeg
from mx8shards.format.picture_files import (
    JPEGS,
    MOST_DECODED_BYTES,
    MOST_PIXELS,
    RGB_MODES,
    bits_of,
    check_frames,
    check_size,
    check_speed,
    decoded_bytes,
)

_MOST_BYTES = (
    4 * MOST_DECODED_BYTES
)  # of memory to decode a picture that is encoded anew: what is made of it is smaller
_COPIES = 3 * 4  # bytes per pixel: Pillow decodes, transposes and converts
_EIGHT_BITS = RGB_MODES | {"CMYK"}
_SMALLER = "the Loader decodes no larger one; --max-side and --min-side make it smaller, --format jpeg makes it a JPEG"
_RGB8 = "--rgb8 makes 8-bit RGB or grey of such pictures"
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_MOST_EXIF = 60_000


def check_picture(picture: Any) -> None:
    """DecodeError for a picture that a training set should not hold unseen."""
    bits = bits_of(picture)
    if bits > 8 or picture.mode not in _EIGHT_BITS:
        found = f"{bits} (mode {picture.mode})" if bits > 8 else f"mode {picture.mode}"
        raise DecodeError(expected="8 bits per channel", found=found, hint=_RGB8 if can_be_rgb8(picture) else "")
    _check_raster(picture)


def check_kept(picture: Any, data: bytes) -> None:
    """DecodeError for a picture that cannot be stored as it is, as no Loader could decode it."""
    if picture.mode == "CMYK":  # what inks look like is a guess that whoever converts should make
        raise DecodeError(expected="RGB or grey", found="CMYK", hint=_RGB8)
    if picture.format in JPEGS:
        check_size(picture.width, picture.height, walk_jpeg(data).coefficient_bytes(data), hint=_SMALLER)
    else:
        check_size(picture.width, picture.height, decoded_bytes(picture), hint=_SMALLER)


def shrink(picture: Any, data: bytes, scale: float) -> None:
    """Let libjpeg scale a very large JPEG down while it decodes. DecodeError for a picture that is still too large."""
    fixed = walk_jpeg(data).coefficient_bytes(data) if picture.format in JPEGS else 0
    if picture.format in JPEGS and fixed + _COPIES * picture.width * picture.height > _MOST_BYTES and scale < 1:
        picture.draft("RGB", [int(2 * side * scale) + 1 for side in picture.size])
    pixels = picture.width * picture.height
    needed = fixed + _COPIES * pixels if picture.format in JPEGS else decoded_bytes(picture)
    check_size(picture.width, picture.height, needed, _MOST_BYTES)


def can_be_rgb8(picture: Any) -> bool:
    """Whether a picture is in CMYK, or of 9 to 16 bits per channel: those that `in_rgb8` takes."""
    signed = picture.mode == "I" and picture.format == "TIFF"
    return bool(8 < bits_of(picture) <= 16 or picture.mode == "CMYK") and not signed


def in_rgb8(picture: Any, quality: int) -> bytes:
    """The picture in 8-bit RGB or grey: a JPEG as JPEG, others as PNG. Of 16 bits the upper 8 are kept."""
    _check_raster(picture)
    check_size(picture.width, picture.height, decoded_bytes(picture), _MOST_BYTES)
    form, bits, mode = picture.format, bits_of(picture), picture.mode
    exif = picture.info.get("exif", b"")
    options: dict[str, Any] = {"exif": exif if len(exif) <= _MOST_EXIF else b""}
    white_is_zero = form == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if mode != "CMYK":
        options["icc_profile"] = picture.info.get("icc_profile")
    if mode.startswith("I"):
        levels = (np.asarray(picture) >> (max(bits, 9) - 8)).astype(np.uint8)
        picture = require("PIL.Image", "convert").fromarray(255 - levels if white_is_zero else levels)
    elif mode == "CMYK":
        picture = picture.convert("RGB")
    out = io.BytesIO()
    if form in JPEGS:
        picture.save(out, "JPEG", quality=quality, subsampling="4:4:4", **options)
    else:
        picture.save(out, "PNG", **options)
    return out.getvalue()


def _check_raster(picture: Any) -> None:
    if picture.width * picture.height > MOST_PIXELS:
        raise DecodeError(expected=f"at most {MOST_PIXELS} pixels", found=f"{picture.width} x {picture.height}")
    check_frames(picture)
    check_speed(picture)
