"""Does `StreamingDataset.loader()` give a Loader with the same batches, also after a state was loaded?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import mx8shards as mx8
from mx8shards.streaming import JSONWriter, Stream, StreamingDataset
from tests.dropin.conftest import sample, write


def make(numbers: Path, **settings: Any) -> StreamingDataset:
    settings = {"batch_size": 8, "shuffle": True, **settings}
    streams = [Stream(local=str(numbers / name), repeat=repeat) for name, repeat in (("a", 1), ("b", 2.5))]
    return StreamingDataset(streams=streams, **settings)


def ids(batches: Any) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


def test_batches_and_epochs_equal_those_of_a_dataloader(numbers: Path) -> None:
    through_torch = DataLoader(make(numbers), batch_size=8)
    with make(numbers).loader(columns=["id", "text"]) as loader:
        for _ in range(2):
            batches = ids(loader)
            last = batches[-1][: 575 % 8]  # the rest of the last batch is padding
            assert [*batches[:-1], last] == ids(through_torch)


def test_a_loaded_state_is_where_the_loader_begins(numbers: Path) -> None:
    before = make(numbers)
    whole = ids(DataLoader(before, batch_size=8))
    after = make(numbers, shuffle_seed=3)
    after.load_state_dict(before.state_dict(64, True))
    with after.loader() as loader:
        assert ids(loader)[:-1] == whole[8:-1]
    after = make(numbers, shuffle_seed=3)
    after.load_state_dict(before.state_dict(575, True))
    with after.loader() as loader:
        assert ids(loader)[:-1] == ids(DataLoader(before, batch_size=8))[:-1]


def test_values_are_those_of_the_samples(numbers: Path) -> None:
    with make(numbers, shuffle=False).loader() as loader:
        batch = next(iter(loader))
        assert batch["tokens"].tolist() == [sample(i)["tokens"].tolist() for i in batch["id"].tolist()]


@pytest.mark.parametrize("settings", [{"shuffle": True}, {"batch_size": 9}], ids=str)
def test_settings_that_the_dataset_decides_are_refused(settings: dict[str, Any], numbers: Path) -> None:
    with pytest.raises(ValueError, match=r"loader|batch_size"):
        make(numbers).loader(**settings)


class Texts(StreamingDataset):
    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(at)["text"]


def test_a_loader_of_a_subclass_warns_that_it_calls_no_getitem(numbers: Path) -> None:
    dataset = Texts(local=str(numbers / "a"), batch_size=8)
    with pytest.warns(UserWarning, match="calls no __getitem__ of Texts: transform="):
        dataset.loader(columns=["text"]).close()
    with dataset.loader(columns=["text"], transform=lambda batch: list(batch["text"])) as loader:
        assert next(iter(loader)) == [sample(i)["text"] for i in range(8)]


def test_a_loader_of_a_streaming_dataset_is_made_by_its_method(numbers: Path) -> None:
    with pytest.raises(mx8.SettingError, match=r"got a StreamingDataset \(dataset.loader\(…\) makes"):
        mx8.Loader(make(numbers), batch_size=8)  # type: ignore[arg-type]


def test_a_loader_needs_shards_of_mds(tmp_path: Path) -> None:
    with JSONWriter(out=str(tmp_path), columns={"x": "int"}) as writer:
        writer.write({"x": 1})
    with pytest.raises(ValueError, match="MDS"):
        StreamingDataset(local=str(tmp_path), batch_size=1).loader()


def test_a_loader_without_a_batch_size_of_the_dataset_gets_one(tmp_path: Path) -> None:
    dataset = StreamingDataset(local=str(write(tmp_path, 0, 20)))
    with pytest.raises(ValueError, match="batch_size"):
        dataset.loader()
    with dataset.loader(batch_size=10) as loader:
        assert ids(loader) == [list(range(10)), list(range(10, 20))]
