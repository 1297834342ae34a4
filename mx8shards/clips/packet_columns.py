"""Which packets has the video of a sample, and which frames its clip? Read from the column of packet indices."""

from __future__ import annotations

from typing import Any

from mx8shards.errors import DecodeError, FormatError
from mx8shards.format.clip_times import START, IndexFile, VideoColumns, frames_of, seconds_of
from mx8shards.format.packet_index import PacketIndex, parse_packet_index
from mx8shards.shards.open_shard import Shards
from mx8shards.views import Extras, Ids


def read_packets(shards: Shards, sample_id: int, source: str | IndexFile) -> PacketIndex:
    """The packet index of a sample, from a column or a file. DecodeError if it has none."""
    i, row = shards.locate(sample_id)
    shard = shards.open_shard(i)
    if isinstance(source, str):
        payload = bytes(shard.payloads(row, [shard.columns.names.index(source)])[0])
    else:
        payload = source.read(sample_id, source.size(sample_id))
    place = f"{shard.name}: sample {row} of this shard"
    if not payload:
        hint = "" if isinstance(source, str) else source.reason(sample_id)
        raise DecodeError(place=place, expected="a packet index", found="an empty one", hint=hint, reason="missing")
    try:
        return parse_packet_index(payload)
    except FormatError as error:
        raise error.at(place=place) from error.__cause__


def clip_bounds(shards: Shards, videos: VideoColumns | None, sample_ids: Ids, extras: Extras) -> dict[str, Any]:
    """The frames and times of one clip, by the names that a batch of a Loader has for them.

    `sample_ids` and `extras` are what the view has at the position of the clip: arrays of one row.
    """
    if videos is None:
        return {}
    start = int(extras[START][0])
    indices = {column: read_packets(shards, int(sample_ids[0]), column) for column in set(videos.packets)}
    reference = indices[videos.packets[0]]
    found: dict[str, Any] = {}
    for name in videos.names:
        index = indices[videos.packets_of(name)]
        clip = frames_of(videos.times, start, index, reference)
        begin, end = seconds_of(clip, index)
        found |= {f"{name}.frames": clip.numbers, f"{name}.mask": clip.valid}
        found |= {f"{name}.start": begin, f"{name}.end": end}
    return found
