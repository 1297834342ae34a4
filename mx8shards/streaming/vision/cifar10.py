"""The names of `streaming.vision.cifar10` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.vision_datasets import StreamingCIFAR10

__all__ = [
    "StreamingCIFAR10",
]
