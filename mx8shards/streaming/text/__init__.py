"""The names of `streaming.text` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.text_datasets import StreamingC4, StreamingEnWiki, StreamingPile

__all__ = [
    "StreamingC4",
    "StreamingEnWiki",
    "StreamingPile",
]
