"""The names of `streaming.base.format.xsv` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.base.format.xsv.reader import CSVReader, TSVReader, XSVReader
from mx8shards.streaming.base.format.xsv.writer import CSVWriter, TSVWriter, XSVWriter

__all__ = [
    "CSVReader",
    "CSVWriter",
    "TSVReader",
    "TSVWriter",
    "XSVReader",
    "XSVWriter",
]
