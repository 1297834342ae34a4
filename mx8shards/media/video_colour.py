"""How do the levels of a video's planes become RGB: which matrix, range and chroma position?

The codes are those of ITU-T H.273, which FFmpeg uses too. An untagged video is taken to have limited range, and the
matrix BT.601 up to 576 rows, BT.709 above, as most players do. Untagged chroma is on the left for the codecs whose
standards say so, else in the centre; untagged grey has full range. Both are FFmpeg's rules.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError
from mx8shards.format.packet_index import VideoFacts
from mx8shards.kernels.video_frames import FRAME

Array = npt.NDArray[Any]


class Format(NamedTuple):
    """A pixel format of 8 bits: luma samples per chroma sample across and down (0 and 0: grey), and its range."""

    across: int
    down: int
    full: bool = False


FORMATS = {
    "yuv420p": Format(2, 2),
    "yuv422p": Format(2, 1),
    "yuv444p": Format(1, 1),
    "yuvj420p": Format(2, 2, True),
    "yuvj422p": Format(2, 1, True),
    "yuvj444p": Format(1, 1, True),
    "gray": Format(0, 0),
}

# The share of red and of blue in luma, by the code of the matrix.
_MATRICES = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
_MATRICES |= {9: (0.2627, 0.0593)}
_UNKNOWN = (2, 3)  # unspecified and reserved
_BT709, _BT601 = 1, 6
_MOST_ROWS_OF_SD = 576
_LIMITED, _FULL = 1, 2  # ranges

# Codes of chroma positions: 0 unknown, 1 left, 2 centre, 3 top left, 4 top, 5 bottom left, 6 bottom.
_UNTAGGED = 0
_LEFT = (1, 3, 5)
_TOP = (3, 4)
_BOTTOM = (5, 6)
_LEFT_BY_DEFAULT = ("h264", "hevc", "mpeg4", "mpeg2video")


def frame_record(facts: VideoFacts) -> Array:
    """What the kernels need to know of a video's frames, as a FRAME. DecodeError for what they cannot convert."""
    if facts.pixel_format not in FORMATS:
        known = ", ".join(FORMATS)
        raise DecodeError(
            expected=f"8 bits per sample in one of the formats {known}",
            found=facts.pixel_format,
            hint="convert videofolder --gop re-encodes videos",
            reason="unsupported",
        )
    form = FORMATS[facts.pixel_format]
    record: Any = np.zeros(1, FRAME)
    frame = record[0]
    frame["width"], frame["height"] = facts.width, facts.height
    frame["across"], frame["down"] = max(form.across, 1), max(form.down, 1)
    left = facts.siting in _LEFT or (facts.siting == _UNTAGGED and facts.codec in _LEFT_BY_DEFAULT)
    frame["shift_x"] = 0.25 if form.across == 2 and left else 0.0
    if form.down == 2 and facts.siting in _TOP + _BOTTOM:
        frame["shift_y"] = 0.25 if facts.siting in _TOP else -0.25
    frame["turns"] = facts.rotation // 90
    full = form.full or facts.range == _FULL or (not form.across and facts.range != _LIMITED)
    frame["colour"] = coefficients(facts.matrix, full=full, rows=facts.height)
    return np.asarray(record)


def coefficients(matrix: int, *, full: bool, rows: int) -> npt.NDArray[np.float32]:
    """The six numbers of `colour_conversion` for a matrix; DecodeError for one that is no matrix of luma and chroma."""
    if matrix in _UNKNOWN:
        matrix = _BT601 if rows <= _MOST_ROWS_OF_SD else _BT709
    if matrix not in _MATRICES:
        known = ", ".join(map(str, _MATRICES))
        raise DecodeError(expected=f"a colour matrix of these codes: {known}", found=f"{matrix}", reason="unsupported")
    red, blue = _MATRICES[matrix]
    green = 1 - red - blue
    scale, black, chroma = (1.0, 0.0, 1.0) if full else (255 / 219, 16.0, 255 / 224)
    to_red, to_blue = 2 * (1 - red), 2 * (1 - blue)
    factors = to_red, to_blue * blue / green, to_red * red / green, to_blue
    return np.array([scale, 0.5 - black * scale, *(chroma * factor for factor in factors)], np.float32)
