"""The names of `streaming.base.batching.per_stream` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import generate_work_per_stream_batching

__all__ = [
    "generate_work_per_stream_batching",
]
