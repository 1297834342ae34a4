"""The names of `streaming.base.format.base` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.base.format.base.reader import FileInfo, Reader

__all__ = [
    "FileInfo",
    "Reader",
]
