"""Does training code that was written for MosaicML Streaming run, with only the import changed?

Each test is a pattern that public projects use, written anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, Subset

from mx8shards.errors import ShardsError
from mx8shards.streaming import LocalDataset, MDSWriter, Stream, StreamingDataLoader, StreamingDataset
from mx8shards.streaming.base.array import Array
from mx8shards.streaming.base.compression import decompress
from mx8shards.streaming.base.format import get_index_basename, reader_from_json
from mx8shards.streaming.base.format.mds.encodings import Encoding, _encodings, mds_decode, mds_encode
from mx8shards.streaming.base.spanner import Spanner
from mx8shards.streaming.base.storage import download_file
from mx8shards.streaming.base.util import clean_stale_shared_memory, merge_index
from mx8shards.streaming.base.world import World
from tests.dropin.conftest import COLUMNS, sample, write
from tests.forked import forked

EVERY = list(range(300))


class Latents(StreamingDataset):
    """A dataset that makes tensors of what its samples hold."""

    def __init__(self, streams: list[Stream], batch_size: int, precision: str = "float32", **settings: Any) -> None:
        super().__init__(streams=streams, batch_size=batch_size, **settings)
        self.precision = precision

    def __getitem__(self, index: Any) -> dict[str, Any]:
        found = super().__getitem__(index)
        return {"id": found["id"], "x": torch.from_numpy(found["tokens"].astype(self.precision)).reshape(2, 2)}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_subclass_with_its_own_getitem_feeds_a_plain_dataloader(workers: int, numbers: Path) -> None:
    dataset = Latents([Stream(remote=None, local=str(numbers / "a"))], batch_size=10, shuffle=True)
    loader = DataLoader(dataset, batch_size=10, num_workers=workers, drop_last=True)
    batches = list(loader)
    assert [batch["x"].shape for batch in batches] == [(10, 2, 2)] * 30
    assert sorted(torch.cat([batch["id"] for batch in batches]).tolist()) == EVERY


class OnlyIds(StreamingDataset):
    """A dataset that overrides `get_item`, not `__getitem__`."""

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        return super().get_item(sample_id)["id"]


def test_overriding_get_item_changes_what_is_iterated_and_indexed(numbers: Path) -> None:
    dataset = OnlyIds(local=str(numbers / "a"), batch_size=5)
    assert list(dataset) == EVERY
    assert dataset[-1] == 299
    assert dataset[[3, [4, 5]]] == [3, [4, 5]]


class Packed(StreamingDataset):
    """A dataset that overrides `__iter__`: it joins two samples."""

    def __iter__(self) -> Iterator[Any]:
        held: list[int] = []
        for found in super().__iter__():
            held.append(found["id"])
            if len(held) == 2:
                yield torch.tensor(held)
                held = []


def test_overriding_iter_changes_what_a_dataloader_gets(numbers: Path) -> None:
    dataset = Packed(local=str(numbers / "a"), batch_size=4, replication=1, epoch_size=40)
    found = torch.cat([batch.flatten() for batch in DataLoader(dataset, batch_size=2, num_workers=2)])
    assert len(found) == 40


def test_partitions_of_processes_are_merged_by_the_paths_of_their_indices(tmp_path: Path) -> None:
    out = tmp_path / "cc12m"
    processes = [forked(partial(write, out / str(i), 100 * i, 100 * i + 100)) for i in range(2)]
    assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0]
    indices = [os.path.join(out, str(i), "index.json") for i in range(2)]
    merge_index(indices, out=str(out), keep_local=True)
    assert [each["id"] for each in StreamingDataset(local=str(out), batch_size=1)] == list(range(200))
    merge_index(str(out))  # again, from the directory
    assert [each["id"] for each in LocalDataset(str(out))] == list(range(200))


def test_cleaning_shared_memory_has_nothing_to_do() -> None:
    assert clean_stale_shared_memory() is None


@pytest.mark.parametrize("workers", [0, 2])
def test_subsets_and_samplers_use_it_as_a_map_style_dataset(workers: int, numbers: Path) -> None:
    dataset = LocalDataset(str(numbers / "a"))
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(3))
    found = [batch["id"] for batch in DataLoader(dataset, batch_size=32, sampler=sampler, num_workers=workers)]
    assert sorted(torch.cat(found).tolist()) == EVERY
    subset = Subset(StreamingDataset(local=str(numbers / "a"), batch_size=1), [7, 3, 250])
    found = [batch["id"] for batch in DataLoader(subset, batch_size=2, num_workers=workers)]
    assert torch.cat(found).tolist() == [7, 3, 250]


class Int8Latents(Encoding):
    """Arrays of uint8 under the name of a built-in encoding."""

    def encode(self, obj: Any) -> bytes:
        return obj.tobytes()

    def decode(self, data: bytes) -> Any:
        return np.frombuffer(data, np.uint8)


@pytest.fixture
def replaced_uint8() -> Iterator[None]:
    before = _encodings["uint8"]
    _encodings["uint8"] = Int8Latents
    yield
    _encodings["uint8"] = before


def test_a_built_in_encoding_is_replaced_by_assignment(tmp_path: Path, replaced_uint8: None) -> None:
    with MDSWriter(out=str(tmp_path / "vae"), columns={"vae_output": "uint8", "label": "str"}) as writer:
        for i in range(5):
            writer.write({"vae_output": np.arange(i, i + 3, dtype=np.uint8), "label": str(i)})
    entry = json.loads((tmp_path / "vae/index.json").read_text())["shards"][0]
    assert (entry["column_encodings"], entry["column_sizes"]) == (["str", "uint8"], [None, None])
    dataset = StreamingDataset(
        local=str(tmp_path / "vae"),
        remote=None,
        split=None,
        shuffle=True,
        shuffle_algo="naive",
        num_canonical_nodes=1,
        batch_size=2,
    )
    assert dataset.length == dataset.size == 5
    assert all(found["vae_output"].tolist() == [int(found["label"]) + k for k in range(3)] for found in dataset)
    assert mds_decode("uint8", mds_encode("uint8", np.array([1, 2], np.uint8))).tolist() == [1, 2]


def test_without_the_replacement_the_array_that_the_bytes_hold_is_read(tmp_path: Path) -> None:
    before = _encodings["uint8"]
    _encodings["uint8"] = Int8Latents
    try:
        with MDSWriter(out=str(tmp_path), columns={"x": "uint8"}) as writer:
            writer.write({"x": np.array([1, 2, 3], np.uint8)})
    finally:
        _encodings["uint8"] = before
    for dataset in (LocalDataset(str(tmp_path)), StreamingDataset(local=str(tmp_path), batch_size=1)):
        assert dataset[0]["x"].tolist() == [1, 2, 3]


def test_an_encoding_of_ones_own_has_a_name_of_its_own(tmp_path: Path) -> None:
    _encodings["np8"] = Int8Latents
    try:
        with MDSWriter(out=str(tmp_path), columns={"x": "np8"}) as writer:
            writer.write({"x": np.array([5], np.uint8)})
        assert LocalDataset(str(tmp_path))[0]["x"].tolist() == [5]
    finally:
        del _encodings["np8"]
    with pytest.raises(ValueError, match="np8"):
        LocalDataset(str(tmp_path))


def test_old_names_of_sizes_work(numbers: Path) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"), batch_size=8, epoch_size=100, shuffle=True)
    assert (dataset.length, dataset.size, dataset.index.total_samples) == (100, 300, 300)


class JobStream(Stream):
    """A stream that decompresses by itself, and notes what."""

    seen: list[str] = []  # noqa: RUF012 - shared on purpose

    def _decompress_shard_part(self, zip_info: Any, zip_filename: str, raw_filename: str, compression: Any) -> None:
        data = decompress(compression, Path(zip_filename).read_bytes())
        draft = f"{raw_filename}.{os.getpid()}"
        Path(draft).write_bytes(data)
        if not self.safe_keep_zip:
            os.remove(zip_filename)
        os.rename(draft, raw_filename)
        self.seen.append(zip_info.basename)


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_stream_may_decompress_shards_itself(is_remote: bool, tmp_path: Path) -> None:
    write(tmp_path / "data", 0, 100, compression="zstd")
    JobStream.seen.clear()
    local = tmp_path / "cache" if is_remote else tmp_path / "data"
    for _ in range(2):  # the second time, the raw files are there
        stream = JobStream(remote=str(tmp_path / "data") if is_remote else None, local=str(local))
        assert [each["id"] for each in StreamingDataset(streams=[stream], batch_size=4)] == list(range(100))
    assert sorted(JobStream.seen) == sorted(path.name for path in (tmp_path / "data").glob("*.zstd"))
    assert len(list(local.glob("*.mds"))) == len(JobStream.seen)
    assert bool(list(local.glob("*.zstd"))) != is_remote


def test_remote_may_be_the_local_directory(numbers: Path) -> None:
    here = str(numbers / "b")
    streams = [
        Stream(remote=here, local=here, proportion=0.3),
        Stream(remote=str(numbers / "a"), local=str(numbers / "a"), proportion=0.7),
    ]
    dataset = StreamingDataset(streams=streams, batch_size=10, epoch_size=200, shuffle=True)
    found = [each["id"] for each in dataset]
    assert sum(i >= 1000 for i in found) == 60
    assert len(found) == 200


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"streams": {"web": {"local": "a"}}},
            r"streams: expected a list of Streams, got a dict .Stream.\*\*settings",
        ),
        ({"streams": [{"local": "a"}]}, "streams: expected a list of Streams, got a dict in it"),
        ({"streams": Stream(local="a")}, "streams: expected a list of Streams, got a Stream"),
        ({"local": "a", "shuffle_seed": "17"}, "shuffle_seed: expected an int from 0, below .*, got '17'"),
        ({"local": "a", "download_timeout": "60"}, "download_timeout: expected a number above 0, got '60'"),
        ({"local": "a", "batch_size": 0}, "batch_size: expected an int from 1 to .*, got 0"),
        ({"local": "."}, "no local index.json .there are datasets below: .*numbers.*a and .*b"),
        ({"local": ".", "split": "c"}, "no local index.json .there is no .*c"),
        ({"local": "a/index.json"}, "no local index.json .give the dataset's directory"),
    ],
)
def test_mistakes_of_a_config_are_errors_that_say_what_helps(
    settings: dict[str, Any], words: str, numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(numbers)
    with pytest.raises(ShardsError, match=words):
        list(StreamingDataset(**settings))


def test_settings_are_passed_through_by_keyword(numbers: Path) -> None:
    configs = {"one": {"local": str(numbers / "a"), "split": None, "repeat": 0.1}, "two": {"local": str(numbers / "b")}}
    streams = [Stream(**config) for config in configs.values()]
    dataset = StreamingDataset(
        streams=streams,
        remote=None,
        local=None,
        split=None,
        download_retry=2,
        download_timeout=60,
        validate_hash=None,
        keep_zip=False,
        epoch_size=None,
        predownload=None,
        cache_limit=None,
        partition_algo="relaxed",
        num_canonical_nodes=None,
        batch_size=7,
        shuffle=False,
        shuffle_algo="py1e",
        shuffle_seed=9176,
        shuffle_block_size=None,
        sampling_method="balanced",
        sampling_granularity=1,
        batching_method="random",
        allow_unsafe_types=False,
        replication=None,
    )
    assert len(list(dataset)) == len(dataset) == 140


def test_callbacks_save_and_load_the_state_of_the_dataset(numbers: Path) -> None:
    def make(**more: Any) -> StreamingDataset:
        return StreamingDataset(local=str(numbers / "a"), batch_size=4, shuffle=True, **more)

    before = make()
    whole = [each["id"] for each in before]
    state = before.state_dict(num_samples=120, from_beginning=True)
    after = make(shuffle_seed=1, num_canonical_nodes=2)
    after.load_state_dict(state)
    assert [each["id"] for each in after] == whole[120:]


class CountingLoader(StreamingDataLoader):
    """A loader whose batches are lists of a length of their own."""

    def _get_batch_size(self, batch: Any) -> int:
        return len(batch["frames"]) // 2


def test_a_loader_with_batches_of_another_form_counts_by_itself(numbers: Path) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"), batch_size=10)
    loader = CountingLoader(
        dataset, batch_size=10, collate_fn=lambda batch: {"frames": [each["id"] for each in batch for _ in range(2)]}
    )
    batches = iter(loader)
    next(batches)
    next(batches)
    assert loader.num_samples_yielded == 20
    assert loader.state_dict()["sample_in_epoch"] == 20 * World.detect().num_ranks


class JoinedDirectories(Array):
    """Several local datasets, opened shard by shard with the functions of `streaming.base`."""

    def __init__(self, paths: list[str]) -> None:
        self.shards = []
        for path in paths:
            with open(os.path.join(path, get_index_basename())) as file:
                self.shards += [reader_from_json(path, None, info) for info in json.load(file)["shards"]]
        self.num_samples = sum(shard.samples for shard in self.shards)
        self.spanner = Spanner(np.array([shard.samples for shard in self.shards]))

    @property
    def size(self) -> int:
        return self.num_samples

    def get_item(self, idx: int) -> Any:
        shard, row = self.spanner[idx]
        return self.shards[shard][row]


def test_shards_are_opened_by_the_functions_of_deep_modules(numbers: Path, tmp_path: Path) -> None:
    joined = JoinedDirectories([str(numbers / "a"), str(numbers / "b")])
    assert [joined[i]["id"] for i in (0, 299, 300, -1)] == [0, 299, 1000, 1109]
    assert [each["id"] for each in joined[298:302]] == [298, 299, 1000, 1001]
    download_file(str(numbers / "a" / "index.json"), str(tmp_path / "there" / "index.json"), 60)
    assert (tmp_path / "there/index.json").read_bytes() == (numbers / "a/index.json").read_bytes()


class Tokens(LocalDataset):
    """A map-style dataset with its own `__getitem__`."""

    def __getitem__(self, index: Any) -> Any:
        return torch.from_numpy(super().__getitem__(index)["tokens"])


def test_a_subclass_of_local_dataset_overrides_getitem(numbers: Path) -> None:
    loader = DataLoader(Tokens(str(numbers / "a")), batch_size=100, num_workers=2, shuffle=False)
    assert torch.cat(list(loader))[:, 0].tolist() == EVERY


def collated(samples: list[dict[str, Any]]) -> list[int]:
    return [json.loads(each["meta_json"])["id"] for each in samples]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_what_an_older_guide_writes_and_reads_works_with_a_store(bucket: str, tmp_path: Path) -> None:
    remote = f"{bucket}/datasets/x"
    with MDSWriter(
        out=str(tmp_path / "mds/train"),
        columns={"frame_table": "bytes", "meta_json": "str"},
        compression="zstd",
        hashes="sha1",
        size_limit="128MB",
        remote=remote,
    ) as writer:
        for i in range(100):
            writer.write({"frame_table": bytes([i]) * 50, "meta_json": json.dumps({"id": i})})
    assert not (tmp_path / "mds/train").exists()
    dataset = StreamingDataset(remote=remote, local=str(tmp_path / "cache"), shuffle=True, shuffle_seed=1337)
    loader = DataLoader(dataset, batch_size=8, num_workers=8, collate_fn=collated, persistent_workers=True)
    epochs = [list(loader) for _ in range(2)]
    for batches in epochs:
        assert sorted(map(len, batches)) == [4] + [8] * 12
        assert sorted(i for batch in batches for i in batch) == list(range(100))
    assert epochs[0] != epochs[1]
    ordered = StreamingDataset(remote=remote, local=str(tmp_path / "cache"))
    batches = list(DataLoader(ordered, batch_size=8, num_workers=3, collate_fn=collated))
    assert [i for batch in batches for i in batch] == list(range(100))


def test_writers_keep_or_remove_the_local_directory(tmp_path: Path, bucket: str) -> None:
    for keep_local in (False, True):
        remote, local = f"{bucket}/kept-{keep_local}", tmp_path / f"kept-{keep_local}"
        with MDSWriter(out=(str(local), remote), columns=COLUMNS, keep_local=keep_local) as writer:
            writer.write(sample(3))
        assert (local / "index.json").exists() == keep_local
        (found,) = StreamingDataset(remote=remote, local=str(tmp_path / f"cache-{keep_local}"), batch_size=1)
        assert found["id"] == 3
