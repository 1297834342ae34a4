"""The names of `streaming.base.util` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.abbreviated_numbers import bytes_to_int, number_abbrev_to_int
from mx8shards.streaming.merged_index import merge_index
from mx8shards.streaming.process_groups import maybe_init_dist
from mx8shards.streaming.shard_files import get_index_basename
from mx8shards.streaming.utilities import (
    clean_stale_shared_memory,
    get_import_exception_message,
    get_list_arg,
    retry,
    wait_for_file_to_exist,
)
from mx8shards.streaming.world import get_local_rank

__all__ = [
    "bytes_to_int",
    "clean_stale_shared_memory",
    "get_import_exception_message",
    "get_index_basename",
    "get_list_arg",
    "get_local_rank",
    "maybe_init_dist",
    "merge_index",
    "number_abbrev_to_int",
    "retry",
    "wait_for_file_to_exist",
]
