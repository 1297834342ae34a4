"""The names of `streaming.base.batching.random` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import generate_work_random_batching

__all__ = [
    "generate_work_random_batching",
]
