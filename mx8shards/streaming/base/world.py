"""The names of `streaming.base.world` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.world import World

__all__ = [
    "World",
]
