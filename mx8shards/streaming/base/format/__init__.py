"""The names of `streaming.base.format` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.mds_writer import MDSWriter
from mx8shards.streaming.shard_files import FileInfo, get_index_basename
from mx8shards.streaming.shard_files import ShardReader as Reader
from mx8shards.streaming.split_writers import (
    CSVWriter,
    JSONWriter,
    TSVWriter,
    XSVWriter,
)
from mx8shards.streaming.stream_opening import reader_from_json

__all__ = [
    "CSVWriter",
    "FileInfo",
    "JSONWriter",
    "MDSWriter",
    "Reader",
    "TSVWriter",
    "XSVWriter",
    "get_index_basename",
    "reader_from_json",
]
