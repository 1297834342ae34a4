"""Which columns of videos have joined datasets in common, and where are their packet indices?"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mx8shards.format.clip_times import IndexFile, VideoColumns


@dataclass(frozen=True, eq=False)  # it is a key for each row, and comparing all files would take long
class JoinedIndexFiles:
    """The files of several datasets as one: each with the sample_id at which the samples of its dataset start."""

    files: tuple[tuple[int, IndexFile], ...]

    def size(self, sample_id: int) -> int:
        """The size of the packet index of a sample; 0 if it has none."""
        file, own_id = self._file_of(sample_id)
        return file.size(own_id)

    def read(self, sample_id: int, most: int) -> bytes:
        """The first `most` bytes of the packet index of a sample."""
        file, own_id = self._file_of(sample_id)
        return file.read(own_id, most)

    def reason(self, sample_id: int) -> str:
        """Why a sample has no packet index; empty if that is not known."""
        file, own_id = self._file_of(sample_id)
        return file.reason(own_id)

    def _file_of(self, sample_id: int) -> tuple[IndexFile, int]:
        start, file = self.files[bisect_right(self.files, sample_id, key=lambda each: each[0]) - 1]
        return file, sample_id - start


class Part(NamedTuple):
    """A joined dataset: the sample_id at which its samples start, and its columns of videos if it has clips."""

    start: int
    videos: VideoColumns | None


def joined_videos(parts: Sequence[Part]) -> VideoColumns | None:
    """The columns of videos of joined datasets. None if they differ in more than the files of their packet indices."""
    first = parts[0].videos if parts else None
    if first is None:
        return None
    packets = []
    for at in range(len(first.names)):
        sources = [_source_at(first, part, at) for part in parts]
        joined = _joined_sources([part.start for part in parts], sources)
        if joined is None:
            return None
        packets.append(joined)
    return replace(first, packets=tuple(packets))


def _source_at(first: VideoColumns, part: Part, at: int) -> str | IndexFile | None:
    """Where the packet indices of a column are; None if the clips of this part are others than those of the first."""
    videos = part.videos
    return None if videos is None or (videos.names, videos.times) != (first.names, first.times) else videos.packets[at]


def _joined_sources(starts: Sequence[int], sources: Sequence[str | IndexFile | None]) -> str | IndexFile | None:
    """One column for all parts, or one file for each; else None."""
    if isinstance(sources[0], str):
        return sources[0] if all(source == sources[0] for source in sources) else None
    files = tuple(
        (start, source)
        for start, source in zip(starts, sources, strict=True)
        if source is not None and not isinstance(source, str)
    )
    return JoinedIndexFiles(files) if len(files) == len(sources) else None
