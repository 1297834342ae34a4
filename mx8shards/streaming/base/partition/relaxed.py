"""The names of `streaming.base.partition.relaxed` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import get_partitions_relaxed

__all__ = [
    "get_partitions_relaxed",
]
