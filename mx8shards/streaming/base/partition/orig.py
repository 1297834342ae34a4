"""The names of `streaming.base.partition.orig` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import get_partitions_orig

__all__ = [
    "get_partitions_orig",
]
