"""The names of `streaming.base.dataset` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.streaming_dataset import StreamingDataset

__all__ = [
    "StreamingDataset",
]
