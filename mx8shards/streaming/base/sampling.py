"""The names of `streaming.base.sampling` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import get_sampling

__all__ = [
    "get_sampling",
]
