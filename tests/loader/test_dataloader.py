"""Does a loader work inside torch's DataLoader: batches, resuming and memory?"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import mx8shards as mx8
from tests.loader.child_process import ChildProcess
from tests.loader.leak_checks import ids_of, payload, shards, time_limit, write

SAMPLES, BATCH = 120, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("dataloader") / "data", SAMPLES)


def loader_of(data: Path, **options: Any) -> mx8.Loader:
    return mx8.Loader(mx8.Dataset(data), **{"batch_size": BATCH, "threads": 2, "output": "numpy"} | options)


def numbers(batches: Any) -> list[int]:
    return [i for batch in batches for i in batch["number"].tolist()]


def test_an_iterable_dataset_continues_at_the_position_of_the_loader(data: Path) -> None:
    with loader_of(data, shuffle=True) as loader:
        batches = iter(loader)
        before = [i for _ in range(5) for i in ids_of(next(batches))]
        state = json.loads(json.dumps(loader.state_dict()))
        rest = numbers(loader.as_iterable_dataset())
        assert rest == numbers(batches)
        assert sorted(before + rest) == list(range(SAMPLES))
    with loader_of(data, shuffle=True) as other:
        other.load_state_dict(state)
        taken = other.as_iterable_dataset()
        assert taken.state_dict() == state
        assert numbers(taken) == rest
        assert len(numbers(taken)) == SAMPLES  # then the next epoch
        again = other.as_iterable_dataset()
        again.set_epoch(0)  # the current epoch: it keeps its position, as in the loader
        assert numbers(again) == rest
        again.set_epoch(0)  # another epoch: it does not
        assert sorted(numbers(again)) == list(range(SAMPLES))


def test_workers_make_loaders_of_their_own_after_a_fork(child_process: ChildProcess, data: Path) -> None:
    with time_limit():
        child_process.start("worked_for", data=str(data), count=2)
        (said,), status = child_process.read_rest()
    assert (status, child_process.errors) == (0, "")
    found = json.loads(said)
    assert found["first"] == list(range(BATCH))
    assert found["numbers"] == list(range(SAMPLES))
    assert found["keys"] == ["number"]


def test_columns_may_be_named_like_attributes_of_a_batch(tmp_path: Path) -> None:
    names = ("sample_ids", "padding", "epoch", "seed")
    with mx8.Writer(tmp_path / "data", columns=dict.fromkeys(names, "int")) as writer:
        for i in range(10):
            writer.write(dict.fromkeys(names, 100 + i))
    with loader_of(tmp_path / "data", batch_size=10) as loader:
        for batches in (loader, loader.as_iterable_dataset()):
            (batch,) = batches
            assert all(batch[name].tolist() == list(range(100, 110)) for name in names)
            assert batch.sample_ids.tolist() == list(range(10))


def test_a_workers_state_is_refused_elsewhere_and_invalid_states_are_refused(data: Path) -> None:
    with loader_of(data) as loader:
        batches = loader.as_iterable_dataset()
        state = {**loader.state_dict(), "worker": [1, 2]}
        with pytest.raises(mx8.LoaderError, match=r"expected the state of a process without workers, got \[1, 2\]"):
            batches.load_state_dict(state)
        for value in (None, [], "state", {"worker": 3}, {}):
            with pytest.raises((mx8.FormatError, mx8.LoaderError)):
                batches.load_state_dict(value)  # type: ignore[arg-type]
        assert numbers(batches) == list(range(SAMPLES))


@pytest.mark.parametrize("workers", [0, 1])
def test_after_an_error_a_data_loader_continues_as_the_error_says(tmp_path: Path, workers: int) -> None:
    data_loader = pytest.importorskip("torch.utils.data").DataLoader
    data = write(tmp_path / "data", SAMPLES)
    *_, last = shards(data)
    last.rename(tmp_path / "elsewhere")
    with loader_of(data, output="torch") as loader, time_limit():
        batches = loader.as_iterable_dataset()
        found = data_loader(batches, num_workers=workers)
        words = r"set_epoch\(0\) of the iterable dataset repeats this one" if workers else "tries this step again"
        for _ in range(2):
            batches.set_epoch(0)
            with pytest.raises(mx8.LoaderError, match=words):
                list(found)
        (tmp_path / "elsewhere").rename(last)
        batches.set_epoch(0)
        again = numbers(found)
        assert again == (list(range(SAMPLES)) if workers else list(range(SAMPLES))[-len(again) :])
        assert workers or 0 < len(again) < SAMPLES  # the remaining batches, from the failed step
        assert numbers(found) == list(range(SAMPLES))  # then the next epoch


def fails_once(at: int) -> Callable[[Any], Any]:
    failed: list[int] = []

    def transform(batch: Any) -> Any:
        if at in batch.sample_ids and not failed:
            failed.append(at)
            raise OSError("the network was away")
        return batch

    return transform


def epochs_of(batches: Any) -> list[int]:
    return sorted({batch.epoch for batch in batches})


def test_set_epoch_skips_a_failed_epoch_without_workers(data: Path) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    for told, first in [(None, 40), (0, 40), (1, 0), (2, 0)]:
        with loader_of(data, output="torch", transform=fails_once(44)) as loader:
            batches = loader.as_iterable_dataset()
            found = torch_data.DataLoader(batches)
            with pytest.raises(mx8.LoaderError, match="the network was away"):
                list(found)
            assert batches.state_dict()["position"] == 40
            if told is not None:
                batches.set_epoch(told)
            rest = list(found)
            assert (epochs_of(rest), numbers(rest)) == ([told or 0], list(range(first, SAMPLES)))
            assert epochs_of(found) == [(told or 0) + 1]


def test_set_epoch_after_the_iterator_was_made_takes_effect(data: Path) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    with loader_of(data, output="torch") as loader:
        batches = loader.as_iterable_dataset()
        found = torch_data.DataLoader(batches)
        iterator = iter(found)
        batches.set_epoch(5)
        assert epochs_of(iterator) == [5]
        assert epochs_of(found) == [6]


def test_state_dict_in_the_parent_of_workers_is_an_error(data: Path) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    with loader_of(data, output="torch") as loader, time_limit():
        batches = loader.as_iterable_dataset()
        assert batches.state_dict() == loader.state_dict()
        found = iter(torch_data.DataLoader(batches, num_workers=1))
        next(found)
        with pytest.raises(mx8.LoaderError, match="state_dict: workers of a DataLoader gave the last batches"):
            batches.state_dict()
        del found
        batches.set_epoch(3)
        assert (batches.state_dict()["epoch"], batches.state_dict()["position"]) == (3, 0)
        next(iter(torch_data.DataLoader(batches)))  # without workers the position is known
        assert (batches.state_dict()["epoch"], batches.state_dict()["position"]) == (3, BATCH)


@pytest.mark.parametrize("workers", [0, 1])
def test_with_batch_size_none_a_data_loader_gives_the_results_of_a_transform(data: Path, workers: int) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    for form in ("dict", "array", "list", "batch"):
        with loader_of(data, columns=["number"], transform=SHAPED[form], output="torch") as loader, time_limit():
            found = torch_data.DataLoader(loader.as_iterable_dataset(), batch_size=None, num_workers=workers)
            for one, other in zip(found, loader, strict=True):
                assert type(one) is type(other)
                assert [array.tolist() for array in arrays(one)] == [array.tolist() for array in arrays(other)]


class Pair(NamedTuple):
    number: Any
    rest: Any


FORMS: dict[str, Callable[[Any], Any]] = {
    "list": lambda batch: [batch["number"], batch["number"]],
    "tuple": lambda batch: (batch["number"], "a word"),
    "named": lambda batch: Pair(batch["number"], {"deep": [batch["number"]]}),
    "dict": lambda batch: {"number": batch["number"], "blob": batch["blob"]},
    "array": lambda batch: batch["number"],
    "ragged": lambda batch: batch["blob"],
    "batch": lambda batch: batch,
}


SHAPED: dict[str, Callable[[Any], Any]] = {
    "dict": lambda batch: {"number": batch["number"].float()},
    "array": lambda batch: batch["number"],
    "list": lambda batch: [batch["number"], batch["number"] + 1],
    "batch": lambda batch: batch,
}


def arrays(value: Any) -> list[Any]:
    """All arrays and tensors in a transform's result."""
    if hasattr(value, "padded"):
        return [value.values, value.offsets]
    if isinstance(value, dict):
        return [array for inner in value.values() for array in arrays(inner)]
    if isinstance(value, (list, tuple)):
        return [array for inner in value for array in arrays(inner)]
    return [value] if hasattr(value, "__array__") else []


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("form", FORMS)
def test_results_of_a_transform_are_copied_out_of_the_banks(data: Path, form: str, output: Any) -> None:
    with loader_of(data, transform=FORMS[form], output=output) as loader, time_limit():
        taken = loader.as_iterable_dataset()
        found = list(taken)
        assert taken._loader is not None
        assert taken._loader.stats()["bytes_in_use"] == 0
        expected = list(loader)
        assert len(found) == len(expected) == SAMPLES // BATCH
        for one, other in zip(found, expected, strict=True):
            if form == "batch":
                assert type(one) is type(other)
                assert sorted(one) == ["blob", "number"]
                assert one.sample_ids.tolist() == one["number"].tolist() == other.sample_ids.tolist()
                assert not one.padding.any()
                assert [bytes(blob) for blob in one["blob"]] == [payload(i) for i in one["number"].tolist()]
            else:
                assert type(one) is type(other)
                copied, lent = arrays(one), arrays(other)
                assert len(copied) == len(lent)
                for mine, theirs in zip(copied, lent, strict=True):
                    assert type(mine) is type(theirs)
                    assert np.array_equal(mine, theirs)
                    assert not np.shares_memory(np.asarray(mine), np.asarray(theirs))


class UnpicklableEncoding:
    """An encoding that cannot be pickled, because it contains a closure."""

    name, size_bytes, dtype, shape, unsafe = "spelled", None, None, None, False

    def __init__(self) -> None:
        self.encode = lambda value: value.encode()
        self.decode = lambda payload: bytes(payload).decode()


def test_ragged_rows_of_a_users_encoding_pass_through_workers(tmp_path: Path) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    mx8.register_encoding("spelled", UnpicklableEncoding())
    with mx8.Writer(tmp_path / "data", columns={"word": "spelled"}) as writer:
        for i in range(10):
            writer.write({"word": "a" * i})
    with loader_of(tmp_path / "data", output="torch") as loader, time_limit():
        batches = torch_data.DataLoader(loader.as_iterable_dataset(), num_workers=1)
        assert [word for batch in batches for word in batch["word"]] == ["a" * i for i in range(10)]
        copied = pickle.loads(pickle.dumps(next(iter(loader))["word"]))
        assert list(copied) == ["a" * i for i in range(BATCH)]
