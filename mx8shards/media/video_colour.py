"""How do the levels of a video's planes become RGB: which matrix, range and chroma position?

The codes are those of ITU-T H.273, which FFmpeg uses too. A video without tags has the matrix of BT.601 if it has at
most 576 rows (SD), otherwise that of BT.709 (HD), and limited range. Chroma samples are at the left of two luma samples
for the codecs whose standards say so, else in their centre. Motion JPEG has the conventions of JPEG instead: BT.601,
full range, and chroma in the centre. Untagged grey has full range. (swscale converts untagged HD with BT.601.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError
from mx8shards.format.packet_index import MATRICES, VideoFacts

Array = npt.NDArray[Any]


class Format(NamedTuple):
    """A pixel format of 8 bits: luma samples per chroma sample, across and down (0 and 0: grey)."""

    across: int
    down: int


FORMATS = {"yuv420p": Format(2, 2), "yuv422p": Format(2, 1), "yuv444p": Format(1, 1), "gray": Format(0, 0)}
FORMATS |= {f"yuvj{name[3:]}": form for name, form in FORMATS.items() if name != "gray"}  # with full range

# The share of red and of blue in luma, by the code of the matrix.
_MATRICES = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
_MATRICES |= {9: (0.2627, 0.0593)}
_BT709, _UNTAGGED, _SMPTE170M = 1, 2, 6
_SD_ROWS = 576
_LIMITED, _FULL = 1, 2  # ranges
_AT_LEFT, _AT_CENTRE = 1, 2
_LEFT = (1, 3, 5)
_TOP, _BOTTOM = (3, 4), (5, 6)
_LEFT_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video")


class Colours(NamedTuple):
    """How the planes of a video become RGB, in the codes of VideoFacts."""

    matrix: int
    range: int
    siting: int


def colours_of(facts: VideoFacts) -> Colours:
    """The colours of a video, with defaults for what is not tagged."""
    jpeg = facts.codec == "mjpeg"
    usual = _SMPTE170M if jpeg or facts.height <= _SD_ROWS else _BT709
    return Colours(
        usual if facts.matrix in (0, _UNTAGGED) else facts.matrix,
        facts.range or (_FULL if jpeg or facts.pixel_format == "gray" else _LIMITED),
        facts.siting or (_AT_LEFT if facts.codec in _LEFT_CODECS else _AT_CENTRE),
    )


def check_colours(facts: VideoFacts) -> None:
    """DecodeError for pixels or a colour matrix that are not converted."""
    if facts.pixel_format not in FORMATS:
        known = ", ".join(FORMATS)
        raise DecodeError(
            expected=f"8 bits per sample in one of the formats {known}",
            found=facts.pixel_format,
            hint="convert videofolder --gop re-encodes videos",
            reason="unsupported",
        )
    matrix = colours_of(facts).matrix
    if matrix not in _MATRICES:
        raise DecodeError(
            expected=f"a colour matrix of {', '.join(MATRICES[code] for code in _MATRICES)}",
            found=MATRICES.get(matrix, f"code {matrix}"),
            hint="FFmpeg converts it: -vf zscale=matrix=709",
            reason="unsupported",
        )


def frame_record(facts: VideoFacts) -> Array:
    """What the kernels need to know of a video's frames, as a FRAME. DecodeError for what they cannot convert."""
    check_colours(facts)
    return _record(facts.width, facts.height, facts.pixel_format, facts.rotation // 90, colours_of(facts))


@lru_cache(256)  # few kinds of videos make up a dataset, and each of their clips asks
def _record(width: int, height: int, pixel_format: str, turns: int, colours: Colours) -> Array:
    from mx8shards.kernels.video_frames import FRAME  # imported here because it loads Numba

    form = FORMATS[pixel_format]
    record: Any = np.zeros(1, FRAME)
    frame = record[0]
    frame["width"], frame["height"] = width, height
    frame["across"], frame["down"] = max(form.across, 1), max(form.down, 1)
    frame["shift_x"] = 0.25 if form.across == 2 and colours.siting in _LEFT else 0.0
    if form.down == 2 and colours.siting in _TOP + _BOTTOM:
        frame["shift_y"] = 0.25 if colours.siting in _TOP else -0.25
    frame["turns"] = turns
    full = colours.range == _FULL or pixel_format.startswith("yuvj")
    frame["colour"] = coefficients(colours.matrix, full=full)
    return np.asarray(record)


def coefficients(matrix: int, *, full: bool) -> npt.NDArray[np.float32]:
    """The six numbers of `colour_conversion` for the code of a matrix that `check_colours` accepts."""
    red, blue = _MATRICES[matrix]
    green = 1 - red - blue
    scale, black, chroma = (1.0, 0.0, 1.0) if full else (255 / 219, 16.0, 255 / 224)
    to_red, to_blue = 2 * (1 - red), 2 * (1 - blue)
    factors = to_red, to_blue * blue / green, to_red * red / green, to_blue
    return np.array([scale, 0.5 - black * scale, *(chroma * factor for factor in factors)], np.float32)
