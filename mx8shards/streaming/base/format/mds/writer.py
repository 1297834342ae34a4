"""The names of `streaming.base.format.mds.writer` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.mds_writer import MDSWriter

__all__ = [
    "MDSWriter",
]
