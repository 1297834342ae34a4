"""How long are the videos of a dataset, and which columns describe them? Read from facts, else from packet indices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mx8shards.clip_settings import nanoseconds
from mx8shards.errors import FormatError, SchemaError, SettingError, finite_numbers, shown
from mx8shards.format.clip_times import ClipTimes, VideoColumns, frames_of, length_of, moments, seconds_of
from mx8shards.format.packet_index import FORMAT, VIDEOS, PacketIndex
from mx8shards.views import Ids

_DURATION = ("duration", "time_base_num", "time_base_den")
_MOST = 1 << 40  # frames or moments of a video

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


def fact_names(metadata: Mapping[str, Any], name: str, times: ClipTimes) -> list[str]:
    """The columns with the facts from which the clips of a column of videos are counted; none if there are no facts."""
    prefix = metadata[VIDEOS][name].get("facts")
    if not isinstance(prefix, str):
        return []
    return [prefix + fact for fact in (("frames",) if times.fps is None else _DURATION)]


def lengths_by_facts(times: ClipTimes, facts: Sequence[Any]) -> Ids:
    """The lengths of videos in frames or in moments, from the columns of `fact_names`."""
    if times.fps is None:
        lengths = np.asarray(facts[0], np.int64)
    else:
        values = zip(*(np.asarray(column).tolist() for column in facts), strict=True)
        lengths = np.array(
            [moments(times.fps, duration, (unit, per_second or 1)) for duration, unit, per_second in values], np.int64
        )
    return np.clip(lengths, 0, _MOST)


def lengths_by_indices(times: ClipTimes, indices: Iterable[PacketIndex]) -> Ids:
    """The lengths of videos in frames or in moments, from their packet indices."""
    return np.array([length_of(times, index) for index in indices], np.int64)


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
