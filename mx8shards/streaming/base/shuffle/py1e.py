"""The names of `streaming.base.shuffle.py1e` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import get_shuffle_py1e

__all__ = [
    "get_shuffle_py1e",
]
