"""The names of `streaming.vision.ade20k` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.vision_datasets import StreamingADE20K

__all__ = [
    "StreamingADE20K",
]
