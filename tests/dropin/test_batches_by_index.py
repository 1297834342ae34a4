"""Are the samples of a batch that a DataLoader asks for by index those of `dataset[i]`?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Subset

from mx8shards.streaming import LocalDataset, MDSWriter, StreamingDataset

COUNT = 200


class Negated(StreamingDataset):
    """Changes its samples."""

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        return -super().get_item(sample_id, retry)["id"]


@pytest.fixture
def root(tmp_path: Path) -> str:
    with MDSWriter(out=str(tmp_path), columns={"id": "int", "x": "ndarray:int32:8"}, size_limit="2kb") as writer:
        for i in range(COUNT):
            writer.write({"id": i, "x": np.full(8, i, np.int32)})
    return str(tmp_path)


@pytest.fixture(params=[StreamingDataset, LocalDataset])
def dataset(request: pytest.FixtureRequest, root: str) -> Any:
    return request.param(local=root)


def test_a_batch_has_the_samples_of_its_indices(dataset: Any) -> None:
    at = [*range(60), 199, 0, -1, *np.arange(60, 90)]
    found = dataset.__getitems__(at)
    assert [sample["id"] for sample in found] == [i % COUNT for i in at]
    assert all((sample["x"] == sample["id"]).all() and sample["x"].flags.writeable for sample in found)
    assert dataset.__getitems__([]) == []


def test_forked_workers_read_the_batches_of_a_subset(dataset: Any) -> None:
    order = np.random.default_rng(1).permutation(COUNT).tolist()
    loader = DataLoader(Subset(dataset, order), batch_size=64, num_workers=2, multiprocessing_context="fork")
    assert [i for batch in loader for i in batch["id"].tolist()] == order


def test_a_changed_sample_is_changed_in_a_batch(root: str) -> None:
    dataset = Negated(local=root)
    assert dataset.__getitems__([3, 5]) == [-3, -5]
    changed = LocalDataset(root)
    changed.get_item = lambda i: i  # type: ignore[method-assign, assignment, return-value]
    assert changed.__getitems__([3, 5]) == [3, 5]


def test_indices_may_be_slices_and_lists_as_for_one_item(dataset: Any) -> None:
    assert [[each["id"] for each in part] for part in dataset.__getitems__([slice(2), [4, 5]])] == [[0, 1], [4, 5]]


@pytest.mark.parametrize("bad", [COUNT, -COUNT - 1])
def test_an_index_out_of_range_is_an_error(bad: int, dataset: Any) -> None:
    with pytest.raises(IndexError, match=f"sample {bad} of {COUNT}"):
        dataset.__getitems__([0, bad])
