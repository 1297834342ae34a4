"""The names of `streaming.base.shuffle.naive` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import get_shuffle_naive

__all__ = [
    "get_shuffle_naive",
]
