"""Datasets of small videos with their packet indices, for tests of clips."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import mx8shards as mx8
from mx8shards.format.packet_index import FORMAT, VIDEOS, PacketIndex, encode_packet_index
from mx8shards.media.video_index import index_video


@functools.cache
def packets_of(video: bytes) -> bytes:
    """The packet index of a video."""
    return encode_packet_index(index_video(video).packets)


def repeated(index: PacketIndex, times: int, apart: int = 0) -> PacketIndex:
    """The index of a long video that shows the frames of a short one again and again.

    `apart`: the bytes between the beginnings of two copies in the payload; 0 for one that has only one.
    """
    number = np.repeat(np.arange(times), len(index.pts))
    later = number * int(index.facts.end - index.pts[index.frames[0]])
    facts = replace(index.facts, end=index.facts.end + int(later[-1]))
    tiled = {name: np.tile(getattr(index, name), times) for name in ("pts", "dts", "position", "size")}
    flags = {name: np.tile(getattr(index, name), times) for name in ("keyframe", "disposable", "shown")}
    tiled["pts"] += later
    tiled["dts"] += later
    tiled["position"] += number * apart
    return PacketIndex(facts, index.extradata, **tiled, **flags)


def write_videos(
    path: Path, videos: Sequence[bytes | Mapping[str, bytes]], more: Mapping[str, str] | None = None, **values: Any
) -> mx8.Dataset:
    """A dataset with a sample for each video, or for the videos of several columns. `more`: further columns."""
    rows = [{"video": each} if isinstance(each, bytes) else dict(each) for each in videos]
    names = list(rows[0])
    columns = dict.fromkeys(names, "bytes") | {f"{name}_packets": "bytes" for name in names}
    metadata = {VIDEOS: {name: {"packets": f"{name}_packets", "format": FORMAT} for name in names}}
    columns |= {"label": "int", "path": "str"} | dict(more or {})
    with mx8.Writer(path, columns=columns, metadata=metadata, size_limit="64kb") as writer:
        for number, row in enumerate(rows):
            indices = {f"{name}_packets": packets_of(data) if data else b"" for name, data in row.items()}
            others = {name: each[number] for name, each in values.items()}
            writer.write({**row, **indices, "label": number, "path": f"{number}.mp4", **others})
    return mx8.Dataset(path)
