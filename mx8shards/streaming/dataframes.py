"""How does a Spark or pandas data frame, or an Arrow table, become an MDS dataset? The function dataframe_to_mds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mx8shards.errors import SchemaError, SettingError, require, shown
from mx8shards.shards.links import is_url
from mx8shards.streaming.dataframe_columns import infer_dataframe_schema, is_arrow, is_pandas, is_spark
from mx8shards.streaming.mds_writer import MDSWriter
from mx8shards.streaming.merged_index import merge_index as merge_indices

__all__ = ["dataframe_to_mds", "infer_dataframe_schema"]

Records = Callable[..., Iterable[Mapping[str, Any]]]


def dataframe_to_mds(
    dataframe: Any,
    merge_index: bool = True,
    mds_kwargs: Mapping[str, Any] | None = None,
    udf_iterable: Records | None = None,
    udf_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Write a data frame as an MDS dataset, each partition of Spark into a sub-directory. Returns `(local, remote)`.

    Args:
        dataframe: A Spark or pandas data frame, or an Arrow table or record batch. Spark's executors write its
            partitions, so their `out` must be a place that all machines share.
        merge_index: Whether to write one index of all partitions.
        mds_kwargs: The arguments of MDSWriter. `out` is necessary; `columns` follows from the data frame if it is
            missing, and `compression` is `"zstd"` if it is missing.
        udf_iterable: A function that returns the samples of a pandas data frame, for other columns than its own. It
            needs `columns` in `mds_kwargs`.
        udf_kwargs: Further arguments of that function.
    """
    writing = {"compression": "zstd", **(mds_kwargs or {})}
    if "out" not in writing:
        raise SettingError(subject="mds_kwargs", expected="`out` and `columns`", found=shown(sorted(writing)))
    if _is_empty(dataframe):
        raise SettingError(subject="dataframe", expected="a data frame with rows", found="none, or an empty one")
    if udf_iterable is not None and "columns" not in writing:
        raise SettingError(subject="mds_kwargs", expected="`columns` beside udf_iterable", found="none")
    if udf_iterable is None:
        inferred = infer_dataframe_schema(dataframe, writing.get("columns"))
        writing["columns"] = writing.get("columns") or inferred
    local, remote = _places(writing.pop("out"))
    writing["keep_local"] = bool(writing.get("keep_local", False)) or not remote
    records = _Records(udf_iterable, dict(udf_kwargs or {}))
    if is_spark(dataframe):
        indices = _written_by_spark(dataframe, _Partitions(local, remote, writing, records))
    else:
        batches = _pandas_batches(dataframe) if udf_iterable is not None else [dataframe]
        indices = [_write(local, remote, "0", writing, map(records, batches))]
    if merge_index:
        merge_indices(indices, _target(local, remote), keep_local=writing["keep_local"])
    return local, remote


def _places(out: Any) -> tuple[str, str]:
    """The local directory, and the URL or the other directory; "" for one that is not given."""
    if isinstance(out, tuple | list):
        return str(out[0]), str(out[1])
    return ("", os.fspath(out)) if is_url(os.fspath(out)) else (os.fspath(out), "")


def _target(local: str, remote: str) -> Any:
    """The two places as a writer's `out`."""
    return (local, remote) if local and remote else local or remote


def _is_empty(frame: Any) -> bool:
    if frame is None:
        return True
    if is_spark(frame):
        empty = getattr(frame, "isEmpty", None)
        return bool(empty()) if callable(empty) else frame.rdd.isEmpty()
    return len(frame) == 0


class _Records:
    """The samples of one part of a data frame. It is pickled to Spark's executors."""

    def __init__(self, own: Records | None, arguments: dict[str, Any]) -> None:
        self._own = own
        self._arguments = arguments

    def __call__(self, part: Any) -> Iterable[Mapping[str, Any]]:
        if self._own is not None:
            return self._own(part, **self._arguments)
        found: Iterable[Mapping[str, Any]] = part.to_pylist() if is_arrow(part) else part.to_dict("records")
        return found


class _Partitions:
    """Writes the partitions of a Spark data frame: a function that mapInPandas calls in the executors."""

    def __init__(self, local: str, remote: str, writing: Mapping[str, Any], records: _Records) -> None:
        self._local = local
        self._remote = remote
        self._writing = writing
        self._records = records

    def __call__(self, parts: Iterator[Any]) -> Iterator[Any]:
        context = require("pyspark", None).TaskContext.get()
        name = str(context.taskAttemptId())
        found = _write(self._local, self._remote, name, self._writing, map(self._records, parts))
        pandas = require("pandas", None)
        yield pandas.DataFrame({"mds_path_local": [found[0]], "mds_path_remote": [found[1]]})


def _written_by_spark(frame: Any, write: _Partitions) -> list[tuple[str, str]]:
    rows = frame.mapInPandas(write, schema="mds_path_local string, mds_path_remote string").collect()
    return [(row["mds_path_local"], row["mds_path_remote"]) for row in rows]


def _pandas_batches(frame: Any) -> Iterable[Any]:
    return [frame.to_pandas()] if is_arrow(frame) and not is_pandas(frame) else [frame]


def _write(
    local: str, remote: str, name: str, writing: Mapping[str, Any], parts: Iterable[Iterable[Mapping[str, Any]]]
) -> tuple[str, str]:
    """Write one partition into the sub-directory `name`; the paths of its index."""
    local, remote = local and f"{local}/{name}", remote and f"{remote}/{name}"
    columns = writing["columns"]
    with MDSWriter(out=_target(local, remote), **writing) as writer:
        for part in parts:
            for record in part:
                writer.write({name: _value(name, columns[name], record[name]) for name in columns if name in record})
    return local and f"{local}/index.json", remote and f"{remote}/index.json"


def _value(name: str, encoding: str, value: Any) -> Any:
    """A value as its encoding wants it: an array of the dtype for lists."""
    if not encoding.startswith("ndarray:") or isinstance(value, bytes):
        return value
    dtype = np.dtype(encoding.split(":")[1])
    try:
        found = np.asarray(value)
        if found.dtype.kind == "f" and dtype.kind in "iu":  # NumPy would round
            raise TypeError("fractions")
        return found if found.dtype == dtype else np.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        hint = "mds_kwargs={'columns': …} may give another encoding"
        raise SchemaError(
            subject=f"column {name!r}", expected=f"values that fit {encoding}", found=shown(value), hint=hint
        ) from error
