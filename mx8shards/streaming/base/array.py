"""The names of `streaming.base.array` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.sample_array import Array

__all__ = [
    "Array",
]
