"""The names of `streaming.base.format.xsv.writer` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.split_writers import CSVWriter, TSVWriter, XSVWriter

__all__ = [
    "CSVWriter",
    "TSVWriter",
    "XSVWriter",
]
