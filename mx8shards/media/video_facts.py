"""Which columns describe a video, and which metadata say where its packet index is?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mx8shards.format.packet_index import FORMAT, MATRICES, VIDEOS, PacketIndex

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
_RANGES = ("", "limited", "full")
_SITINGS = ("", "left", "centre", "top left", "top", "bottom left", "bottom")


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
        "matrix": MATRICES.get(facts.matrix, str(facts.matrix)),
        "range": _RANGES[facts.range],
        "siting": _SITINGS[facts.siting] if facts.siting < len(_SITINGS) else str(facts.siting),
        "has_audio": int(has_audio),
    }


def videos_metadata(facts: Mapping[str, str]) -> dict[str, Any]:
    """The metadata that says which columns hold the packet indices and facts of columns of videos.

    `facts`: for each column of videos, what the names of these columns begin with.
    """
    return {
        VIDEOS: {
            name: {"packets": f"{begin}packets", "format": FORMAT, "facts": begin} for name, begin in facts.items()
        }
    }
