"""Which columns describe a video, and which colours has one that does not say?

A video without tags has the matrix of BT.601 if it has at most 576 rows (SD), otherwise that of BT.709 (HD), and
limited range. Chroma samples are at the left of two luma samples for the codecs whose standards say so, else in their
centre. Motion JPEG has the conventions of JPEG instead: BT.601, full range, and chroma in the centre. Untagged grey has
full range, as in FFmpeg.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mx8shards.format.packet_index import FORMAT, VIDEOS, PacketIndex, VideoFacts

COLUMNS = {
    "codec": "str",
    "width": "int32",  # of the decoded frames, before the rotation
    "height": "int32",
    "rotation": "int32",  # clockwise
    "time_base_num": "int",  # the unit of start and duration in seconds: num / den
    "time_base_den": "int",
    "start": "int",
    "duration": "int",
    "frames": "int",
    "pixel_format": "str",
    "matrix": "str",  # empty: not tagged
    "range": "str",
    "siting": "str",
    "has_audio": "uint8",
}
UNKNOWN, LIMITED, FULL = 0, 1, 2  # range
BT709, UNTAGGED, BT470BG, SMPTE170M, BT2020 = 1, 2, 5, 6, 9  # matrix
LEFT, CENTRE, TOP_LEFT = 1, 2, 3  # siting

_SD_ROWS = 576
_LEFT_CODECS = ("h264", "hevc", "mpeg4", "mpeg2video")
_MATRICES = {0: "rgb", BT709: "bt709", 4: "fcc", BT470BG: "bt470bg", SMPTE170M: "smpte170m", 7: "smpte240m"} | {
    8: "ycgco",
    BT2020: "bt2020nc",
    10: "bt2020c",
}
_RANGES = {UNKNOWN: "", LIMITED: "limited", FULL: "full"}
_SITINGS = {0: "", LEFT: "left", CENTRE: "centre", TOP_LEFT: "top left", 4: "top", 5: "bottom left", 6: "bottom"}


class Colours(NamedTuple):
    """How the planes of a video become RGB, in the codes of VideoFacts."""

    matrix: int
    range: int
    siting: int


def colours_of(facts: VideoFacts) -> Colours:
    """The colours of a video, with defaults for what is not tagged."""
    jpeg = facts.codec == "mjpeg"
    usual = SMPTE170M if jpeg or facts.height <= _SD_ROWS else BT709
    return Colours(
        usual if facts.matrix in (0, UNTAGGED) else facts.matrix,
        facts.range or (FULL if jpeg or facts.pixel_format == "gray" else LIMITED),
        facts.siting or (LEFT if facts.codec in _LEFT_CODECS else CENTRE),
    )


def fact_columns(index: PacketIndex, *, has_audio: bool) -> dict[str, Any]:
    """The values of COLUMNS for a video."""
    facts = index.facts
    start = int(index.pts[index.frames[0]])
    return {
        "codec": facts.codec,
        "width": facts.width,
        "height": facts.height,
        "rotation": facts.rotation,
        "time_base_num": facts.time_base[0],
        "time_base_den": facts.time_base[1],
        "start": start,
        "duration": facts.end - start,
        "frames": len(index.frames),
        "pixel_format": facts.pixel_format,
        "matrix": _MATRICES.get(facts.matrix, "" if facts.matrix == UNTAGGED else str(facts.matrix)),
        "range": _RANGES[facts.range],
        "siting": _SITINGS.get(facts.siting, str(facts.siting)),
        "has_audio": int(has_audio),
    }


def videos_metadata(column: str, packets: str) -> dict[str, Any]:
    """The metadata that says which column holds the packet indices of a column of videos.

    "facts": what the names of COLUMNS begin with, so that several columns of videos can have facts.
    """
    return {VIDEOS: {column: {"packets": packets, "format": FORMAT, "facts": ""}}}
