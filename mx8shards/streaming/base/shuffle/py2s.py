"""The names of `streaming.base.shuffle.py2s` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import get_shuffle_py2s

__all__ = [
    "get_shuffle_py2s",
]
