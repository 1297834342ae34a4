"""The names of `streaming.base.format.base.reader` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.shard_files import FileInfo
from mx8shards.streaming.shard_files import ShardReader as Reader

__all__ = [
    "FileInfo",
    "Reader",
]
