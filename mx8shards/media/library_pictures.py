"""How are crops made of pictures that kernels cannot decode? simplejpeg or Pillow decodes a copy of the payload."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError
from mx8shards.kernels import write_crops
from mx8shards.kernels.cuts import OTHER, cut_whole, splice_crops
from mx8shards.kernels.decompress import coefficient_bytes
from mx8shards.kernels.payloads import copy_payload
from mx8shards.kernels.picture_rows import crop_yuv420
from mx8shards.kernels.records import READ_FAILED, REFUSED
from mx8shards.kernels.yuv420_planes import is_yuv420
from mx8shards.media import decoding
from mx8shards.media.exif_rotation import UPRIGHT, rotated_size
from mx8shards.media.picture_memory import ThreadMemory
from mx8shards.media.rotated_jpegs import decode_rotated, orientation_of
from mx8shards.stages import Work

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

# PyBytes_FromStringAndSize(NULL, size): an uninitialised bytes object, which is filled before anything else refers to
# it. So a payload is copied only once.
_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One row that kernels did not decode: its span, its crops and their random numbers."""

    work: Work
    row: int
    span: Any
    jobs: Array
    draws: Array
    exact: bool
    upright: bool


def make_crops(picture: Picture, memory: ThreadMemory) -> int:
    """Write all crops of one picture to the bank; return the status of the row."""
    with ExitStack() as locks:  # outside of `try`: until it is handled, an error keeps pixels alive
        try:
            memory.take(int(picture.span["size"]), locks)  # a thread that waits for the lock holds no payload
            payload = read_payload(picture.work, picture.row, picture.span, memory.large.most_bytes)
            if is_yuv420(np.frombuffer(payload, np.uint8)):
                return _crop_yuv420(payload, picture, memory, locks)
            return _decode_with_library(payload, picture, memory, locks)
        except DecodeError:
            return REFUSED
        except OSError:
            return READ_FAILED


def read_payload(work: Work, i: int, span: Any, most_bytes: int) -> bytes:
    """Copy the payload of a row. DecodeError for one that is too long, OSError for one that cannot be read."""
    begin, size = int(span["begin"]), int(span["size"])
    if size > most_bytes:
        raise DecodeError(expected=f"at most {most_bytes} bytes", found=f"{size}")
    if size == 0:
        return b""
    payload: bytes = _new_bytes(None, size)
    if not copy_payload(work.shards, work.rows[i], begin, size, np.frombuffer(payload, np.uint8).ctypes.data):
        raise OSError("the file is shorter than it was, or cannot be read")
    return payload


def _crop_yuv420(payload: bytes, picture: Picture, memory: ThreadMemory, locks: ExitStack) -> int:
    """Make the crops of a yuv420 payload with the kernel, which needs no library."""
    settings = np.frombuffer(payload, np.uint8), picture.jobs, picture.draws, memory.workspace, picture.row
    status, need = crop_yuv420(*settings, memory.scratch)
    if need:
        memory.take(need + len(payload), locks)
        status, _ = crop_yuv420(*settings, decoding.aligned_scratch(need))
    return int(status)


def _decode_with_library(payload: bytes, picture: Picture, memory: ThreadMemory, locks: ExitStack) -> int:
    """Decode one picture and make its crops: with simplejpeg if it is a JPEG that kernels know, else with Pillow."""
    head, cut = memory.workspace["head"], memory.workspace["cut"]
    orientation = orientation_of(payload, head) if picture.upright else UPRIGHT
    jpeg, kept_bytes = _find_jpeg(payload, picture, memory, locks) if orientation == UPRIGHT else (None, 0)
    reserve = _make_reserve(picture, len(payload), memory, locks, kept_bytes)

    def cut_and_reserve(width: int, height: int, size_bytes: int) -> None:
        cut_whole(width, height, picture.jobs, picture.draws, cut)
        reserve(height, width, size_bytes)

    if orientation != UPRIGHT:
        size = rotated_size(head["width"], head["height"], orientation)
        cut_whole(*size, picture.jobs, picture.draws, cut)
        pixels = decode_rotated(payload, head, orientation, picture.jobs["box"], picture.exact, cut, reserve)
    elif jpeg is None:
        decoding.check_pillow_jpeg(payload, memory.large.most_bytes)
        pixels = decoding.decode(payload, cut_and_reserve, upright=picture.upright)
    else:
        height, width = (-(-int(cut[side]) // int(cut["scale"])) for side in ("height", "width"))
        reserve(height, width, 3 * height * width + len(jpeg) + int(coefficient_bytes(head)))
        pixels = decoding.decode_jpeg(jpeg, height, width)
        if pixels.shape != (height, width, 3):
            raise DecodeError("the JPEG has another size than its head declares")
    scratch = decoding.aligned_scratch(int(write_crops.crop_bytes(picture.jobs, cut)))
    write_crops.crop_rgb(pixels, cut, picture.jobs, picture.row, scratch)
    return 0


def _make_reserve(
    picture: Picture, payload_bytes: int, memory: ThreadMemory, locks: ExitStack, kept_bytes: int
) -> Callable[[int, int, int], None]:
    """Make the function that reserves memory for decoding one picture. It raises DecodeError if that is too much."""

    def reserve(height: int, width: int, size_bytes: int) -> None:
        if not write_crops.fits(picture.jobs, picture.row):
            raise DecodeError("the picture has another size than when it was measured")
        more = payload_bytes + int(write_crops.crop_bytes(picture.jobs, memory.workspace["cut"]))
        decoding.check_fits(width, height, size_bytes + more, memory.large.most_bytes)
        memory.take(size_bytes + more, locks, kept_bytes)

    return reserve


def _find_jpeg(payload: bytes, picture: Picture, memory: ThreadMemory, locks: ExitStack) -> tuple[Bytes | None, int]:
    """The JPEG to decode: spliced from tiles, or the payload; None if kernels do not know the payload's format.

    The second result is the number of bytes of this thread's scratch that the JPEG keeps in use.
    """
    data, scratch, kept_bytes = np.frombuffer(payload, np.uint8), memory.scratch, len(memory.scratch)
    size, need = splice_crops(data, picture.jobs, picture.draws, memory.workspace, scratch)
    if need:
        scratch, kept_bytes = decoding.aligned_scratch(0), 0
        memory.take(need + len(payload), locks)
        scratch = decoding.aligned_scratch(need)
        size, need = splice_crops(data, picture.jobs, picture.draws, memory.workspace, scratch)
    if size == -OTHER:
        return None, 0
    if size < 0:
        raise DecodeError("a JPEG in CMYK or of too many scans, or one whose tile index does not match its data")
    return (scratch[:size], kept_bytes) if size else (data, 0)
