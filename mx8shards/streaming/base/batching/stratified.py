"""The names of `streaming.base.batching.stratified` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import generate_work_stratified_batching

__all__ = [
    "generate_work_stratified_batching",
]
