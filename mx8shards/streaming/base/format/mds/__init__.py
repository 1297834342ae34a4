"""The names of `streaming.base.format.mds` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.base.format.mds import encodings
from mx8shards.streaming.base.format.mds.reader import MDSReader
from mx8shards.streaming.base.format.mds.writer import MDSWriter

__all__ = [
    "MDSReader",
    "MDSWriter",
    "encodings",
]
