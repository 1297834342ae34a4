"""The names of `streaming.base.dataset` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.sample_array import Array
from mx8shards.streaming.sample_locations import Spanner
from mx8shards.streaming.stream import Stream
from mx8shards.streaming.streaming_dataset import StreamingDataset
from mx8shards.streaming.streams_registry import streams_registry
from mx8shards.streaming.world import World

__all__ = [
    "Array",
    "Spanner",
    "Stream",
    "StreamingDataset",
    "World",
    "streams_registry",
]
