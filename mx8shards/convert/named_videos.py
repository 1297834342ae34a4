"""How does a recipe write several videos per sample, such as cameras, and parts of long files? With columns by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from mx8shards.convert.video_changes import VIDEO_COLUMNS, VideoChanges
from mx8shards.format.packet_index import PacketIndex
from mx8shards.media.video_cuts import span_of
from mx8shards.media.video_facts import videos_metadata


def named_columns(names: Iterable[str]) -> dict[str, str]:
    """The columns of several videos: for the name `top`, the video `top`, `about_top_packets`, `about_top_frames`, …

    Columns are stored in the order of their names. So the packet indices are before most videos, and clips of a dataset
    in a store fetch all of them in one request.
    """
    return {_named(name, key): encoding for name in names for key, encoding in VIDEO_COLUMNS.items()}


def named_metadata(names: Iterable[str]) -> dict[str, Any]:
    """The metadata of a dataset with these videos."""
    return videos_metadata({name: _named(name, "") for name in names})


def named_video(name: str, video: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `named_columns` for one video, from those of VIDEO_COLUMNS."""
    return {_named(name, key): video[key] for key in VIDEO_COLUMNS}


def _named(name: str, key: str) -> str:
    return name if key == "video" else f"about_{name}_{key}"


class VideoFile:
    """A video of which samples are parts. It is indexed once.

    Args:
        path: The file.
        options: Those of VideoChanges, such as `gop`.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        self._path, self._changes = path, VideoChanges(**options)

    def part(self, start: float, end: float) -> dict[str, Any]:
        """The values of VIDEO_COLUMNS of the frames shown from `start` to before `end`. SourceError if it is refused.

        It is cut without re-encoding, and exact. Times are seconds from the first frame of the file.
        """
        with open(self._path, "rb") as file:
            return self._changes.part(file, self._index, span_of(self._index, start, end))

    @cached_property
    def _index(self) -> PacketIndex:
        with open(self._path, "rb") as file:
            return self._changes.indexed(file)
