"""The names of `streaming.base.format.index` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.shard_files import get_index_basename

__all__ = [
    "get_index_basename",
]
