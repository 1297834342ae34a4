"""Do Spark and pandas data frames and Arrow tables become MDS datasets?

None of the three packages is installed for the tests, as they take 600 MB. These stand-ins have the methods that are
used. `test_real_dataframes` needs the packages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mx8shards.streaming import LocalDataset, StreamingDataset
from mx8shards.streaming.base.converters import dataframe_to_mds, infer_dataframe_schema

COLUMNS: dict[str, list[Any]] = {
    "id": [1, 2, 3, 4],
    "text": ["a", "bb", "", "ü"],
    "score": [0.5, 1.5, 2.5, 3.5],
    "tokens": [[1, 2], [3], [4, 5, 6], [7]],
}


class PandasColumn(list[Any]):
    dtype: Any = "object"


class PandasFrame:
    """What this package uses of a pandas data frame."""

    def __init__(self, values: dict[str, list[Any]]) -> None:
        self.values = values
        self.columns = list(values)
        self.dtypes = None

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, name: str) -> PandasColumn:
        found = PandasColumn(self.values[name])
        if isinstance(found[0], int | float):
            found.dtype = np.array(found).dtype
        return found

    def itertuples(self) -> Any:
        return zip(*self.values.values(), strict=True)

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [dict(zip(self.columns, row, strict=True)) for row in self.itertuples()]


class ArrowTable:
    """What this package uses of an Arrow table."""

    def __init__(self, values: dict[str, list[Any]], types: list[Any]) -> None:
        self._values = values
        self.column_names = list(values)
        self.schema = SimpleNamespace(names=list(values), types=types)

    def __len__(self) -> int:
        return len(next(iter(self._values.values())))

    def to_batches(self) -> list[Any]:
        raise NotImplementedError

    def to_pylist(self) -> list[dict[str, Any]]:
        return PandasFrame(self._values).to_dict("records")


class ArrowType:
    def __init__(self, name: str, value_type: str = "") -> None:
        self._name = name
        self.value_type = value_type

    def __str__(self) -> str:
        return self._name


def spark_type(name: str, **more: Any) -> Any:
    return type(name, (), more)()


class SparkFrame:
    """What this package uses of a Spark data frame: its partitions are pandas data frames."""

    def __init__(self, types: dict[str, Any], partitions: list[PandasFrame]) -> None:
        self.schema = [SimpleNamespace(name=name, dataType=kind) for name, kind in types.items()]
        self.columns = list(types)
        self._partitions = partitions
        self._rows: list[Any] = []

    def isEmpty(self) -> bool:
        return not self._partitions

    def mapInPandas(self, func: Callable[[Iterator[Any]], Iterator[Any]], schema: Any) -> SparkFrame:
        for number, part in enumerate(self._partitions):
            TaskContext.number = number
            for found in func(iter([part])):
                self._rows += PandasFrame(found.values).to_dict("records")
        return self

    def collect(self) -> list[Any]:
        return self._rows


class TaskContext:
    number = 0

    @classmethod
    def get(cls) -> Any:
        return SimpleNamespace(taskAttemptId=lambda: cls.number)


SPARK = {
    "id": spark_type("LongType"),
    "text": spark_type("StringType"),
    "score": spark_type("DoubleType"),
    "tokens": spark_type("ArrayType", elementType=spark_type("IntegerType")),
}


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch) -> SparkFrame:
    """A data frame of two partitions, and the modules that its executors import."""
    for name, attributes in {"pyspark": {"TaskContext": TaskContext}, "pandas": {"DataFrame": PandasFrame}}.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    parts = [{name: values[i : i + 2] for name, values in COLUMNS.items()} for i in (0, 2)]
    return SparkFrame(SPARK, [PandasFrame(part) for part in parts])


def check(dataset: Any) -> None:
    found = list(dataset)
    for name, values in COLUMNS.items():
        assert [np.asarray(each[name]).tolist() for each in found] == values


def test_the_partitions_of_spark_are_written_apart_and_merged(spark: SparkFrame, tmp_path: Path) -> None:
    assert infer_dataframe_schema(spark) == {
        "id": "int64",
        "text": "str",
        "score": "float64",
        "tokens": "ndarray:int32",
    }
    places = dataframe_to_mds(spark, merge_index=True, mds_kwargs={"out": str(tmp_path / "out")})
    assert places == (str(tmp_path / "out"), "")
    assert sorted(path.parent.name for path in (tmp_path / "out").glob("*/index.json")) == ["0", "1"]
    check(StreamingDataset(local=str(tmp_path / "out"), batch_size=1))


def test_spark_writes_into_a_store_without_leaving_local_files(spark: SparkFrame, bucket: str, tmp_path: Path) -> None:
    local = tmp_path / "local"
    dataframe_to_mds(spark, mds_kwargs={"out": (str(local), bucket), "columns": infer_dataframe_schema(spark)})
    assert not local.exists()
    check(StreamingDataset(remote=bucket, local=str(tmp_path / "cache"), batch_size=1))


def test_an_own_function_makes_the_samples(spark: SparkFrame, tmp_path: Path) -> None:
    def doubled(frame: Any, factor: int) -> Iterator[dict[str, Any]]:
        for row in frame.to_dict("records"):
            yield {"x": factor * row["id"]}

    writing = {"out": str(tmp_path / "out"), "columns": {"x": "int"}}
    dataframe_to_mds(spark, mds_kwargs=writing, udf_iterable=doubled, udf_kwargs={"factor": 2})
    assert [each["x"] for each in LocalDataset(str(tmp_path / "out"))] == [2, 4, 6, 8]
    assert (tmp_path / "out/0/shard.00000.mds.zstd").exists()


def test_a_pandas_frame_is_one_partition(tmp_path: Path) -> None:
    arrays = [np.array(values, np.int32) for values in COLUMNS["tokens"]]
    dataframe_to_mds(PandasFrame({**COLUMNS, "tokens": arrays}), mds_kwargs={"out": str(tmp_path / "out")})
    check(LocalDataset(str(tmp_path / "out")))


@pytest.mark.parametrize("values", [[[1], [0.5]], [[1], [None]]], ids=str)
def test_lists_that_do_not_fit_the_first_one_are_an_error(values: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="column 'x': expected values that fit ndarray:int64"):
        dataframe_to_mds(PandasFrame({"x": values}), mds_kwargs={"out": str(tmp_path / "out")})


def test_an_arrow_table_is_one_partition(tmp_path: Path) -> None:
    types = [ArrowType("int64"), ArrowType("string"), ArrowType("double"), ArrowType("list<item: int32>", "int32")]
    dataframe_to_mds(ArrowTable(COLUMNS, types), mds_kwargs={"out": str(tmp_path / "out"), "compression": None})
    check(LocalDataset(str(tmp_path / "out")))


def test_types_without_an_encoding_are_an_error() -> None:
    frame = SparkFrame({"when": spark_type("TimestampType")}, [])
    with pytest.raises(ValueError, match="when"):
        infer_dataframe_schema(frame)
    with pytest.raises(ValueError, match="when"):
        infer_dataframe_schema(frame, {"when": "int64"})
    with pytest.raises(ValueError, match="other"):
        infer_dataframe_schema(frame, {"other": "int64"})


@pytest.mark.parametrize(("encoding", "fits"), [("json", True), ("png", False), ("str", True), ("bytes", False)])
def test_given_encodings_are_compared_with_sparks_types(encoding: str, fits: bool) -> None:
    frame = SparkFrame({"x": spark_type("StringType")}, [])
    if fits:
        assert infer_dataframe_schema(frame, {"x": encoding}) is None
    else:
        with pytest.raises(ValueError, match="'x'"):
            infer_dataframe_schema(frame, {"x": encoding})


@pytest.mark.parametrize("writing", [None, {"columns": {}}])
def test_the_place_to_write_to_is_necessary(writing: Any) -> None:
    with pytest.raises(ValueError, match="out"):
        dataframe_to_mds(PandasFrame(COLUMNS), mds_kwargs=writing)


@pytest.mark.parametrize("frame", [None, PandasFrame({"x": []}), SparkFrame(SPARK, [])])
def test_an_empty_frame_is_an_error(frame: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with rows"):
        dataframe_to_mds(frame, mds_kwargs={"out": str(tmp_path)})
