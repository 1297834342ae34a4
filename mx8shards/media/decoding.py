"""How are pictures decoded that kernels cannot decode? By Pillow and simplejpeg, with checks of damage and size."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, MissingPackageError, error_text, require
from mx8shards.format.picture_cost import check_cost, walk_jpeg
from mx8shards.format.picture_files import (
    MOST_DECODED_BYTES,
    check_kind,
    check_size,
    check_whole_jpeg,
    decoded_bytes,
    open_picture,
    orientation_of,
    refusal,
)
from mx8shards.kernels import jpeg, jpeg_tiles, turbo
from mx8shards.kernels.decompress import coefficient_bytes
from mx8shards.media.exif_rotation import UPRIGHT, rotate, rotated_size

Pixels = npt.NDArray[np.uint8]


def import_libraries() -> None:
    """Import the installed picture libraries, with the plugins that Pillow would import lazily.

    Called before threads start, because a child that is forked while a thread imports a module would inherit a locked,
    half-initialised module, and could never import it. A missing library is reported when it is used.
    """
    with suppress(ImportError):
        import_module("simplejpeg")
    with suppress(ImportError):
        import_module("PIL.Image").init()


def decode(payload: bytes, reserve: Callable[[int, int, int], None], *, upright: bool = False) -> Pixels:
    """Decode a picture to RGB with Pillow. DecodeError for a file that is not a picture, or is truncated.

    `reserve(width, height, size_bytes)` is called before memory is allocated, and may raise to refuse the picture.
    `upright`: apply the EXIF rotation.
    """
    try:
        with open_picture(payload) as picture:
            check_kind(picture)
            orientation = orientation_of(picture) if upright else UPRIGHT
            width, height = picture.size
            copied = 3 * width * height if orientation != UPRIGHT else 0
            reserve(*rotated_size(width, height, orientation), decoded_bytes(picture) + copied)
            picture.info.pop("transparency", None)  # else Pillow warns when it drops it
            pixels = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except (DecodeError, MissingPackageError):
        raise
    except Exception as error:  # Pillow raises SyntaxError, struct.error and others for damaged files
        raise refusal(payload, error) from error
    if pixels.shape != (height, width, 3):
        raise DecodeError(expected=f"{height} rows of {width} pixels (its head)", found=f"{pixels.shape}")
    return rotate(pixels, orientation)


def sides(payload: bytes) -> tuple[int, int]:
    """Height and width of a picture, from its head. DecodeError for a file that is not a picture."""
    try:
        with open_picture(payload) as picture:
            return int(picture.height), int(picture.width)
    except (DecodeError, MissingPackageError):
        raise
    except Exception as error:  # as above
        raise refusal(payload, error) from error


def decode_jpeg(data: Any, height: int, width: int) -> Pixels:
    """Decode a JPEG to RGB with simplejpeg, at the smallest scale of at least that size. DecodeError if damaged."""
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
        raise DecodeError(expected="a whole JPEG", found=error_text(error)) from error
    return pixels


def check_pillow_jpeg(payload: bytes, most_bytes: int) -> None:
    """DecodeError for a damaged JPEG of a kind that only Pillow decodes. Pillow itself ignores much damage."""
    data, head = np.frombuffer(payload, np.uint8), np.zeros(1, jpeg.HEAD)
    if payload[:2] != b"\xff\xd8" or jpeg.read_head(data, head[0]) == jpeg.OK:
        return
    check_cost(payload)
    height, width, _ = walk_jpeg(payload).size(payload)  # libjpeg accepts some heads that `read_head` does not
    if not height or not width:
        raise DecodeError(expected="a whole JPEG", found="one with a damaged head")
    check_fits(width, height, 3 * 2 * (width + 64) * (height + 64), most_bytes)  # libjpeg may keep all coefficients
    _decode_strictly(payload, width, height)


def check_jpeg(payload: bytes, most_bytes: int) -> None:
    """DecodeError for a damaged or truncated JPEG of a kind that kernels decode. Other payloads pass."""
    data, head = np.frombuffer(payload, np.uint8), np.zeros(1, jpeg.HEAD)
    if jpeg.read_head(data, head[0]) != jpeg.OK or head[0]["colours"] in (jpeg.CMYK, jpeg.YCCK):
        return
    check_cost(payload)
    width, height = int(head[0]["width"]), int(head[0]["height"])
    if 3 * -(-width // 8) * -(-height // 8) + int(coefficient_bytes(head[0])) > most_bytes:
        return  # the caller refuses it for its size
    _decode_strictly(payload, width, height)
    _check_tiles(data, head[0])


def _decode_strictly(payload: bytes, width: int, height: int) -> None:
    """DecodeError for a JPEG for which libjpeg reports an error or a warning. It is decoded at scale 1/8."""
    if turbo.library is None:
        check_whole_jpeg(payload, "RGB")
        return
    handle = turbo.Handle()
    try:
        error = handle.find_error(payload, width, height)
    finally:
        handle.close()
    if error:
        raise DecodeError(expected="a whole JPEG", found=error)


def _check_tiles(data: Pixels, head: Any) -> None:
    """DecodeError for a JPEG whose tile index does not match its data."""
    tiles, out = np.zeros(1, jpeg_tiles.TILES), np.empty(len(data) + 64, np.uint8)
    if jpeg_tiles.tiles_for(data, head, 0, 0, head["width"], head["height"], tiles[0]) != jpeg.OK:
        return
    if jpeg_tiles.splice(data, head, data, 0, tiles[0], out) < 0:
        raise DecodeError(expected="a JPEG whose tile index matches its data", found="tiles at other offsets")


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's


def return_freed_memory() -> None:
    """Make the C library return freed memory to the system.

    glibc keeps freed blocks of up to 32 MiB per thread, which no budget counts. Measured with 16 threads and payloads
    of 29 MB: without this call, 410 MiB were in use, of which 60 were needed.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def aligned_scratch(size_bytes: int) -> Pixels:
    """Uninitialised memory that begins at a multiple of 64."""
    block = np.empty(size_bytes + 64, np.uint8)
    skip = -block.ctypes.data % 64
    return block[skip : skip + size_bytes]


def check_fits(width: int, height: int, size_bytes: int, most_bytes: int) -> None:
    """DecodeError for a picture that needs more memory than a loader has for one. The hint names a larger `memory=`."""
    hint = f"a memory= that is {-(-size_bytes // most_bytes)} times as large"
    check_size(width, height, size_bytes, most_bytes, hint if size_bytes <= MOST_DECODED_BYTES else "")
