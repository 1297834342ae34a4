"""The names of `streaming.text.enwiki` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.text_datasets import StreamingEnWiki

__all__ = [
    "StreamingEnWiki",
]
