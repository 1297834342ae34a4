"""The names of `streaming.base.shuffle.py1br` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import get_shuffle_py1br

__all__ = [
    "get_shuffle_py1br",
]
