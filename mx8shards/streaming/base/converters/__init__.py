"""The names of `streaming.base.converters` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.base.converters.dataframe_to_mds import dataframe_to_mds, infer_dataframe_schema
from mx8shards.streaming.dataframe_columns import SPARK_TO_MDS, is_json_compatible

__all__ = [
    "SPARK_TO_MDS",
    "dataframe_to_mds",
    "infer_dataframe_schema",
    "is_json_compatible",
]
