"""Is a whole column equal to the samples' values, from shards and from side-cars?"""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards import dataset as dataset_module
from mx8shards.format.encodings import get_encoding
from mx8shards.shards import column_values as columns_module
from tests import reference
from tests.strategies import ARRAY_DTYPES, NUMBERED, numbered_samples, same

SCALARS = {"int": "int", **{name: name for name in ARRAY_DTYPES}}
MIXED = {**SCALARS, "blob": "bytes", "fixed": "ndarray:int16:2,3", "long": "ndarray:float64:20", "text": "str"}


def mixed_samples(count: int) -> list[dict[str, Any]]:
    return [
        {
            **dict.fromkeys(SCALARS, i % 100),
            "blob": bytes(i % 7),
            "fixed": np.full((2, 3), i, "int16"),
            "long": np.arange(20) + float(i),
            "text": f"#{i}",
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module", params=[None, "zstd"], ids=["raw", "zstd"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("columns") / "data"
    for mode, part in (("create", mixed_samples(60)[:35]), ("append", mixed_samples(60)[35:])):
        with mx8.Writer(root, columns=MIXED, compression=request.param, size_limit=6000, mode=mode) as writer:  # type: ignore[arg-type]
            for sample in part:
                writer.write(sample)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "data")


@pytest.mark.parametrize("sidecars", [True, False], ids=["side-cars", "shards"])
@pytest.mark.parametrize("name", [*SCALARS, "fixed", "long"])
def test_a_column_of_equal_shapes_is_an_array_of_its_dtype(name: str, sidecars: bool, root: Path) -> None:
    if not sidecars:
        shutil.rmtree(root / ".mx8shards" / "sidecars")
    dataset = mx8.Dataset(root)
    values = dataset.column(name)
    assert isinstance(values, np.ndarray)
    assert values.dtype == get_encoding(MIXED[name]).dtype
    wanted = np.array([sample[name] for sample in dataset], values.dtype)
    assert same(values, wanted)
    values[...] = 0  # changing it does not change the dataset
    assert same(dataset.column(name), wanted)


@pytest.mark.parametrize("name", ["blob", "text"])
def test_a_column_of_different_sizes_is_a_lazy_sequence(name: str, root: Path) -> None:
    dataset = mx8.Dataset(root, columns=["int", name])
    values = dataset.column(name)
    wanted = [sample[name] for sample in mixed_samples(60)]
    assert len(values) == 60
    assert list(values) == wanted
    assert list(reversed(values)) == wanted[::-1]  # type: ignore[call-overload]
    assert (values[3], values[-1], values[50:]) == (wanted[3], wanted[-1], wanted[50:])
    assert wanted[5] in values
    with pytest.raises(IndexError):
        values[60]


def test_a_lazy_column_can_be_read_after_the_dataset_is_closed(root: Path) -> None:
    with mx8.Dataset(root) as dataset:
        values = dataset.column("text")
        assert values[0] == "#0"
        assert repr(values) == "<RaggedColumn text: 60 values>"
    assert values[1] == "#1"


def test_columns_in_side_cars_are_read_without_opening_shards(root: Path) -> None:
    for shard in root.glob("shard.*"):
        shard.unlink()
    assert mx8.Dataset(root).column("int").tolist() == list(range(60))
    with pytest.raises(mx8.DatasetNotFoundError):
        mx8.Dataset(root).column("fixed")


def test_shards_give_the_values_that_side_cars_lack(root: Path) -> None:
    """Two side-cars, one of them removed."""
    (root / ".mx8shards" / "sidecars" / sidecars(root)["columns"][0]).unlink()
    assert mx8.Dataset(root).column("int").tolist() == list(range(60))
    assert mx8.Dataset(root).select([40, 3]).column("int").tolist() == [40, 3]


def sidecars(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"blocks": [], "columns": []}
    for entry in reference.read_index(root)["mx8shards"]["sidecars"]:
        found[entry["kind"]].append(entry["blake3"])
    return found


def test_columns_of_a_view_have_the_values_of_its_samples(root: Path) -> None:
    view = mx8.Dataset(root).select([59, 0, 0, 30])
    assert view.column("int").tolist() == [59, 0, 0, 30]
    assert view.column("fixed")[:, 0, 0].tolist() == [59, 0, 0, 30]
    assert list(view.column("text")) == ["#59", "#0", "#0", "#30"]


def test_an_empty_view_has_empty_columns_of_the_right_shape(root: Path) -> None:
    view = mx8.Dataset(root).select([])
    assert same(view.column("fixed"), np.zeros((0, 2, 3), "int16"))
    assert same(view.column("float16"), np.zeros(0, "float16"))
    assert list(view.column("text")) == []


def test_an_unknown_column_is_an_error_that_lists_the_columns(root: Path) -> None:
    with pytest.raises(mx8.SettingError, match=r"expected one of 'blob', 'fixed', .* got 'nope'"):
        mx8.Dataset(root).column("nope")


@settings(max_examples=30)
@given(
    shards=st.lists(st.lists(st.binary(max_size=3), max_size=5), max_size=6),
    run=st.integers(1, 7),
    items=st.integers(1, 40),
    picks=st.lists(st.integers(0, 1 << 30), max_size=12),
)
def test_columns_do_not_depend_on_the_sizes_of_shards_runs_and_steps(
    shards: list[list[bytes]], run: int, items: int, picks: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("runs")
    columns = {"a": "bytes", "b": "int", "c": "str", "d": "uint8", "e": "ndarray:uint8:70"}
    count = 0
    made: list[list[dict[str, bytes]]] = []
    for blobs in shards:
        made.append([])
        for blob in blobs:
            numbers = {"b": struct.pack("<q", -count), "d": bytes([count]), "e": bytes([count]) * 70}
            made[-1].append({"a": blob, "c": b"c" * (count % 3), **numbers})
            count += 1
    reference.write_dataset(root, columns, made)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dataset_module, "_RUN", run)
        patched.setattr(columns_module, "_INDEX_ITEMS", items)
        dataset = mx8.Dataset(root)
        if not made:
            assert dataset.columns == {}
            return
        assert dataset.column("b").tolist() == [-i for i in range(count)]
        assert dataset.column("d").tolist() == list(range(count))
        assert dataset.column("e").tolist() == [[i] * 70 for i in range(count)]
        assert list(dataset.column("a")) == [blob for blobs in shards for blob in blobs]
        chosen = [pick % count for pick in picks] if count else []
        assert dataset.select(chosen).column("b").tolist() == [-i for i in chosen]


def test_a_side_car_that_contradicts_its_shard_is_believed_until_verified(tmp_path: Path) -> None:
    """Side-cars are content-addressed, so only their writer can make them wrong; `verify` compares them with shards."""
    root = tmp_path / "data"
    with mx8.Writer(root, columns={"id": "int"}) as writer:
        writer.write({"id": 7})
    (shard,) = root.glob("shard.*")
    data = bytearray(shard.read_bytes())
    data[-8] = 9
    shard.write_bytes(data)
    assert mx8.Dataset(root).column("id").tolist() == [7]
    assert mx8.Dataset(root)[0] == {"id": 9}


@pytest.mark.parametrize("size_bytes", [0, 8, 40])
def test_reading_a_column_of_a_truncated_file_is_an_error(size_bytes: int, tmp_path: Path) -> None:
    root = tmp_path / "data"
    with mx8.Writer(root, columns=NUMBERED) as writer:
        for sample in numbered_samples(30):
            writer.write(sample)
    shutil.rmtree(root / ".mx8shards" / "sidecars")
    dataset = mx8.Dataset(root)
    assert dataset.column("id").tolist() == list(range(30))
    (shard,) = root.glob("shard.*")
    os.truncate(shard, size_bytes)
    with pytest.raises(mx8.FormatError, match="as when it was opened"):
        dataset.column("id")
    with pytest.raises(mx8.FormatError, match="as when it was opened"):
        list(dataset.column("name"))
