"""Which datasets does a Loader accept (also torch Subsets), and which error do other objects give?"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

import mx8shards as mx8
from tests.loader.leak_checks import ids_of, write

SAMPLES = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("accepted") / "data", SAMPLES)


def numbers(dataset: Any) -> list[int]:
    with mx8.Loader(dataset, batch_size=4, output="numpy") as loader:
        return [i for batch in loader for i in ids_of(batch)]


class Augmented(mx8.Dataset):
    def __getitem__(self, key: Any) -> Any:
        return {**super().__getitem__(key), "number": -1}


class Filtered(mx8.Dataset):
    def __len__(self) -> int:
        return 3


class Named(mx8.Dataset):
    """Adds a method and overrides nothing."""

    def name(self) -> str:
        return "mine"


class Changed(torch.utils.data.Subset[Any]):
    def __getitem__(self, key: Any) -> Any:
        return None

    def __getitems__(self, keys: Any) -> Any:
        return [None for _ in keys]


def test_a_torch_subset_of_a_dataset_is_loaded_as_a_view(data: Path) -> None:
    dataset = Named(data)
    subset = torch.utils.data.Subset(dataset, [5, 1, 9, 1])
    assert numbers(subset) == [5, 1, 9, 1]
    assert numbers(torch.utils.data.Subset(subset, [2, 0])) == [9, 5]
    parts = torch.utils.data.random_split(dataset, [20, 10], torch.Generator().manual_seed(0))
    assert sorted(numbers(parts[0]) + numbers(parts[1])) == list(range(SAMPLES))
    with mx8.Loader(subset, batch_size=2, output="numpy") as one:  # type: ignore[arg-type]
        next(batches := iter(one))
        with mx8.Loader(dataset.select([5, 1, 9, 1]), batch_size=2, output="numpy") as other:
            other.load_state_dict(one.state_dict())
            assert [ids_of(batch) for batch in other] == [ids_of(batch) for batch in batches] == [[9, 1]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (str, r"dataset: expected an mx8shards.Dataset, got '.*data' \(mx8.Loader\(mx8.Dataset\('.*data'\), …\)\)"),
        (Path, r"mx8.Loader\(mx8.Dataset\('.*data'\), …\)"),
        (lambda data: [{"number": 1}], r"got a list of 1 \(mx8.Writer writes samples into a dataset"),
        (lambda data: [mx8.Dataset(data)] * 2, r"got a list of 2 \(mx8.concat\(\[…\]\) makes one dataset of several"),
        (lambda data: torch.utils.data.ConcatDataset([mx8.Dataset(data)]), r"a ConcatDataset \(mx8.concat"),
        (lambda data: torch.utils.data.Subset([1, 2], [0]), "got a list of 2"),  # type: ignore[arg-type]
        (lambda data: None, "got a NoneType"),
        (Augmented, r"with its own __getitem__: a Loader reads the shards itself.*got Augmented.*transform=.*decode="),
        (Filtered, "with its own __len__.*got Filtered"),
        (lambda data: Changed(mx8.Dataset(data), [0]), "a Subset with its own __getitem__.*got Changed"),
        (lambda data: torch.utils.data.Subset(Augmented(data), [0]), "with its own __getitem__"),
    ],
)
def test_other_objects_are_an_error_with_a_hint(data: Path, make: Any, words: str) -> None:
    with pytest.raises(mx8.SettingError, match=words):
        mx8.Loader(make(data), batch_size=4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_workers": 4}, r"there is no argument num_workers \(threads prepare the batches, threads=…"),
        ({"collate_fn": list}, r"no argument collate_fn \(.* transform=… takes a function of a whole batch"),
        ({"pin_memory": True}, r'no argument pin_memory \(device="cuda" gives batches on the GPU'),
        ({"treads": 4}, r"no argument treads \(did you mean threads\?\)"),
        ({"augment": None}, r"no argument augment \(there are dataset, batch_size, .*, read_timeout_s\)"),
    ],
)
def test_an_argument_that_a_loader_does_not_have_is_an_error_with_a_hint(
    data: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(mx8.SettingError, match=words) as caught:
        mx8.Loader(mx8.Dataset(data), batch_size=4, **settings)
    assert isinstance(caught.value, TypeError)  # as Python raises


def test_each_argument_of_a_dataloader_has_a_counterpart_or_a_hint(data: Path) -> None:
    others = set(inspect.signature(torch.utils.data.DataLoader).parameters) - {
        *inspect.signature(mx8.Loader).parameters
    }
    for name in others:
        with pytest.raises(TypeError, match=rf"no argument {name} \((?!did you mean|there are dataset)"):
            mx8.Loader(mx8.Dataset(data), batch_size=4, **{name: None})
