"""Do real data frames of pandas, tables of Arrow and data frames of Spark become MDS datasets?

The packages are no part of the extra `test`, as they take 600 MB: `pip install pandas pyarrow "pyspark<4"`, and Java.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mx8shards.streaming import LocalDataset
from mx8shards.streaming.base.converters import dataframe_to_mds, infer_dataframe_schema


@pytest.fixture(scope="module")
def pandas() -> Any:
    return pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def arrow() -> Any:
    return pytest.importorskip("pyarrow")


def written(frame: Any, out: Path, **writing: Any) -> LocalDataset:
    dataframe_to_mds(frame, mds_kwargs={"out": str(out), **writing})
    return LocalDataset(str(out))


VALUES: dict[str, Any] = {
    "count": [1, 2, 3],
    "score": [0.5, 1.5, 2.5],
    "text": ["a", "bb", ""],
    "data": [b"x", b"", b"zz"],
    "price": [Decimal("1.50"), Decimal("2.00"), Decimal("0.01")],
    "tokens": [[1, 2], [3], [4, 5]],
    "weights": [np.array([0.5], np.float32), np.array([1, 2], np.float32), np.array([3], np.float32)],
}
SCHEMA = {
    "count": "int64",
    "score": "float64",
    "text": "str",
    "data": "bytes",
    "price": "str_decimal",
    "tokens": "ndarray:int64",
    "weights": "ndarray:float32",
}


def test_a_pandas_frame_is_written(pandas: Any, tmp_path: Path) -> None:
    frame = pandas.DataFrame(VALUES)
    assert infer_dataframe_schema(frame) == SCHEMA
    found = written(frame.iloc[1:], tmp_path / "out")
    for name, values in VALUES.items():
        assert [np.asarray(each[name]).tolist() for each in found] == [np.asarray(each).tolist() for each in values[1:]]


@pytest.mark.parametrize(
    ("dtype", "values", "encoding"),
    [
        ("Int64", [1, 2], "int64"),
        ("float32", [1, 2], "float32"),
        ("category", ["a", "b"], "str"),
        ("string", ["a", "b"], "str"),
        ("int8[pyarrow]", [1, 2], "int8"),
        ("double[pyarrow]", [1, 2], "float64"),
    ],
)
def test_types_of_pandas_have_the_encodings_of_their_values(
    dtype: str, values: list[Any], encoding: str, pandas: Any, arrow: Any, tmp_path: Path
) -> None:
    frame = pandas.DataFrame({"x": pandas.Series(values, dtype=dtype)})
    assert infer_dataframe_schema(frame) == {"x": encoding}
    assert [each["x"] for each in written(frame, tmp_path / "out")] == values


@pytest.mark.parametrize("values", [[True], [{"a": 1}], [["a"]], [[]], [1, "a"]], ids=str)
def test_pandas_columns_without_an_encoding_are_an_error_that_names_them(values: list[Any], pandas: Any) -> None:
    with pytest.raises(ValueError, match=r"column 'x': expected a type .*give mds_kwargs"):
        infer_dataframe_schema(pandas.DataFrame({"x": values}))
    with pytest.raises(ValueError, match="columns whose names are strings"):
        infer_dataframe_schema(pandas.DataFrame([[1]]))


@pytest.mark.parametrize("values", [[[1], [0.5]], [[1], [None]], [[1], ["a"]]], ids=str)
def test_lists_that_do_not_fit_the_first_one_are_an_error(values: list[Any], pandas: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="column 'x': expected values that fit ndarray:int64"):
        written(pandas.DataFrame({"x": values}), tmp_path / "out")
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("batch", [False, True])
def test_an_arrow_table_is_written(batch: bool, arrow: Any, tmp_path: Path) -> None:
    types = {"weights": arrow.list_(arrow.float32()), "tokens": arrow.large_list(arrow.int64())}
    columns = {name: arrow.array(values, types.get(name)) for name, values in VALUES.items()}
    table = arrow.table({**columns, "kind": arrow.array(["a", "b", "a"]).dictionary_encode()})
    assert infer_dataframe_schema(table) == {**SCHEMA, "kind": "str"}
    found = written(table.to_batches()[0] if batch else table, tmp_path / "out", compression=None)
    assert [each["tokens"].tolist() for each in found] == VALUES["tokens"]
    assert [each["kind"] for each in found] == ["a", "b", "a"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_partitions_of_a_spark_frame_are_written(
    pandas: Any, arrow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        frame = session.createDataFrame(
            [(i, f"text {i}", [i, i + 1]) for i in range(10)], "i long, t string, l array<int>"
        )
        found = written(frame.repartition(3), tmp_path / "out")
        assert sorted(each["i"] for each in found) == list(range(10))
        assert all(each["l"].tolist() == [each["i"], each["i"] + 1] for each in found)
        assert len(list((tmp_path / "out").glob("*/index.json"))) == 3
    finally:
        session.stop()
