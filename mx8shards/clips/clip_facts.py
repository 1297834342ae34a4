"""Which columns describe a column of videos, and how long are the videos? From facts, else from packet indices."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mx8shards.clips.clip_view import NO_LENGTHS, ClipView
from mx8shards.clips.length_file import lengths_of_videos
from mx8shards.clips.packet_file import packet_file
from mx8shards.errors import FormatError, SchemaError, SettingError, shown
from mx8shards.format.clip_times import ClipTimes, IndexFile, VideoColumns, moments
from mx8shards.format.packet_index import FORMAT, VIDEOS
from mx8shards.shards.column_values import stacked_column
from mx8shards.shards.open_shard import Shards
from mx8shards.views import Ids, View

_logger = logging.getLogger("mx8shards")

_DURATION = ("duration", "time_base_num", "time_base_den")
_MOST = 1 << 40  # frames or moments of a video
_RUN = 1 << 20  # samples whose facts are read at a time


def video_columns(
    shards: Shards, view: View, metadata: Mapping[str, Any], columns: Sequence[str], names: Any, times: ClipTimes
) -> VideoColumns:
    """The columns `names` with their packet indices. SettingError or SchemaError if a column is not one of videos."""
    if view.varies_by_epoch or view.videos is not None:
        hint = "call clips on each dataset before mixing them, and once"
        found = "a mix" if view.videos is None else "a view of clips"
        raise SettingError(subject="clips", expected="whole samples, equal in every epoch", found=found, hint=hint)
    wanted = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Sequence) else ()
    if not wanted or not all(isinstance(name, str) for name in wanted) or len(set(wanted)) < len(wanted):
        raise SettingError(subject="clips", expected="a column of videos, or several", found=shown(names))
    for name in wanted:
        _require_column("clips", name, columns)
    if times.at:
        _require_column("anchors", times.anchors, columns)
    packets = tuple(_packets_of(shards, metadata.get(VIDEOS), name) for name in wanted)
    return VideoColumns(names=wanted, packets=packets, times=times)


def _require_column(subject: str, name: str, columns: Sequence[str]) -> None:
    if name not in columns:
        have = ", ".join(map(repr, columns))
        raise SettingError(subject=subject, expected=f"one of the columns {have}", found=shown(name))


def _packets_of(shards: Shards, known: Any, name: str) -> str | IndexFile:
    """The column with the packet indices of a column of videos, or a file, which is made if there is neither."""
    facts = known.get(name) if isinstance(known, Mapping) else None
    packets = facts.get("packets") if isinstance(facts, Mapping) else None
    if not isinstance(facts, Mapping) or not isinstance(packets, str):
        encoding = shards.columns([name]).encodings[0]
        if encoding != "bytes":
            raise SchemaError(subject=f"column {name!r}", expected="videos, with the encoding bytes", found=encoding)
        return packet_file(shards, name)
    if facts.get("format") != FORMAT:
        found = shown(facts.get("format"))
        raise FormatError(subject=f"metadata: {VIDEOS}: {name}", expected=repr(FORMAT), found=found)
    return packets


def clip_view(
    shards: Shards, view: View, metadata: Mapping[str, Any], videos: VideoColumns, anchors: tuple[Ids, Ids] | None
) -> ClipView:
    """The clips of the videos at all positions of a view. `anchors`: the result of `anchors_of`, for clips at them."""
    lengths = lengths_of(shards, view, metadata, videos) if anchors is None else NO_LENGTHS
    clips = ClipView(view, videos, lengths, anchors)
    if len(view) and not len(clips):
        _logger.warning("%s: %s", videos.names[0], _why_there_are_none(videos.times, lengths))
    return clips


def _why_there_are_none(times: ClipTimes, lengths: Ids) -> str:
    if times.at is not None:
        return f"no video has a clip: the column {times.anchors!r} has no anchors"
    unit = "frames" if times.fps is None else "moments"
    return (
        f"no video has a clip of {times.span} {unit}: the longest has {lengths.max()} (short=, stride= and fps= help)"
    )


def lengths_of(shards: Shards, view: View, metadata: Mapping[str, Any], videos: VideoColumns) -> Ids:
    """The length of the video at each position of a view, in frames or in moments."""
    prefix = metadata[VIDEOS][videos.names[0]].get("facts") if isinstance(videos.packets[0], str) else None
    if isinstance(prefix, str):
        names = ("frames",) if videos.times.fps is None else _DURATION
        return _lengths(videos.times, [_fact(shards, prefix + name, view) for name in names])
    ids = np.concatenate([np.zeros(0, np.int64), *_sample_ids(view)])
    frames, *duration = lengths_of_videos(shards, videos.packets[0], ids).T
    return _lengths(videos.times, [frames] if videos.times.fps is None else duration)


def _fact(shards: Shards, name: str, view: View) -> Ids:
    """A column of integers at all positions of a view."""
    coder = shards.columns([name]).coders[0]
    if coder.dtype is None or coder.shape != () or np.dtype(coder.dtype).kind not in "iu":
        raise SchemaError(subject=f"column {name!r}", expected="integers, as it has facts of videos", found=coder.name)
    return stacked_column(shards, name, np.dtype(coder.dtype), (), _sample_ids(view)).astype(np.int64)


def _lengths(times: ClipTimes, facts: Sequence[Ids]) -> Ids:
    if times.fps is None:
        return np.clip(facts[0], 0, _MOST)
    rows = zip(*(column.tolist() for column in facts), strict=True)
    found = [moments(times.fps, duration, (unit, per_second or 1)) for duration, unit, per_second in rows]
    return np.array([min(max(length, 0), _MOST) for length in found], np.int64)


def _sample_ids(view: View) -> Iterator[Ids]:
    """The sample_id of every position, in runs."""
    for start in range(0, len(view), _RUN):
        yield view.resolve(np.arange(start, min(start + _RUN, len(view))))[0]
