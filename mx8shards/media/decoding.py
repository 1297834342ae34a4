"""How do pictures become pixels where no kernel decodes them? By libraries that Python calls."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, MissingPackageError, require
from mx8shards.kernels import jpeg, jpeg_tiles, turbo
from mx8shards.kernels.pictures import coefficient_bytes

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")

LARGE_BYTES = 256 << 20  # of memory for one picture, however much there is

# What Pillow and its codecs take for each pixel at most, its own pixels and ours among it (measured: process memory).
_PIXEL_BYTES = {"PNG": 14, "BMP": 14, "TIFF": 14, "PPM": 14, "GIF": 14}
_MOST_PIXEL_BYTES = 20

# Pillow's modes that hold eight bits per channel, and no ink.
MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"))


def decode(payload: bytes, ready: Callable[[int, int, int], None]) -> Pixels:
    """Red, green and blue of a picture, by Pillow. DecodeError for what is none, or not all there.

    `ready` is told width, height and how many bytes will be taken for that, and may refuse it.
    """
    pillow = require("PIL.Image", "images")
    try:
        with pillow.open(BytesIO(payload), formats=FORMATS) as picture:
            _check(picture)
            size_bytes = picture.width * picture.height * _PIXEL_BYTES.get(picture.format, _MOST_PIXEL_BYTES)
            ready(picture.width, picture.height, size_bytes)
            width, height = picture.size
            picture.info.pop("transparency", None)  # it goes anyway, but not without a warning
            pixels = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except (DecodeError, MissingPackageError):
        raise
    except pillow.UnidentifiedImageError:
        raise DecodeError(expected=f"a picture ({', '.join(FORMATS)})", found=_beginning(payload)) from None
    except Exception as error:  # Pillow raises whatever it meets: SyntaxError, struct.error, its own
        raise DecodeError(expected="a whole picture", found=_said(error)) from error
    if pixels.shape != (height, width, 3):
        raise DecodeError(expected=f"{height} rows of {width} pixels (its head)", found=f"{pixels.shape}")
    return np.ascontiguousarray(pixels)


def sides(payload: bytes) -> tuple[int, int]:
    """Height and width of a picture, as its head says. DecodeError for what is none."""
    pillow = require("PIL.Image", "images")
    try:
        with pillow.open(BytesIO(payload), formats=FORMATS) as picture:
            return int(picture.height), int(picture.width)
    except Exception as error:  # Pillow raises whatever it meets
        raise DecodeError(expected=f"a picture ({', '.join(FORMATS)})", found=_beginning(payload)) from error


def decode_jpeg(data: Any, height: int, width: int) -> Pixels:
    """Red, green and blue of a JPEG of at least that size, by simplejpeg. DecodeError if any of it is missing."""
    simplejpeg = require("simplejpeg", "images")
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            "RGB",
            fastdct=False,
            fastupsample=False,
            min_height=height,
            min_width=width,
            min_factor=1,
            strict=True,
        )
    except ValueError as error:
        raise DecodeError(expected="a whole JPEG", found=_said(error)) from error
    return pixels


def check_rare(payload: bytes, most_bytes: int) -> None:
    """DecodeError for a JPEG that only Pillow decodes, if a strict decoder complains of it: Pillow overlooks much."""
    data, head = np.frombuffer(payload, np.uint8), np.zeros(1, jpeg.HEAD)
    if not payload.startswith(b"\xff\xd8") or jpeg.read_head(data, head[0]) == jpeg.OK:
        return
    height, width = int(head[0]["height"]), int(head[0]["width"])
    if not height or not width:
        raise DecodeError(expected="a whole JPEG", found="one whose head is damaged")
    check_size(width, height, 3 * 2 * (width + 64) * (height + 64), most_bytes)  # all coefficients, perhaps
    _decode_strictly(payload, width, height)


def check_jpeg(payload: bytes, most_bytes: int) -> None:
    """DecodeError for a JPEG in which something is damaged or missing: Pillow overlooks much. Others pass."""
    data, head = np.frombuffer(payload, np.uint8), np.zeros(1, jpeg.HEAD)
    if jpeg.read_head(data, head[0]) != jpeg.OK or head[0]["colours"] in (jpeg.CMYK, jpeg.YCCK):
        return
    width, height = int(head[0]["width"]), int(head[0]["height"])
    if 3 * -(-width // 8) * -(-height // 8) + int(coefficient_bytes(head[0])) > most_bytes:
        return  # it is refused for its size
    _decode_strictly(payload, width, height)
    _check_tiles(data, head[0])


def _decode_strictly(payload: bytes, width: int, height: int) -> None:
    """DecodeError for a JPEG that libjpeg complains of; it is decoded to an eighth of its size."""
    if turbo.library is None:
        decode_jpeg(payload, -(-height // 8), -(-width // 8))
        return
    handle = turbo.Handle()
    try:
        complaint = handle.complaint(payload, width, height)
    finally:
        handle.close()
    if complaint:
        raise DecodeError(expected="a whole JPEG", found=complaint)


def _check_tiles(data: Pixels, head: Any) -> None:
    """DecodeError for a JPEG whose tiles are not where its segment of tiles says."""
    tiles, out = np.zeros(1, jpeg_tiles.TILES), np.empty(len(data) + 64, np.uint8)
    if jpeg_tiles.tiles_for(data, head, 0, 0, head["width"], head["height"], tiles[0]) != jpeg.OK:
        return
    if jpeg_tiles.splice(data, head, data, 0, tiles[0], out) < 0:
        raise DecodeError(expected="tiles where the segment of tiles says", found="other bytes")


def room(size_bytes: int) -> Pixels:
    """Scratch that begins where vectors like it."""
    whole = np.empty(size_bytes + 64, np.uint8)
    skip = -whole.ctypes.data % 64
    return whole[skip : skip + size_bytes]


def _check(picture: Any) -> None:
    """DecodeError for what this would decode wrongly."""
    raw = str(getattr(picture.tile[0], "args", "")) if picture.tile else ""
    if picture.mode not in MODES or ";16" in raw:  # Pillow makes eight bits of sixteen where there are colours
        found = raw if ";16" in raw else picture.mode
        raise DecodeError(expected="a picture of 8 bits per channel, in RGB or grey", found=f"mode {found}")
    if getattr(picture, "n_frames", 1) != 1 and picture.format != "MPO":
        raise DecodeError(expected="one picture", found=f"{picture.n_frames} frames")


def check_size(width: int, height: int, size_bytes: int, most_bytes: int) -> None:
    """DecodeError for a picture that takes too much memory: it may be meant to exhaust it."""
    if size_bytes > most_bytes:
        raise DecodeError(
            expected=f"a picture that is decoded in {most_bytes} bytes of memory",
            found=f"{width} x {height} pixels, which take {size_bytes}",
            hint=f"a memory= that is {-(-size_bytes // most_bytes)} times as large"
            if size_bytes <= LARGE_BYTES
            else "",
        )


def _beginning(payload: bytes) -> str:
    return f"{len(payload)} bytes that begin with {payload[:8]!r}" if payload else "no bytes"


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
