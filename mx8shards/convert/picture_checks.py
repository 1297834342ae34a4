"""Which pictures are accepted, and how are CMYK and 16-bit pictures converted to 8-bit RGB (`--rgb8`)?"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from mx8shards.convert.reasons import is_about_file
from mx8shards.errors import DecodeError, MissingPackageError, SourceError, require
from mx8shards.format.picture_cost import walk_jpeg
from mx8shards.format.picture_files import (
    JPEGS,
    MOST_DECODED_BYTES,
    MOST_PIXELS,
    RGB_MODES,
    bits_of,
    can_be_rgb8,
    check_frames,
    check_mode,
    check_size,
    check_speed,
    check_whole_jpeg,
    decoded_bytes,
    open_picture,
    refusal,
)

_MOST_BYTES = 4 * MOST_DECODED_BYTES  # memory for decoding a picture that is re-encoded: the result may be smaller
_COPIES = 3 * 4  # bytes per pixel: Pillow's decoded, transposed and converted pictures
_SMALLER = "the Loader cannot decode it; --max-side or --min-side scale it down, --format jpeg re-encodes it"
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_MOST_EXIF = 60_000
_PNG_END = b"IEND\xaeB`\x82"


def checked_picture(data: bytes, *, tiles: bool = True, rgb8: bool = False) -> tuple[bytes, int, int]:
    """Check a picture for a recipe: the bytes to store, its height and its width. SourceError if it is refused.

    The whole picture is decoded, so truncated files are refused. A JPEG is stored in tiles unless `tiles` is False; its
    original bytes can be restored from them. Other formats are stored unchanged. A CMYK picture or one with 16 bits per
    channel is refused, or re-encoded with 8 bits if `rgb8` is True.
    """
    with refusals(data), open_nonempty(data) as picture:
        if rgb8 and can_be_rgb8(picture):
            return checked_picture(in_rgb8(picture, data, 95), tiles=tiles)
        check_picture(picture)
        check_kept(picture, data)
        return stored_bytes(picture, data, tiles=tiles, by_kernels=tiles), picture.height, picture.width


@contextlib.contextmanager
def refusals(data: bytes) -> Iterator[None]:
    """Convert errors of a picture's decoder to SourceError, except those that are not about the picture."""
    try:
        yield
    except (SourceError, MissingPackageError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many types: SyntaxError, struct.error, its own
        if isinstance(error, OSError) and not is_about_file(error):
            raise
        found = error if isinstance(error, DecodeError) else refusal(data, error)
        raise SourceError(found.message, expected=found.expected, found=found.found, hint=found.hint) from error


def open_nonempty(data: bytes) -> Any:
    """Open a picture with Pillow, without decoding it."""
    require("PIL.Image", "convert")
    if not data:
        raise SourceError("the file is empty")
    return open_picture(data)


def stored_bytes(picture: Any, data: bytes, *, tiles: bool, by_kernels: bool) -> bytes:
    """The bytes to store for a checked picture, after decoding all of it with Pillow, libjpeg or our kernels."""
    if picture.format not in JPEGS:
        picture.load()
        check_whole(picture, data)
        return data
    tables = all(component[3] in picture.quantization for component in picture.layer)
    tiled = tile(data) if tiles else data
    if not tables or (tiled is data and not (by_kernels and _is_whole(data))):
        check_jpeg(data)
    return tiled


def tile(jpeg: bytes) -> bytes:
    """Store a JPEG in tiles, if possible; otherwise return it unchanged."""
    from mx8shards.media import tiles  # imports Numba, which is slow

    return tiles.tile(jpeg)


def _is_whole(jpeg: bytes) -> bool:
    from mx8shards.media.tiles import is_whole

    return is_whole(jpeg)


def check_whole(picture: Any, data: bytes) -> None:
    """DecodeError for damage that Pillow ignores: libjpeg's warnings, a PNG without its end."""
    if picture.format in JPEGS:
        check_jpeg(data)
    elif picture.format == "PNG" and _PNG_END not in data:
        raise DecodeError(expected="a whole picture", found="one that is cut short")


def check_jpeg(data: bytes) -> None:
    """DecodeError if any part of a JPEG is damaged or missing."""
    require("simplejpeg", "convert")
    with open_picture(data) as picture:
        try:
            check_whole_jpeg(data, "CMYK" if picture.mode == "CMYK" else "GRAY")  # libjpeg cannot convert CMYK to grey
        except NotImplementedError:
            picture.load()


def check_picture(picture: Any) -> None:
    """DecodeError for pictures that are always refused, whatever the options: their mode or size."""
    check_mode(picture, RGB_MODES | {"CMYK"})
    _check_raster(picture)


def check_kept(picture: Any, data: bytes) -> None:
    """DecodeError for a picture that cannot be stored unchanged, because the Loader could not decode it."""
    check_mode(picture)  # converting CMYK to RGB depends on a colour profile, so the user has to ask for it
    if picture.format in JPEGS:
        check_size(picture.width, picture.height, walk_jpeg(data).coefficient_bytes(data), hint=_SMALLER)
    else:
        check_size(picture.width, picture.height, decoded_bytes(picture), hint=_SMALLER)


def shrink(picture: Any, data: bytes, scale: float) -> None:
    """Let libjpeg scale down a very large JPEG during decoding. DecodeError if the picture is still too large."""
    fixed = walk_jpeg(data).coefficient_bytes(data) if picture.format in JPEGS else 0
    if picture.format in JPEGS and fixed + _COPIES * picture.width * picture.height > _MOST_BYTES and scale < 1:
        picture.draft("RGB", [int(2 * side * scale) + 1 for side in picture.size])
    pixels = picture.width * picture.height
    needed = fixed + _COPIES * pixels if picture.format in JPEGS else decoded_bytes(picture)
    check_size(picture.width, picture.height, needed, _MOST_BYTES)


def in_rgb8(picture: Any, data: bytes, quality: int) -> bytes:
    """The picture in 8-bit RGB or grey: a JPEG as JPEG, others as PNG. Keeps the upper 8 of 16 bits."""
    _check_raster(picture)
    check_size(picture.width, picture.height, decoded_bytes(picture), _MOST_BYTES)
    check_whole(picture, data)
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
