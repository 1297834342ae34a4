"""The names of `streaming.base.converters` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.dataframes import dataframe_to_mds, infer_dataframe_schema

__all__ = [
    "dataframe_to_mds",
    "infer_dataframe_schema",
]
