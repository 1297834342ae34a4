"""Is the order of the next epoch computed ahead, and is it used only if nothing has changed?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mx8shards.streaming import StreamingDataLoader, StreamingDataset, plan_ahead, streaming_dataset


@pytest.fixture
def small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders of small epochs are computed ahead, too."""
    monkeypatch.setattr(plan_ahead, "_LEAST_SAMPLES", 1)


def epochs(dataset: StreamingDataset, count: int, **settings: object) -> list[list[int]]:
    loader = StreamingDataLoader(dataset, batch_size=8, **settings)
    return [[i for batch in loader for i in batch["id"].tolist()] for _ in range(count)]


def make(numbers: Path) -> StreamingDataset:
    return StreamingDataset(local=str(numbers / "a"), batch_size=8, shuffle=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_orders_computed_ahead_are_the_same(workers: int, numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = epochs(make(numbers), 3, num_workers=workers)
    monkeypatch.setattr(plan_ahead, "_LEAST_SAMPLES", 1)
    assert epochs(make(numbers), 3, num_workers=workers, persistent_workers=workers > 0) == expected


def test_a_changed_setting_gives_another_order(numbers: Path, small_ones: None) -> None:
    dataset, other = make(numbers), make(numbers)
    epochs(dataset, 1)
    assert dataset._ahead._made is not None
    dataset.shuffle_seed = other.shuffle_seed = 5
    other.next_epoch = 1
    assert epochs(dataset, 1) == epochs(other, 1)
    dataset.load_state_dict({**dataset.state_dict(0, True), "epoch": 6, "sample_in_epoch": 16})
    other.next_epoch = 6
    assert epochs(dataset, 1)[0] == epochs(other, 1)[0][16:]


def test_an_error_is_raised_when_its_epoch_begins(numbers: Path, small_ones: None) -> None:
    dataset = make(numbers)
    epochs(dataset, 1)
    dataset.shuffle_algo = "none"
    with pytest.raises(ValueError, match="shuffle_algo"):
        epochs(dataset, 1)


def test_forked_workers_share_the_order_of_their_rank(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = epochs(make(numbers), 3, num_workers=2, multiprocessing_context="spawn")
    process, plan_epoch = os.getpid(), streaming_dataset.plan_epoch

    def planned_in_this_process_only(*arguments: Any, **settings: Any) -> Any:
        assert os.getpid() == process
        return plan_epoch(*arguments, **settings)

    monkeypatch.setattr(streaming_dataset, "plan_epoch", planned_in_this_process_only)
    assert epochs(make(numbers), 3, num_workers=2, multiprocessing_context="fork") == expected


@pytest.mark.parametrize("persistent", [False, True])
def test_forked_workers_resume_where_a_state_says(persistent: bool, numbers: Path, small_ones: None) -> None:
    whole = epochs(make(numbers), 4, num_workers=2)
    dataset = make(numbers)
    loader = StreamingDataLoader(dataset, batch_size=8, num_workers=2, persistent_workers=persistent)
    for _ in loader:
        pass
    loader.load_state_dict({**dataset.state_dict(0, True), "epoch": 2, "sample_in_epoch": 32})
    found = [[i for batch in loader for i in batch["id"].tolist()] for _ in range(2)]
    assert found == [whole[2][32:], whole[3]]
