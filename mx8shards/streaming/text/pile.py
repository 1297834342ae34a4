"""The names of `streaming.text.pile` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.text_datasets import StreamingPile

__all__ = [
    "StreamingPile",
]
