"""The names of `streaming.base.format` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.base.format.base import FileInfo, Reader
from mx8shards.streaming.base.format.index import get_index_basename
from mx8shards.streaming.base.format.json import JSONReader, JSONWriter
from mx8shards.streaming.base.format.mds import MDSReader, MDSWriter
from mx8shards.streaming.base.format.xsv import CSVReader, CSVWriter, TSVReader, TSVWriter, XSVReader, XSVWriter
from mx8shards.streaming.stream_opening import reader_from_json

__all__ = [
    "CSVReader",
    "CSVWriter",
    "FileInfo",
    "JSONReader",
    "JSONWriter",
    "MDSReader",
    "MDSWriter",
    "Reader",
    "TSVReader",
    "TSVWriter",
    "XSVReader",
    "XSVWriter",
    "get_index_basename",
    "reader_from_json",
]
