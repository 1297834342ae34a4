"""The names of `streaming.base.distributed` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.process_groups import all_gather, all_gather_object, barrier, broadcast, maybe_init_dist
from mx8shards.streaming.world import get_local_rank, get_local_world_size, get_rank, get_world_size

__all__ = [
    "all_gather",
    "all_gather_object",
    "barrier",
    "broadcast",
    "get_local_rank",
    "get_local_world_size",
    "get_rank",
    "get_world_size",
    "maybe_init_dist",
]
