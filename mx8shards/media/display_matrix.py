"""How must the frames of a video be rotated to be shown? Containers store a matrix, which may also mirror them."""

from __future__ import annotations

import struct
from typing import Any

from mx8shards.errors import DecodeError

_MATRIX = struct.Struct("@9i")
_ONE = 1 << 16  # fixed point
_HINT = "re-encode it (--gop), which turns the frames themselves"

# Which filters of FFmpeg turn the frames, by the upper left four numbers of the matrix.
_FILTERS = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): ("transpose=clock",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, -1, 1, 0): ("transpose=cclock",),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}
_ROTATIONS = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270}


def rotation_of(frame: Any) -> int | None:
    """The clockwise rotation of a decoded frame of PyAV; None if it is mirrored, or turned by another angle."""
    return _ROTATIONS.get(_matrix(frame))


def check_rotation(frame: Any) -> None:
    """DecodeError for a frame that is mirrored, or turned by another angle than a multiple of 90 degrees."""
    if rotation_of(frame) is None:
        raise DecodeError(expected="a rotation by a multiple of 90 degrees", found="another display matrix", hint=_HINT)


def upright_filters(frame: Any) -> tuple[str, ...]:
    """The filters that turn a decoded frame as it is shown. DecodeError if it is turned by another angle."""
    found = _FILTERS.get(_matrix(frame))
    if found is None:
        raise DecodeError(expected="a rotation by a multiple of 90 degrees", found="another display matrix")
    return found


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """The upper left four numbers of a frame's display matrix, rounded."""
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return (1, 0, 0, 1)
    across, down, _, back, up, *_ = _MATRIX.unpack(bytes(matrix)[: _MATRIX.size])
    return round(across / _ONE), round(down / _ONE), round(back / _ONE), round(up / _ONE)
