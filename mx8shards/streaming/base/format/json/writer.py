"""The names of `streaming.base.format.json.writer` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.split_writers import JSONWriter

__all__ = [
    "JSONWriter",
]
