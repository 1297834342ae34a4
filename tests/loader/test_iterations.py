"""Are iterations, loaders on one pool, and forked processes independent of each other?"""

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.shards.open_shard import Shards
from mx8shards.views import Whole
from tests.loader.child_process import ChildProcess
from tests.loader.leak_checks import ViewOfWhole, ids_of, no_leaks, shards, time_limit, write

SAMPLES, BATCH = 120, 8
CHILDREN = pytest.mark.parametrize("how", ["del", "stats", "close", "for", "exit", "pool"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("iterations") / "data", SAMPLES)


def loader_of(data: Path | mx8.Dataset, **options: Any) -> mx8.Loader:
    dataset = data if isinstance(data, mx8.Dataset) else mx8.Dataset(data)
    return mx8.Loader(dataset, **{"batch_size": BATCH, "threads": 2, "output": "numpy"} | options)


def all_of(loader: mx8.Loader) -> list[int]:
    return [i for batch in loader for i in ids_of(batch)]


# locks ----------------------------------------------------------------------------------------------------------------


class Trainer:
    """Refers to a loader that refers to it."""

    def __init__(self, dataset: mx8.Dataset, pool: mx8.Pool) -> None:
        self.loader = mx8.Loader(dataset, batch_size=BATCH, pool=pool, transform=self.transform, output="numpy")

    def transform(self, batch: Any) -> Any:
        return batch


def test_a_loader_in_a_cycle_may_be_collected_while_the_memory_lock_is_held(data: Path) -> None:
    with no_leaks(data), mx8.Dataset(data) as dataset:
        pool = mx8.Pool(memory="64mb", threads=2)
        gone = weakref.ref(Trainer(dataset, pool).loader)
        other = mx8.Loader(dataset, batch_size=BATCH, pool=pool, output="numpy")
        shared = other.stats()["memory_limit_bytes"]
        assert gone() is not None
        with pool.memory.lock:
            gc.collect()
            assert gone() is None
        assert all_of(other) == list(range(SAMPLES))
        assert other.stats()["memory_limit_bytes"] > 1.9 * shared
        other.close()
        pool.close()
        del other, pool, dataset


@CHILDREN
def test_a_child_forked_while_the_memory_lock_is_held_does_not_block(
    child_process: ChildProcess, data: Path, how: str
) -> None:
    with time_limit():
        child_process.start("forked_while_locked", data=str(data), how=how)
        assert child_process.read_rest() == (["child 0", f"rest {SAMPLES - BATCH}"], 0)
    assert child_process.errors == ""


# consecutive iterations -----------------------------------------------------------------------------------------------


def test_the_next_for_waits_for_a_slow_transform_of_the_last_one(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"number": "int", "blob": "bytes"}, size_limit="64kb") as writer:
        for i in range(400):
            writer.write({"number": i, "blob": bytes([i % 251]) * 2_000})

    takes_s = 0.3

    def transform(batch: Any) -> Any:
        time.sleep(takes_s)
        return batch

    with no_leaks(tmp_path):
        with loader_of(tmp_path / "data", batch_size=32, memory="64mb") as roomy:
            three_batches = roomy._assembly.budget.memory_for(3 * 65_536)
        loader = loader_of(tmp_path / "data", batch_size=32, memory=three_batches, transform=transform)
        for epoch in range(3):
            for batch in loader:
                assert batch["number"].tolist() == list(range(32))
                assert [bytes(blob) for blob in batch["blob"]] == [bytes([i % 251]) * 2_000 for i in range(32)]
                break
            del batch
            assert loader.state_dict()["epoch"] == epoch
        takes_s = 0.0
        assert [i for batch in loader for i in batch["number"].tolist()] == list(range(400))
        loader.close()
        del loader, roomy


def test_the_planners_time_is_counted_after_a_break(data: Path) -> None:
    with loader_of(data) as loader:
        for epoch in range(3):
            for batch in loader:
                if ids_of(batch)[0] >= SAMPLES // 2:
                    break
            before = loader.stats()
            assert before["plan_s"] > 0
            next(iter(loader))
            after = loader.stats()
            assert after["plan_s"] > before["plan_s"]
            assert after["producer_waited_s"] >= before["producer_waited_s"]
            assert after["batches"] == before["batches"] + 1, epoch


def test_warm_up_raises_the_error_of_the_first_batch(tmp_path: Path) -> None:
    data = write(tmp_path / "data", SAMPLES)
    with mx8.Dataset(data) as dataset:
        first, *_ = shards(data)
        moved = first.rename(tmp_path / "elsewhere")
        with loader_of(dataset) as loader:
            with pytest.raises(mx8.DatasetNotFoundError, match=first.name):
                loader.warm_up()
            with pytest.raises(mx8.LoaderError, match=first.name):
                next(iter(loader))
            moved.rename(first)
            loader.warm_up()
            assert all_of(loader) == list(range(SAMPLES))


def test_with_uneven_drop_less_than_one_step_gives_no_batch(data: Path) -> None:
    """The loop of that epoch is empty, so a training loop that counts epochs itself does not repeat the next one."""
    with loader_of(data, shuffle=True, uneven="drop") as alone:
        batches = iter(alone)
        while alone.state_dict()["position"] < SAMPLES - BATCH:
            next(batches)
        state = json.loads(json.dumps(alone.state_dict()))
    assert (state["epoch"], state["position"]) == (0, SAMPLES - BATCH)
    for rank in range(2):
        with loader_of(data, shuffle=True, uneven="drop", rank=rank, world_size=2) as loader:
            wanted = [i for step in range(len(loader)) for i in loader.ids(epoch=1, step=step).tolist()]
            assert len(wanted) == len(loader) * BATCH == SAMPLES // (2 * BATCH) * BATCH
            for counting in (False, True):
                loader.load_state_dict(state)
                for epoch, expected in enumerate([[], wanted]):
                    if counting:
                        loader.set_epoch(epoch)
                    loader.warm_up()
                    assert all_of(loader) == expected
                    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (epoch + 1, 0)


def batches_of(loader: mx8.Loader) -> list[list[int]]:
    return [ids_of(batch) for batch in loader]


def test_an_iteration_without_a_batch_does_not_count_as_an_epoch(data: Path) -> None:
    with loader_of(data, shuffle=True) as loader, loader_of(data, shuffle=True) as other:
        epochs = [batches_of(other) for _ in range(3)]
        for epoch in range(2):
            for _ in range(3):
                iter(loader)
            loader.warm_up()
            assert loader.state_dict()["epoch"] == epoch
            assert batches_of(loader) == epochs[epoch]
        next(iter(loader))  # this one counts: it is an abandoned epoch
        loader.set_epoch(2)
        batches = iter(loader)
        assert [ids_of(next(batches)) for _ in range(3)] == epochs[2][:3]
        loader.load_state_dict(json.loads(json.dumps(loader.state_dict())))
        for _ in range(2):
            iter(loader)
        assert batches_of(loader) == epochs[2][3:]


def test_an_iteration_without_a_batch_does_not_move_the_state(data: Path) -> None:
    with loader_of(data) as loader:
        next(batches := iter(loader))
        next(batches)
        before = loader.state_dict()
        iter(loader)
        iter(loader)
        loader.warm_up()
        assert loader.state_dict() == before
        assert len(batches_of(loader)) == SAMPLES // BATCH
        assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (2, 0)
    with loader_of(data, transform=Flaky(0, 1, epoch=1)) as loader:
        next(iter(loader))
        with pytest.raises(mx8.LoaderError, match="the network was away"):
            next(iter(loader))
        assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, 0)
        assert next(iter(loader)).epoch == 1


def test_the_length_of_an_iteration_is_the_number_of_remaining_batches(data: Path) -> None:
    tqdm = pytest.importorskip("tqdm")
    with loader_of(data) as loader:
        batches = iter(loader)
        for taken in range(6):
            assert len(batches) == len(loader) - taken  # type: ignore[arg-type]
            next(batches)
        loader.load_state_dict(loader.state_dict())
        with tqdm.tqdm(iter(loader), disable=None, file=io.StringIO()) as bar:
            assert bar.total == sum(1 for _ in bar) == len(loader) - 6
        assert len(loader) == SAMPLES // BATCH
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": SAMPLES - BATCH})
        batches = iter(loader)
        assert (len(batches), len(list(batches)), len(batches)) == (1, 1, 0)  # type: ignore[arg-type]
        next(batches := iter(loader))
        iter(loader)
        assert len(batches) == 0  # type: ignore[arg-type]
        assert len(iter(loader)) == len(loader)  # type: ignore[arg-type]


# after an error -------------------------------------------------------------------------------------------------------


class Flaky:
    """A transform that fails `times` times at one sample."""

    def __init__(self, sample_id: int, times: int, epoch: int = 0) -> None:
        self.sample_id, self.times, self.epoch = sample_id, times, epoch

    def __call__(self, batch: Any) -> Any:
        if self.times and batch.epoch == self.epoch and self.sample_id in batch.sample_ids:
            self.times -= 1
            raise OSError("the network was away")
        return batch


@pytest.mark.parametrize("at", [0, 44, SAMPLES - 1])
def test_after_an_error_the_next_for_continues_at_the_failed_step(data: Path, at: int) -> None:
    with loader_of(data, transform=Flaky(at, 2)) as loader:
        found, errors = [], []
        while loader.state_dict()["epoch"] == 0:
            try:
                for batch in loader:
                    found.append(ids_of(batch))  # noqa: PERF401 - those before the error count
            except mx8.LoaderError as error:
                errors.append(str(error))
                assert loader.state_dict()["position"] == at // BATCH * BATCH
        assert found == [list(range(i, i + BATCH)) for i in range(0, SAMPLES, BATCH)]
        wanted = "OSError: the network was away (the next `for` tries this step again, set_epoch(1) goes to"
        assert len(errors) == 2
        assert all(wanted in error for error in errors)
        assert len(all_of(loader)) == SAMPLES


def test_the_error_has_a_hint_to_on_error_and_set_epoch_skips_the_failed_step(tmp_path: Path) -> None:
    data = write(tmp_path / "data", SAMPLES)
    _, second, *_ = shards(data)
    second.rename(tmp_path / "elsewhere")
    with loader_of(data) as loader:
        for _ in range(2):
            with pytest.raises(
                mx8.LoaderError, match='on_error="skip" or "substitute" passes over bad samples; the next'
            ):
                list(loader)
        (tmp_path / "elsewhere").rename(second)
        loader.set_epoch(1)
        assert (all_of(loader), loader.state_dict()["epoch"]) == (list(range(SAMPLES)), 2)


def test_an_error_of_the_users_transform_has_no_hint_to_skip_samples(data: Path) -> None:
    def transform(batch: Any) -> Any:
        raise mx8.SchemaError("rows of one dimension are needed")

    with loader_of(data, transform=transform) as loader:
        with pytest.raises(mx8.LoaderError, match="rows of one dimension") as caught:
            list(loader)
        assert "skip" not in str(caught.value)
        assert "the next `for` tries this step again" in str(caught.value)
        wanted = "epoch 0: transform of the batch at position 0, sample_ids 0, 1, 2, 3, 4, 5, 6, 7: SchemaError: "
        assert str(caught.value).startswith(wanted)


def test_a_transform_that_returns_nothing_is_an_error(data: Path) -> None:
    with (
        loader_of(data, transform=lambda batch: None) as loader,
        pytest.raises(mx8.LoaderError, match=r"sample_ids 0, .*7: expected a batch from transform=, got None"),
    ):
        list(loader)


def test_pickling_copying_or_indexing_a_loader_is_an_error_that_names_as_iterable_dataset(data: Path) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    acts: list[Any] = [pickle.dumps, copy.copy, copy.deepcopy, lambda loader: list(torch_data.DataLoader(loader))]
    with loader_of(data) as loader:
        for act in acts:
            with pytest.raises(mx8.LoaderError, match=r"DataLoader\(loader.as_iterable_dataset\(\)"):
                act(loader)


# settings -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InvalidView(ViewOfWhole):
    """A view of the whole dataset, except for one position."""

    sample_id: int

    def resolve(self, position: Any, epoch: int = 0, seed: int = 0) -> Any:
        found, extras = self.whole.resolve(position, epoch, seed)
        return np.where(found == 50, self.sample_id, found), extras


@pytest.mark.parametrize("sample_id", [-1, SAMPLES, 1 << 40])
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_view_with_invalid_sample_ids_is_an_error(data: Path, sample_id: int, io: Any) -> None:
    dataset = mx8.Dataset(data)
    dataset._view = InvalidView(Whole(SAMPLES), sample_id)
    with loader_of(dataset, io=io) as loader:
        for epoch in range(2):
            found = []
            with pytest.raises(mx8.LoaderError, match=f"view: expected sample_ids from 0 to 119, got .*{sample_id}"):
                found.extend(ids_of(batch) for batch in loader)
            assert found == [list(range(i, i + BATCH)) for i in range(0, 0 if epoch else 48, BATCH)]
        with pytest.raises(mx8.LoaderError, match="view: expected"):
            loader.ids(epoch=0, step=50 // BATCH)


@pytest.mark.parametrize("size", [np.int64(4), np.uint8(4), np.array(4)[()]])
def test_a_batch_size_may_be_any_whole_number(data: Path, size: Any) -> None:
    with loader_of(data, batch_size=size) as loader:
        assert [len(ids_of(batch)) for batch in loader] == [4] * (SAMPLES // 4)
        state = loader.state_dict()
        assert json.loads(json.dumps(state)) == state


@pytest.mark.parametrize("size", [True, False, 0, -1, 4.0, "4", None, np.int64(0), np.True_])
def test_an_invalid_batch_size_is_refused(data: Path, size: Any) -> None:
    with pytest.raises(mx8.SettingError, match="batch_size: expected an int from 1"):
        loader_of(data, batch_size=size)


# time -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", ["auto", "pread"])
def test_opening_many_shards_may_take_longer_than_the_read_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, io: Any
) -> None:
    opened = Shards._open_checked

    def slowly(self: Shards, *arguments: Any) -> Any:
        time.sleep(0.04)
        return opened(self, *arguments)

    data = write(tmp_path / "data", SAMPLES, size_limit=1_000)
    with mx8.Dataset(data) as dataset, loader_of(dataset, io=io) as loader:  # compiling kernels takes time too
        all_of(loader)
    monkeypatch.setattr(Shards, "_open_checked", slowly)
    dataset = mx8.Dataset(data)
    assert dataset.shards.count * 0.04 > 2
    with loader_of(dataset, batch_size=SAMPLES, threads=1, read_timeout_s=1.0, io=io) as loader:
        assert all_of(loader) == list(range(SAMPLES))
