"""The names of `streaming.vision` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.vision_datasets import (
    StandardTransform,
    StreamingADE20K,
    StreamingCIFAR10,
    StreamingCOCO,
    StreamingImageNet,
    StreamingVisionDataset,
)

__all__ = [
    "StandardTransform",
    "StreamingADE20K",
    "StreamingCIFAR10",
    "StreamingCOCO",
    "StreamingImageNet",
    "StreamingVisionDataset",
]
