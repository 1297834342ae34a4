"""The names of `streaming.base.converters.dataframe_to_mds` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.dataframe_columns import SPARK_TO_MDS, infer_dataframe_schema, is_json_compatible
from mx8shards.streaming.dataframes import dataframe_to_mds

__all__ = [
    "SPARK_TO_MDS",
    "dataframe_to_mds",
    "infer_dataframe_schema",
    "is_json_compatible",
]
