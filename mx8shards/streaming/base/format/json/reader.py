"""The names of `streaming.base.format.json.reader` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.format_readers import JSONReader

__all__ = [
    "JSONReader",
]
