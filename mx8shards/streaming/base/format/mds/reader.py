"""The names of `streaming.base.format.mds.reader` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.format_readers import MDSReader

__all__ = [
    "MDSReader",
]
