"""Which pictures may a training set hold, and how do those in CMYK or of 16 bits become 8-bit RGB?"""

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

_MOST_BYTES = (
    4 * MOST_DECODED_BYTES
)  # of memory to decode a picture that is encoded anew: what is made of it is smaller
_COPIES = 3 * 4  # bytes per pixel: Pillow decodes, transposes and converts
_SMALLER = "the Loader decodes no larger one; --max-side and --min-side make it smaller, --format jpeg makes it a JPEG"
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_MOST_EXIF = 60_000
_PNG_END = b"IEND\xaeB`\x82"


def checked_picture(data: bytes, *, tiles: bool = True, rgb8: bool = False) -> tuple[bytes, int, int]:
    """The bytes of a picture as a dataset keeps them, and its height and width. SourceError says why it is refused.

    Every byte of the picture is read, so none that is cut short gets in. A JPEG is stored in tiles unless `tiles` is
    False; from these its very bytes come back. Other formats are kept as they are. A picture in CMYK or of 16 bits per
    channel is refused, or encoded anew in 8 bits if `rgb8` is True.
    """
    with refusals(data), opened(data) as picture:
        if rgb8 and can_be_rgb8(picture):
            return checked_picture(in_rgb8(picture, data, 95), tiles=tiles)
        check_picture(picture)
        check_kept(picture, data)
        return kept(picture, data, tiles=tiles, by_kernels=tiles), picture.height, picture.width


@contextlib.contextmanager
def refusals(data: bytes) -> Iterator[None]:
    """Whatever a picture's decoder raises is a SourceError; what says nothing of the picture is left as it is."""
    try:
        yield
    except (SourceError, MissingPackageError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever it meets: SyntaxError, struct.error, its own
        if isinstance(error, OSError) and not is_about_file(error):
            raise
        found = error if isinstance(error, DecodeError) else refusal(data, error)
        raise SourceError(found.message, expected=found.expected, found=found.found, hint=found.hint) from error


def opened(data: bytes) -> Any:
    """Pillow's picture of a file's bytes, not yet decoded."""
    require("PIL.Image", "convert")
    if not data:
        raise SourceError("the file is empty")
    return open_picture(data)


def kept(picture: Any, data: bytes, *, tiles: bool, by_kernels: bool) -> bytes:
    """The bytes of a checked picture as they are stored. All of them were read, by one decoder or another."""
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
    """A JPEG in tiles, if that is possible."""
    from mx8shards.media import tiles  # its kernels take long to import

    return tiles.tile(jpeg)


def _is_whole(jpeg: bytes) -> bool:
    from mx8shards.media.tiles import is_whole

    return is_whole(jpeg)


def check_whole(picture: Any, data: bytes) -> None:
    """Raise for damage that Pillow overlooks when it decodes a picture: libjpeg's warnings, a PNG without its end."""
    if picture.format in JPEGS:
        check_jpeg(data)
    elif picture.format == "PNG" and _PNG_END not in data:
        raise DecodeError(expected="a whole picture", found="one that is cut short")


def check_jpeg(data: bytes) -> None:
    """DecodeError for a JPEG in which anything is damaged or missing."""
    require("simplejpeg", "convert")
    with open_picture(data) as picture:
        try:
            check_whole_jpeg(data, "CMYK" if picture.mode == "CMYK" else "GRAY")  # libjpeg makes no grey of CMYK
        except NotImplementedError:
            picture.load()


def check_picture(picture: Any) -> None:
    """DecodeError for a picture that a training set should not hold unseen."""
    check_mode(picture, RGB_MODES | {"CMYK"})
    _check_raster(picture)


def check_kept(picture: Any, data: bytes) -> None:
    """DecodeError for a picture that cannot be stored as it is, as no Loader could decode it."""
    check_mode(picture)  # which RGB a picture in CMYK becomes depends on a colour profile: the user decides
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


def in_rgb8(picture: Any, data: bytes, quality: int) -> bytes:
    """The picture in 8-bit RGB or grey: a JPEG as JPEG, others as PNG. Of 16 bits the upper 8 are kept."""
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
