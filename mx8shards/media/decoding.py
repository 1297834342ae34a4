"""How do pictures become pixels where no kernel decodes them? By libraries that Python calls."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, MissingPackageError, require

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")

# Pillow's modes that hold eight bits per channel, and no ink.
_MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"))


def decode(payload: bytes, most_bytes: int) -> Pixels:
    """Red, green and blue of a picture, by Pillow. DecodeError for what is none, or not all there."""
    pillow = require("PIL.Image", "images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a bomb, before its size is checked here; of odd metadata
            with pillow.open(BytesIO(payload), formats=FORMATS) as picture:
                _check(picture, most_bytes)
                return np.array(picture.convert("RGB"))
    except (DecodeError, MissingPackageError):
        raise
    except pillow.UnidentifiedImageError:
        raise DecodeError(expected=f"a picture ({', '.join(FORMATS)})", found=_beginning(payload)) from None
    except Exception as error:  # Pillow raises whatever it meets: SyntaxError, struct.error, its own
        raise DecodeError(expected="a whole picture", found=_said(error)) from error


def decode_jpeg(jpeg: Any, height: int, width: int) -> Pixels:
    """Red, green and blue of a JPEG of at least that size, by simplejpeg. DecodeError if any of it is missing."""
    simplejpeg = require("simplejpeg", "images")
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            jpeg,
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


def room(size_bytes: int) -> Pixels:
    """Scratch that begins where vectors like it."""
    whole = np.empty(size_bytes + 64, np.uint8)
    skip = -whole.ctypes.data % 64
    return whole[skip : skip + size_bytes]


def _check(picture: Any, most_bytes: int) -> None:
    """DecodeError for what this would decode wrongly, or not within the memory there is."""
    if picture.mode not in _MODES:
        raise DecodeError(expected="a picture of 8 bits per channel, in RGB or grey", found=f"mode {picture.mode}")
    if getattr(picture, "n_frames", 1) != 1:
        raise DecodeError(expected="one picture", found=f"{picture.n_frames} frames")
    check_size(picture.width, picture.height, 7, most_bytes)  # Pillow's own pixels have four bytes, ours three


def check_size(width: int, height: int, pixel_bytes: int, most_bytes: int) -> None:
    """DecodeError for a picture whose pixels do not fit into scratch: it may be meant to exhaust memory."""
    if width * height * pixel_bytes > most_bytes:
        raise DecodeError(
            expected=f"a picture that fits into the {most_bytes} bytes of scratch that memory= leaves for one",
            found=f"{width} x {height} pixels",
        )


def _beginning(payload: bytes) -> str:
    return f"{len(payload)} bytes that begin with {payload[:8]!r}" if payload else "no bytes"


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
