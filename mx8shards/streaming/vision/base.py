"""The names of `streaming.vision.base` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.vision_datasets import StandardTransform, StreamingVisionDataset

__all__ = [
    "StandardTransform",
    "StreamingVisionDataset",
]
