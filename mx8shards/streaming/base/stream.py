"""The names of `streaming.base.stream` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.stream import Stream
from mx8shards.streaming.streams_registry import streams_registry

__all__ = [
    "Stream",
    "streams_registry",
]
