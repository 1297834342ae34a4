"""The names of `streaming.text.c4` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.text_datasets import StreamingC4

__all__ = [
    "StreamingC4",
]
