"""The names of `streaming.base.batching` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import (
    batching_methods,
    generate_work,
    generate_work_device_per_stream_batching,
    generate_work_per_stream_batching,
    generate_work_random_batching,
    generate_work_stratified_batching,
)

__all__ = [
    "batching_methods",
    "generate_work",
    "generate_work_device_per_stream_batching",
    "generate_work_per_stream_batching",
    "generate_work_random_batching",
    "generate_work_stratified_batching",
]
