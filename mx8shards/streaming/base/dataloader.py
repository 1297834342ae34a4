"""The names of `streaming.base.dataloader` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.streaming_dataloader import StreamingDataLoader

__all__ = [
    "StreamingDataLoader",
]
