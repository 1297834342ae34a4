"""How do pictures that kernels leave to Python become crops? simplejpeg or Pillow decodes a copy of the payload."""

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
from mx8shards.media.picture_memory import ThreadMemory
from mx8shards.media.turned_jpegs import decode_turned, orientation_of
from mx8shards.media.turning import UPRIGHT, turned_size
from mx8shards.stages import Work

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

# PyBytes_FromStringAndSize(NULL, size): bytes that are written before anybody else knows them, and so copied only once
_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One row that kernels left: its span, the crops that are asked for and their random numbers."""

    work: Work
    row: int
    span: Any
    jobs: Array
    draws: Array
    exact: bool
    upright: bool


def make_crops(picture: Picture, memory: ThreadMemory) -> int:
    """All crops of one picture, into their places, and the status that this gives its row."""
    with ExitStack() as turn:  # until nothing is held any more of what the turn is for, errors included
        try:
            memory.take(int(picture.span["size"]), turn)  # threads that wait for their turn hold no payload
            payload = read_payload(picture.work, picture.row, picture.span, memory.large.most_bytes)
            if is_yuv420(np.frombuffer(payload, np.uint8)):
                return _of_planes(payload, picture, memory, turn)
            return _by_library(payload, picture, memory, turn)
        except DecodeError:
            return REFUSED
        except OSError:
            return READ_FAILED


def read_payload(work: Work, i: int, span: Any, most_bytes: int) -> bytes:
    """A row's payload, copied. DecodeError for one that is too long, OSError for one that cannot be read."""
    begin, size = int(span["begin"]), int(span["size"])
    if size > most_bytes:
        raise DecodeError(expected=f"at most {most_bytes} bytes", found=f"{size}")
    if size == 0:
        return b""
    payload: bytes = _new_bytes(None, size)
    if not copy_payload(work.shards, work.rows[i], begin, size, np.frombuffer(payload, np.uint8).ctypes.data):
        raise OSError("the file is shorter than it was, or cannot be read")
    return payload


def _of_planes(payload: bytes, picture: Picture, memory: ThreadMemory, turn: ExitStack) -> int:
    """A yuv420 payload, by the kernel, which needs no library for it."""
    settings = np.frombuffer(payload, np.uint8), picture.jobs, picture.draws, memory.workspace, picture.row
    status, need = crop_yuv420(*settings, memory.memory)
    if need:
        memory.take(need + len(payload), turn)
        status, _ = crop_yuv420(*settings, decoding.room(need))
    return int(status)


def _by_library(payload: bytes, picture: Picture, memory: ThreadMemory, turn: ExitStack) -> int:
    """One picture by simplejpeg, if a kernel could have decoded it, else by Pillow."""
    head, cut = memory.workspace["head"], memory.workspace["cut"]
    orientation = orientation_of(payload, head) if picture.upright else UPRIGHT
    jpeg, kept_bytes = _jpeg(payload, picture, memory, turn) if orientation == UPRIGHT else (None, 0)
    ready = _check_room(picture, len(payload), memory, turn, kept_bytes)

    def place(width: int, height: int, size_bytes: int) -> None:
        cut_whole(width, height, picture.jobs, picture.draws, cut)
        ready(height, width, size_bytes)

    if orientation != UPRIGHT:
        size = turned_size(head["width"], head["height"], orientation)
        cut_whole(*size, picture.jobs, picture.draws, cut)
        pixels = decode_turned(payload, head, orientation, picture.jobs["box"], picture.exact, cut, ready)
    elif jpeg is None:
        decoding.check_rare(payload, memory.large.most_bytes)
        pixels = decoding.decode(payload, place, upright=picture.upright)
    else:
        height, width = (-(-int(cut[side]) // int(cut["scale"])) for side in ("height", "width"))
        ready(height, width, 3 * height * width + len(jpeg) + int(coefficient_bytes(head)))
        pixels = decoding.decode_jpeg(jpeg, height, width)
        if pixels.shape != (height, width, 3):
            raise DecodeError("a JPEG of another size than its head says")
    scratch = decoding.room(int(write_crops.crop_bytes(picture.jobs, cut)))
    write_crops.crop_rgb(pixels, cut, picture.jobs, picture.row, scratch)
    return 0


def _check_room(
    picture: Picture, payload_bytes: int, memory: ThreadMemory, turn: ExitStack, kept_bytes: int
) -> Callable[[int, int, int], None]:
    """A function to call before pixels of some height and width are made, in so many bytes; it may refuse that."""

    def ready(height: int, width: int, size_bytes: int) -> None:
        if not write_crops.fits(picture.jobs, picture.row):
            raise DecodeError("a picture of another size than there is room for")
        more = payload_bytes + int(write_crops.crop_bytes(picture.jobs, memory.workspace["cut"]))
        decoding.check_fits(width, height, size_bytes + more, memory.large.most_bytes)
        memory.take(size_bytes + more, turn, kept_bytes)

    return ready


def _jpeg(payload: bytes, picture: Picture, memory: ThreadMemory, turn: ExitStack) -> tuple[Bytes | None, int]:
    """The JPEG that has to be decoded, of some tiles or the payload itself; None if that is no JPEG.

    Also how much of this thread's memory it keeps in use.
    """
    data, room, kept_bytes = np.frombuffer(payload, np.uint8), memory.memory, len(memory.memory)
    size, need = splice_crops(data, picture.jobs, picture.draws, memory.workspace, room)
    if need:
        room, kept_bytes = decoding.room(0), 0
        memory.take(need + len(payload), turn)
        room = decoding.room(need)
        size, need = splice_crops(data, picture.jobs, picture.draws, memory.workspace, room)
    if size == -OTHER:
        return None, 0
    if size < 0:
        raise DecodeError("a JPEG in CMYK or of too many scans, or one whose tile index does not match its data")
    return (room[:size], kept_bytes) if size else (data, 0)
