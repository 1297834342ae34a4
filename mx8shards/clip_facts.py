"""How long are the videos of a dataset, and which columns describe them? Read from facts, else from packet indices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mx8shards.clip_settings import nanoseconds
from mx8shards.errors import FormatError, SchemaError, SettingError, finite_numbers, shown
from mx8shards.format.clip_times import ClipTimes, VideoColumns, frames_of, moments, seconds_of
from mx8shards.format.packet_index import FORMAT, VIDEOS, PacketIndex
from mx8shards.views import Ids

_HINT = "`mx8shards convert videofolder` writes one"


def video_columns(
    metadata: Mapping[str, Any], columns: Mapping[str, str], names: Any, times: ClipTimes
) -> VideoColumns:
    """The columns `names` with their packet indices. SettingError or SchemaError if a column is not one of videos."""
    wanted = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Sequence) else ()
    if not wanted or not all(isinstance(name, str) for name in wanted) or len(set(wanted)) < len(wanted):
        raise SettingError(subject="clips", expected="a column of videos, or several", found=shown(names))
    known = metadata.get(VIDEOS)
    for name in wanted:
        if name not in columns:
            have = ", ".join(map(repr, columns))
            raise SettingError(subject="clips", expected=f"one of the columns {have}", found=shown(name))
    facts = [known.get(name) if isinstance(known, Mapping) else None for name in wanted]
    for name, fact in zip(wanted, facts, strict=True):
        if not isinstance(fact, Mapping) or not isinstance(fact.get("packets"), str):
            raise SchemaError(subject=f"column {name!r}", expected="a packet index beside it", found="none", hint=_HINT)
        if fact.get("format") != FORMAT:
            found = shown(fact.get("format"))
            raise FormatError(subject=f"metadata: {VIDEOS}: {name}", expected=repr(FORMAT), found=found)
    packets = tuple(fact["packets"] for fact in facts if fact is not None)
    return VideoColumns(names=wanted, packets=packets, times=times)


def lengths_of(times: ClipTimes, indices: Iterable[PacketIndex]) -> Ids:
    """The lengths of videos in frames, or in moments if clips have a rate."""
    if times.fps is None:
        return np.array([int(np.count_nonzero(index.shown)) for index in indices], np.int64)
    return np.array([moments(times.fps, _duration(index), index.facts.time_base) for index in indices], np.int64)


def _duration(index: PacketIndex) -> int:
    return index.facts.end - int(index.pts[index.shown].min())


def anchors_of(name: str, values: Iterable[Any]) -> tuple[Ids, Ids]:
    """The anchors of all videos in nanoseconds, and where those of each video begin; then the number of anchors."""
    starts, found = [0], []
    for position, value in enumerate(values):
        several = list(value) if hasattr(value, "__len__") else [value]
        seconds = finite_numbers(several) if several else ()
        if seconds is None:
            place, expected = f"sample {position}", "seconds: a number, or several"
            raise SchemaError(subject=f"column {name!r}", place=place, expected=expected, found=shown(value))
        found += map(nanoseconds, seconds)
        starts.append(len(found))
    return np.array(found, np.int64), np.array(starts, np.int64)


def clip_bounds(columns: VideoColumns, start: int, read: Callable[[str], PacketIndex]) -> dict[str, Any]:
    """The frames and times of the clip that begins at `start`, by the names that a batch of a Loader has for them.

    `read` gives the index in a column of packet indices.
    """
    clock = read(columns.packets[0])
    found: dict[str, Any] = {}
    for name in columns.names:
        index = clock if name == columns.names[0] else read(columns.packets_of(name))
        clip = frames_of(columns.times, start, index, clock)
        begin, end = seconds_of(clip, index)
        found |= {f"{name}.frames": clip.numbers, f"{name}.mask": clip.valid}
        found |= {f"{name}.start": begin, f"{name}.end": end}
    return found
