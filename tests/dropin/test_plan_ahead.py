"""Is the order of the next epoch computed ahead, and is it used only if nothing has changed?"""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, get_worker_info

from mx8shards.order.mosaicml.epoch_plan import plan_epoch
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.stream_weights import StreamWeight, resolve_streams
from mx8shards.streaming import StreamingDataLoader, StreamingDataset, plan_ahead, plan_before_fork, streaming_dataset
from mx8shards.streaming.worker_samples import worker_runs
from mx8shards.streaming.world import World
from tests.waiting import wait_until


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


EXITS_WHILE_PLANNING = """
import atexit

atexit.register(lambda: print("given up:", isinstance(making.exception(), SystemExit)))  # called after later handlers

import numpy as np
from mx8shards.loading.execution import threads
from mx8shards.order.mosaicml.epoch_plan import plan_epoch
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.stream_weights import StreamWeight, resolve_streams
from mx8shards.order.mosaicml.training_world import World
from mx8shards.streaming.plan_ahead import PlanAhead

threads.JOIN_S = 600.0  # a busy machine takes long to give it up, too
sizes = np.full(1000, 10**6)
settings = EpochSettings(
    samples_per_shard=sizes,
    shards_per_stream=np.array([len(sizes)]),
    shares=resolve_streams([StreamWeight()], np.array([sizes.sum()]), None, 0),
    batch_size=1,
    num_canonical_nodes=1,
    shuffle=True,
)
ahead = PlanAhead()
ahead.begin(int(sizes.sum()), "key", lambda: plan_epoch(settings, World(), 0))
making = ahead._made
DROPPED
print("planning:", not making.done())
"""


@pytest.mark.parametrize("dropped", ["", "del ahead"], ids=["with the dataset", "without the dataset"])
def test_a_process_that_ends_gives_up_the_order_of_the_next_epoch(dropped: str) -> None:
    code = EXITS_WHILE_PLANNING.replace("DROPPED", dropped)  # of a billion samples, which takes minutes
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("planning: True\ngiven up: True\n", "")


def test_an_error_is_raised_when_its_epoch_begins(numbers: Path, small_ones: None) -> None:
    dataset = make(numbers)
    epochs(dataset, 1)
    dataset.shuffle_algo = "none"
    with pytest.raises(ValueError, match="shuffle_algo"):
        epochs(dataset, 1)


@pytest.mark.parametrize("kind", [StreamingDataLoader, DataLoader])
def test_forked_workers_share_the_order_of_their_rank(
    kind: type, numbers: Path, small_ones: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(plan_before_fork, "_plans", {})
        expected = epochs(make(numbers), 3, num_workers=2, multiprocessing_context="fork")
    process, plan_epoch, planned = os.getpid(), streaming_dataset.plan_epoch, []

    def planned_in_this_process_only(*arguments: Any, **settings: Any) -> Any:
        assert os.getpid() == process
        planned.append(arguments[2])
        return plan_epoch(*arguments, **settings)

    monkeypatch.setattr(streaming_dataset, "plan_epoch", planned_in_this_process_only)
    loader = kind(make(numbers), batch_size=8, num_workers=2, multiprocessing_context="fork")
    assert [[i for batch in loader for i in batch["id"].tolist()] for _ in range(3)] == expected
    wait_until(lambda: len(planned) == 4)
    assert planned == [0, 1, 2, 3]  # each once, and the next one ahead


class PlannedByTheParent(StreamingDataset):
    """Its workers cannot plan."""

    def _planned(self, *arguments: Any, **settings: Any) -> tuple[Any, Callable[[], Any]]:
        key, make = super()._planned(*arguments, **settings)
        return key, make if get_worker_info() is None else pytest.fail


def test_a_spawned_worker_gets_the_order_of_its_rank(numbers: Path) -> None:
    dataset = PlannedByTheParent(local=str(numbers / "a"), batch_size=8, shuffle=True)
    expected = epochs(make(numbers), 1, num_workers=1)
    assert epochs(dataset, 1, num_workers=1, multiprocessing_context="spawn") == expected


def test_a_spawned_worker_plans_for_itself_where_there_are_no_files_in_memory(
    numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = epochs(make(numbers), 1, num_workers=1)
    monkeypatch.setattr(os, "memfd_create", full)
    assert epochs(make(numbers), 1, num_workers=1, multiprocessing_context="spawn") == expected


def full(_name: str) -> int:
    raise OSError(errno.ENOMEM, "no memory is left")


class Slotted(StreamingDataset):
    """A subclass with an attribute that is not in its `__dict__`."""

    __slots__ = ("note",)


def test_slots_of_a_subclass_are_copied(numbers: Path) -> None:
    dataset = Slotted(local=str(numbers / "a"), batch_size=8)
    dataset.note = "kept"
    assert pickle.loads(pickle.dumps(dataset)).note == "kept"


def test_other_copies_of_a_dataset_have_no_order(numbers: Path) -> None:
    dataset = make(numbers)
    dataset._plan_for_workers(2, 8)
    assert dataset._ahead._shared is not None
    assert pickle.loads(pickle.dumps(dataset))._ahead._shared is None


def test_the_settings_of_a_forked_epoch_that_cannot_be_planned_are_an_error_of_its_workers(numbers: Path) -> None:
    dataset = make(numbers)
    dataset.shuffle_algo = "none"
    with pytest.raises(ValueError, match="shuffle_algo"):
        list(DataLoader(dataset, batch_size=8, num_workers=2, multiprocessing_context="fork"))


def read_and_wait(loader: DataLoader[Any]) -> None:
    for _ in loader:
        pass
    time.sleep(60)  # the interrupt may come after a short epoch


def test_ctrl_c_while_a_plan_is_made_before_a_fork_ends_the_iteration(
    numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, plan_epoch = os.getpid(), streaming_dataset.plan_epoch

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        if os.getpid() == process:
            raise KeyboardInterrupt
        return plan_epoch(*arguments, **settings)

    loader = DataLoader(make(numbers), batch_size=8, num_workers=1, multiprocessing_context="fork")
    monkeypatch.setattr(streaming_dataset, "plan_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_and_wait(loader)


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


def test_reading_an_order_without_shuffling_takes_no_memory_for_it() -> None:
    count = 10**9
    shares = resolve_streams([StreamWeight()], np.array([count]), None, 0)
    settings = EpochSettings(
        samples_per_shard=np.array([count]),
        shards_per_stream=np.array([1]),
        shares=shares,
        batch_size=1,
        num_canonical_nodes=1,
    )
    plan = plan_epoch(settings, World(1, 1, 1, 0).counts, 0)
    tracemalloc.start()
    first = next(worker_runs(plan, World(1, 1, 1, 0)))
    assert first.tolist() == list(range(len(first)))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
