"""The names of `streaming.base.format.json` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.base.format.json.reader import JSONReader
from mx8shards.streaming.base.format.json.writer import JSONWriter

__all__ = [
    "JSONReader",
    "JSONWriter",
]
