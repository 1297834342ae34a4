"""By how many degrees is a video turned to be shown? Containers store a matrix, which also mirrors in some of them."""

from __future__ import annotations

import struct
from typing import Any

from mx8shards.errors import DecodeError

_MATRIX = struct.Struct("@9i")
_ONE = 1 << 16  # fixed point
# the upper left four numbers, for each clockwise rotation
_ROTATIONS = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270}


def clockwise_rotation(frame: Any) -> int:
    """The rotation of a decoded frame of PyAV. DecodeError if it is mirrored, or turned by another angle."""
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return 0
    across, down, _, back, up, *_ = _MATRIX.unpack(bytes(matrix)[: _MATRIX.size])
    found = _ROTATIONS.get(tuple(round(value / _ONE) for value in (across, down, back, up)))
    if found is None:
        hint = "re-encode it (--gop), which turns the frames themselves"
        raise DecodeError(expected="a rotation by a multiple of 90 degrees", found="another display matrix", hint=hint)
    return found
