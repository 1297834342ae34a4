"""The names of `streaming.base.partition` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import get_partitions, get_partitions_orig, get_partitions_relaxed
from mx8shards.streaming.order_functions import partition_algos as algos

__all__ = [
    "algos",
    "get_partitions",
    "get_partitions_orig",
    "get_partitions_relaxed",
]
