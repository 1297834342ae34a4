"""The names of `streaming.vision.coco` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.vision_datasets import StreamingCOCO

__all__ = [
    "StreamingCOCO",
]
