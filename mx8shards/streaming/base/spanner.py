"""The names of `streaming.base.spanner` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.sample_locations import Spanner

__all__ = [
    "Spanner",
]
