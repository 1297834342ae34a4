"""The names of `streaming.vision.imagenet` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.vision_datasets import StreamingImageNet

__all__ = [
    "StreamingImageNet",
]
