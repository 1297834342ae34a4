"""How do pictures become pixels where no kernel decodes them? By libraries that Python calls."""

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
from mx8shards.media.turning import UPRIGHT, turned, turned_size

Pixels = npt.NDArray[np.uint8]


def import_libraries() -> None:
    """Import the libraries that are there, with Pillow's plugins, which it imports when it meets a format.

    This is done before threads start: a child that is forked while a thread imports a module inherits it half made, and
    waits for it for ever. Where a library is missing, whoever needs it says so.
    """
    with suppress(ImportError):
        import_module("simplejpeg")
    with suppress(ImportError):
        import_module("PIL.Image").init()


def decode(payload: bytes, ready: Callable[[int, int, int], None], *, upright: bool = False) -> Pixels:
    """Red, green and blue of a picture, by Pillow. DecodeError for a file that is no picture, or only part of one.

    `ready` is told width, height and how many bytes of memory will be taken, and may refuse that. `upright`: as the
    EXIF data turn it.
    """
    try:
        with open_picture(payload) as picture:
            check_kind(picture)
            orientation = orientation_of(picture) if upright else UPRIGHT
            width, height = picture.size
            copied = 3 * width * height if orientation != UPRIGHT else 0
            ready(*turned_size(width, height, orientation), decoded_bytes(picture) + copied)
            picture.info.pop("transparency", None)  # it goes anyway, but not without a warning
            pixels = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except (DecodeError, MissingPackageError):
        raise
    except Exception as error:  # Pillow raises whatever it meets: SyntaxError, struct.error, its own
        raise refusal(payload, error) from error
    if pixels.shape != (height, width, 3):
        raise DecodeError(expected=f"{height} rows of {width} pixels (its head)", found=f"{pixels.shape}")
    return turned(pixels, orientation)


def sides(payload: bytes) -> tuple[int, int]:
    """Height and width of a picture, as its head says. DecodeError for a file that is no picture."""
    try:
        with open_picture(payload) as picture:
            return int(picture.height), int(picture.width)
    except (DecodeError, MissingPackageError):
        raise
    except Exception as error:  # Pillow raises whatever it meets
        raise refusal(payload, error) from error


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
        raise DecodeError(expected="a whole JPEG", found=error_text(error)) from error
    return pixels


def check_rare(payload: bytes, most_bytes: int) -> None:
    """DecodeError for a JPEG that only Pillow decodes, if a strict decoder complains of it: Pillow overlooks much."""
    data, head = np.frombuffer(payload, np.uint8), np.zeros(1, jpeg.HEAD)
    if payload[:2] != b"\xff\xd8" or jpeg.read_head(data, head[0]) == jpeg.OK:
        return
    check_cost(payload)
    height, width, _ = walk_jpeg(payload).size(payload)  # libjpeg accepts some heads that `read_head` does not
    if not height or not width:
        raise DecodeError(expected="a whole JPEG", found="one whose head is damaged")
    check_fits(width, height, 3 * 2 * (width + 64) * (height + 64), most_bytes)  # all coefficients, perhaps
    _decode_strictly(payload, width, height)


def check_jpeg(payload: bytes, most_bytes: int) -> None:
    """DecodeError for a JPEG in which something is damaged or missing: Pillow overlooks much. Others pass."""
    data, head = np.frombuffer(payload, np.uint8), np.zeros(1, jpeg.HEAD)
    if jpeg.read_head(data, head[0]) != jpeg.OK or head[0]["colours"] in (jpeg.CMYK, jpeg.YCCK):
        return
    check_cost(payload)
    width, height = int(head[0]["width"]), int(head[0]["height"])
    if 3 * -(-width // 8) * -(-height // 8) + int(coefficient_bytes(head[0])) > most_bytes:
        return  # it is refused for its size
    _decode_strictly(payload, width, height)
    _check_tiles(data, head[0])


def _decode_strictly(payload: bytes, width: int, height: int) -> None:
    """DecodeError for a JPEG that libjpeg complains of; it is decoded to an eighth of its size."""
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
    """DecodeError for a JPEG whose tiles are not where its segment of tiles says."""
    tiles, out = np.zeros(1, jpeg_tiles.TILES), np.empty(len(data) + 64, np.uint8)
    if jpeg_tiles.tiles_for(data, head, 0, 0, head["width"], head["height"], tiles[0]) != jpeg.OK:
        return
    if jpeg_tiles.splice(data, head, data, 0, tiles[0], out) < 0:
        raise DecodeError(expected="tiles where the segment of tiles says", found="other bytes")


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's


def return_freed_memory() -> None:
    """Have the C library return freed memory to the system.

    It keeps blocks of up to 32 MiB for each thread that freed one, and no budget counts these. Measured with 16 threads
    and payloads of 29 MB: 410 MiB in use without this, of which 60 were needed.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def room(size_bytes: int) -> Pixels:
    """Scratch that begins where vectors like it."""
    whole = np.empty(size_bytes + 64, np.uint8)
    skip = -whole.ctypes.data % 64
    return whole[skip : skip + size_bytes]


def check_fits(width: int, height: int, size_bytes: int, most_bytes: int) -> None:
    """DecodeError for a picture that takes more memory than a loader has for one, with a budget that is enough."""
    hint = f"a memory= that is {-(-size_bytes // most_bytes)} times as large"
    check_size(width, height, size_bytes, most_bytes, hint if size_bytes <= MOST_DECODED_BYTES else "")
