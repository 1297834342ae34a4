"""The names of `streaming.base.format.xsv.reader` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.format_readers import CSVReader, TSVReader, XSVReader

__all__ = [
    "CSVReader",
    "TSVReader",
    "XSVReader",
]
