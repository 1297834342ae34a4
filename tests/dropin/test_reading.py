"""Are samples that are read many at once equal to those read one by one, and what if one is damaged?"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mx8shards.streaming import LocalDataset, MDSWriter, Stream, StreamingDataset
from tests.strategies import EVERY_COLUMN, EVERY_SAMPLE, same


@pytest.mark.parametrize("columns", [1, 2, 3, len(EVERY_COLUMN)])
def test_many_samples_at_once_equal_single_ones(columns: int, tmp_path: Path) -> None:
    names = list(EVERY_COLUMN)[:columns]
    with MDSWriter(
        out=str(tmp_path), columns={name: EVERY_COLUMN[name] for name in names}, size_limit="64kb"
    ) as writer:
        for i in range(60):
            writer.write(EVERY_SAMPLE[i % 3])
    dataset = StreamingDataset(local=str(tmp_path), batch_size=10, shuffle=True, allow_unsafe_types=True)
    local = LocalDataset(str(tmp_path), allow_unsafe_types=True)
    count = 0
    for found, at in zip(dataset, order_of(dataset), strict=True):
        assert list(found) == sorted(names)
        for name, expected in local[at].items():
            assert same(found[name], expected)
            assert type(found[name]) is type(expected)
        count += 1
    assert count == 60


def order_of(dataset: StreamingDataset) -> list[int]:
    dataset.state_dict(0, True)  # it sets what follows from other settings
    _, make = dataset._planned(dataset._parallel_rank_world, 0, 0, 10)
    plan = make()
    return [i for i in plan.at(np.arange(len(plan))).tolist() if i >= 0]


def test_streams_with_different_columns_are_read_alternately(tmp_path: Path) -> None:
    for name in ("text", "number"):
        with MDSWriter(out=str(tmp_path / name), columns={name: "str"}) as writer:
            for i in range(40):
                writer.write({name: f"{i}"})
    streams = [Stream(local=str(tmp_path / name)) for name in ("text", "number")]
    found = list(StreamingDataset(streams=streams, batch_size=4, shuffle=True, shuffle_algo="naive"))
    assert sorted(found, key=str) == sorted(({n: f"{i}"} for n in ("text", "number") for i in range(40)), key=str)


@pytest.mark.parametrize("bad", [0, 25, 59])
def test_samples_before_a_damaged_one_are_given_and_the_error_names_it(bad: int, tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path), columns={"id": "int", "text": "str"}) as writer:
        for i in range(60):
            writer.write({"id": i, "text": f"text of {i:03}"})
    path = tmp_path / "shard.00000.mds"
    path.write_bytes(path.read_bytes().replace(f"text of {bad:03}".encode(), b"\xff" * 11))
    found: list[Any] = []
    with pytest.raises(ValueError, match=rf"shard\.00000\.mds: sample {bad} of this shard, column 'text'"):
        found.extend(each["id"] for each in StreamingDataset(local=str(tmp_path), batch_size=4))
    assert found == list(range(bad))


def test_an_error_that_is_thrown_into_an_iteration_ends_it(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path), columns={"x": "int"}) as writer:
        for i in range(30):
            writer.write({"x": i})
    samples = iter(StreamingDataset(local=str(tmp_path), batch_size=4))
    assert next(samples) == {"x": 0}
    assert isinstance(samples, Generator)
    with pytest.raises(ValueError, match="of the caller"):
        samples.throw(ValueError("of the caller"))  # Streaming raises it, too


def test_values_are_writable_and_their_own(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path), columns={"x": "ndarray:int32:8", "y": "ndarray"}) as writer:
        for i in range(30):
            writer.write({"x": np.full(8, i, np.int32), "y": np.full((2, 2), i, np.float64)})
    dataset = StreamingDataset(local=str(tmp_path), batch_size=4)
    for each in (*list(dataset), dataset[3]):
        each["x"] += 1
        each["y"] *= 0
    assert [each["x"][0] for each in dataset] == list(range(30))
    assert dataset[3]["y"].tolist() == [[3, 3], [3, 3]]


def test_a_truncated_shard_is_an_error(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path), columns={"x": "bytes"}) as writer:
        for _ in range(30):
            writer.write({"x": b"x" * 100})
    dataset = StreamingDataset(local=str(tmp_path), batch_size=4)
    assert len(list(dataset)) == 30
    path = tmp_path / "shard.00000.mds"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 50)
    with pytest.raises(ValueError, match=r"shard\.00000\.mds"):
        list(dataset)
