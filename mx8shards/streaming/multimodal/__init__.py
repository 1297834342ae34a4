"""The names of `streaming.multimodal` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.video_datasets import StreamingInsideWebVid, StreamingOutsideDTWebVid, StreamingOutsideGIWebVid

__all__ = [
    "StreamingInsideWebVid",
    "StreamingOutsideDTWebVid",
    "StreamingOutsideGIWebVid",
]
