"""Does a StreamingDataset do the right thing in DataLoaders: workers, start methods, epochs, states, ranks?"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from mx8shards.errors import SettingError
from mx8shards.streaming import JSONWriter, LocalDataset, Stream, StreamingDataLoader, StreamingDataset
from tests.anonymous_memory import anonymous_bytes
from tests.dropin.conftest import write
from tests.remote.helper_processes import helpers

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def only_ids(samples: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([each["id"] for each in samples])


def ids(batches: Any) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


def loader(dataset: Any, workers: int, **settings: Any) -> Any:
    settings = {"collate_fn": only_ids, **settings}
    return StreamingDataLoader(dataset, batch_size=8, num_workers=workers, **settings)


@pytest.mark.parametrize("batch_size", [8, None])
@pytest.mark.parametrize("persistent", [False, True])
def test_each_iteration_is_the_next_epoch_in_all_workers(persistent: bool, batch_size: Any, numbers: Path) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"), batch_size=batch_size, shuffle=True)
    three = loader(dataset, 3, persistent_workers=persistent)
    epochs = [ids(three) for _ in range(3)]
    for batches in epochs:
        assert sorted(i for batch in batches for i in batch) == list(range(300))
    alone = loader(StreamingDataset(local=str(numbers / "a"), batch_size=batch_size, shuffle=True), 3)
    assert epochs == [ids(alone) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert dataset.next_epoch == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_that_was_made_before_ranks_were_known_warns(
    workers: int, numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"), batch_size=8)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(UserWarning, match="made for rank 0 of 1 is iterated in rank 1 of 2, so ranks may read the same"):
        assert len(ids(loader(dataset, workers))) == 38
    in_time = StreamingDataset(local=str(numbers / "a"), batch_size=8)
    assert len(ids(loader(in_time, workers))) == 19  # and no warning, which would be an error


@pytest.mark.parametrize("workers", [0, 1, 8])
def test_batches_follow_the_dataloader_without_a_batch_size(workers: int, numbers: Path) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"))
    batches = [ids(loader(dataset, workers)), ids(loader(dataset, workers))]
    in_order = [list(range(start, min(start + 8, 300))) for start in range(0, 300, 8)]
    assert batches == [in_order, in_order]
    assert [each["id"] for each in dataset] == list(range(300))
    single = DataLoader(dataset, batch_size=None, num_workers=workers)
    assert [each["id"] for each in single] == list(range(300))


def test_a_state_without_a_batch_size_resumes_at_the_next_batch(numbers: Path) -> None:
    def make() -> Any:
        return loader(StreamingDataset(local=str(numbers / "a"), shuffle=True), 2)

    before, after = make(), make()
    batches = iter(before)
    for _ in range(5):
        next(batches)
    after.load_state_dict(before.state_dict())
    assert ids(after) == ids(batches)


@pytest.mark.parametrize("workers", [0, 8])
def test_few_samples_for_many_workers(workers: int, tmp_path: Path) -> None:
    dataset = StreamingDataset(local=str(write(tmp_path, 0, 10)), batch_size=8)
    assert sorted(i for batch in ids(loader(dataset, workers)) for i in batch) == list(range(10))


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("method", ["random", "stratified", "per_stream", "device_per_stream"])
def test_a_worker_whose_last_batches_are_padding_gives_no_samples_for_them(
    method: str, copied: bool, small: Path, tmp_path: Path
) -> None:
    place = {"remote": str(small), "local": str(tmp_path)} if copied else {"local": str(small)}
    dataset = StreamingDataset(**place, batch_size=64, batching_method=method)
    samples = 130 if method == "random" else 128  # others leave out the last part of a batch
    for workers in (2, 0):
        found = DataLoader(dataset, batch_size=64, num_workers=workers, collate_fn=only_ids)
        assert sorted(i for batch in ids(found) for i in batch) == list(range(samples))
    dataset.load_state_dict({**dataset.state_dict(samples, True), "epoch": 9})
    assert list(dataset) == []  # resumed at the end of the epoch


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("small"), 0, 130, compression="zstd")


def test_spawned_workers_read_the_same_batches(numbers: Path) -> None:
    streams = [Stream(local=str(numbers / name), proportion=0.5) for name in "ab"]
    dataset = StreamingDataset(streams=streams, batch_size=8, shuffle=True)
    spawned = loader(dataset, 2, multiprocessing_context="spawn", persistent_workers=True)
    found = [ids(spawned), ids(spawned)]
    dataset.load_state_dict({**dataset.state_dict(0, True), "epoch": 4, "sample_in_epoch": 400})
    found.append(ids(spawned))
    streams = [Stream(local=str(numbers / name), proportion=0.5) for name in "ab"]
    dataset = StreamingDataset(streams=streams, batch_size=8, shuffle=True)
    forked = loader(dataset, 2)
    expected = [ids(forked), ids(forked)]
    dataset.next_epoch = 4
    expected.append(ids(forked)[50:])
    assert found == expected


def test_a_state_reaches_workers_that_are_running(numbers: Path) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"), batch_size=8, shuffle=True, num_canonical_nodes=1)
    other = StreamingDataset(local=str(numbers / "a"), batch_size=8, shuffle=True, shuffle_seed=4)
    expected = ids(loader(other, 2))
    state = {**other.state_dict(80, True), "epoch": 7}
    other.next_epoch = 7
    expected = ids(loader(other, 2))
    persistent = loader(dataset, 2, persistent_workers=True)
    ids(persistent)
    persistent.load_state_dict(state)
    assert ids(persistent) == expected[10:]
    assert persistent.state_dict() == {**state, "sample_in_epoch": 300}
    other.next_epoch = 8
    assert ids(persistent) == ids(loader(other, 2))


def test_an_abandoned_epoch_is_followed_by_the_next_one(numbers: Path) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"), batch_size=8, shuffle=True)
    found = loader(dataset, 2)
    next(iter(found))
    next(iter(dataset))
    assert found.state_dict()["epoch"] == 1
    dataset.next_epoch = 0
    whole = ids(found)
    dataset.next_epoch = 0
    assert ids(found) == whole


# ranks ------------------------------------------------------------------------------------------------------------


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, ranks: int, local: int) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", ranks), ("LOCAL_RANK", rank % local)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))


def steps(root: Path, monkeypatch: pytest.MonkeyPatch, ranks: int, local: int, size: int, state: Any = None) -> Any:
    """The batches of all ranks, step by step, and the state after the fourth step."""
    batches, saved = [], None
    for rank in range(ranks):
        as_rank(monkeypatch, rank, ranks, local)
        dataset = StreamingDataset(local=str(root), batch_size=size, shuffle=True, num_canonical_nodes=4)
        found = StreamingDataLoader(dataset, batch_size=size, collate_fn=only_ids)
        if state:
            found.load_state_dict(state)
        mine = []
        for number, batch in enumerate(found):
            mine.append(batch.tolist())
            saved = found.state_dict() if number == 3 else saved
        batches.append(mine)
    return [sorted(i for batch in step for i in batch) for step in zip(*batches, strict=True)], saved


def test_four_ranks_go_on_as_two(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four, state = steps(numbers / "a", monkeypatch, 4, 2, 5)
    assert state["sample_in_epoch"] == 80
    assert state["initial_physical_nodes"] == 2
    two, _ = steps(numbers / "a", monkeypatch, 2, 2, 10, state)
    assert two == four[4:]
    assert sorted({i for step in four for i in step}) == list(range(300))


def test_replicated_ranks_read_the_same_samples(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in range(4):
        as_rank(monkeypatch, rank, 4, 4)
        dataset = StreamingDataset(local=str(numbers / "a"), batch_size=5, replication=2)
        replicated = StreamingDataLoader(dataset, batch_size=5, collate_fn=only_ids)
        found.append([next(iter(replicated)).tolist(), len(dataset), replicated.state_dict()["sample_in_epoch"]])
    assert found[0] == found[1] != found[2] == found[3]
    assert found[0][1:] == [150, 10]


# copies of a remote -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_forked_workers_index_and_iterate_a_remote(workers: int, bucket: str, tmp_path: Path) -> None:
    write(tmp_path / "local", 0, 120, remote=bucket, compression="zstd")
    dataset = StreamingDataset(remote=bucket, local=str(tmp_path / "a"), batch_size=8, shuffle=True)
    assert sorted(i for batch in ids(loader(dataset, workers)) for i in batch) == list(range(120))
    indexed = StreamingDataset(remote=bucket, local=str(tmp_path / "b"), batch_size=8)
    assert indexed[0]["id"] == 0  # the parent has a client of the store, whose threads no fork has
    subset = torch.utils.data.Subset(indexed, range(5, 120, 7))
    found = ids(DataLoader(subset, batch_size=4, num_workers=workers, collate_fn=only_ids))
    assert [i for batch in found for i in batch] == list(range(5, 120, 7))
    assert len(list((tmp_path / "b").glob("*.mds"))) == len(list((tmp_path / "a").glob("*.mds"))) == indexed.num_shards


def read_and_count(samples: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    return only_ids(samples).tolist(), helpers()


def test_twelve_streams_in_two_workers_need_one_helper_process(bucket: str, tmp_path: Path) -> None:
    write(tmp_path / "local", 0, 10, remote=bucket)
    streams = [Stream(remote=bucket, local=str(tmp_path / f"{i}")) for i in range(12)]
    dataset = StreamingDataset(streams=streams, batch_size=5)
    batches = list(DataLoader(dataset, batch_size=5, num_workers=2, collate_fn=read_and_count))
    assert sorted(i for found, _ in batches for i in found) == sorted([*range(10)] * 12)
    assert len({helper for _, running in batches for helper in running}) == 1


@pytest.mark.filterwarnings("ignore:predownload")
def test_a_directory_that_streaming_has_filled_is_used(tmp_path: Path, streaming: Any) -> None:
    source, cache = write(tmp_path / "source", 0, 200), tmp_path / "cache"
    theirs = streaming.StreamingDataset(remote=str(source), local=str(cache), batch_size=4, predownload=1)
    next(iter(theirs))
    there = {path: path.stat().st_mtime_ns for path in cache.glob("*.mds")}
    assert 0 < len(there) < theirs.num_shards
    ours = StreamingDataset(remote=str(source), local=str(cache), batch_size=4)
    assert [each["id"] for each in ours] == list(range(200))
    assert {path: path.stat().st_mtime_ns for path in there} == there


def test_a_complete_copy_needs_no_remote(tmp_path: Path) -> None:
    copy = write(tmp_path / "copy", 0, 50)
    dataset = StreamingDataset(remote="s3://no-such-bucket/data", local=str(copy), batch_size=4)
    assert [each["id"] for each in dataset] == list(range(50))


def test_a_cache_limit_bounds_copies_and_never_local_streams(tmp_path: Path) -> None:
    source, local = write(tmp_path / "source", 0, 600), write(tmp_path / "local", 1000, 1100)
    size = max(path.stat().st_size for path in source.glob("*.mds"))
    limit = 2 * (5 * size + (source / "index.json").stat().st_size)
    streams = [Stream(remote=str(source), local=str(tmp_path / "cache")), Stream(local=str(local))]
    dataset = StreamingDataset(streams=streams, batch_size=4, cache_limit=limit)
    for _ in range(2):
        assert [each["id"] for each in dataset] == [*range(600), *range(1000, 1100)]
        assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.mds")) <= limit
    assert len(LocalDataset(str(local))) == 100


def test_a_cache_limit_for_other_formats_is_an_error(tmp_path: Path) -> None:
    with JSONWriter(out=str(tmp_path / "source"), columns={"x": "int"}) as writer:
        writer.write({"x": 1})
    local = str(tmp_path / "source")
    assert len(StreamingDataset(local=local, batch_size=1, cache_limit="1mb")) == 1
    with pytest.raises(ValueError, match="cache_limit: expected None for remote streams of JSON"):
        StreamingDataset(remote=local, local=str(tmp_path / "cache"), batch_size=1, cache_limit="1mb")


@pytest.mark.parametrize("name", ["run@refresh", "run@sha256:abc"])
def test_a_directory_may_be_named_like_a_link(name: str, numbers: Path, tmp_path: Path) -> None:
    shutil.copytree(numbers / "b", tmp_path / name)
    dataset = StreamingDataset(remote=str(tmp_path / name), local=str(tmp_path / "cache"), batch_size=4)
    assert len(list(dataset)) == 110


BAD_STATES: dict[str, tuple[Any, str]] = {
    "empty": ({}, "state: expected a dict with epoch, sample_in_epoch"),
    "none": (None, "state: expected a dict"),
    "text": ({"epoch": "x"}, "epoch: expected an int from -1"),
    "negative": ({"sample_in_epoch": -3}, "sample_in_epoch: expected an int from 0"),
    "no nodes": ({"num_canonical_nodes": None}, "num_canonical_nodes: expected an int from 1"),
    "large": ({"shuffle_seed": 1 << 70}, "shuffle_seed: expected an int from 0"),
}


@pytest.mark.parametrize(("change", "error"), BAD_STATES.values(), ids=BAD_STATES)
def test_a_bad_state_is_an_error_and_changes_nothing(change: Any, error: str, numbers: Path) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"), batch_size=4)
    good = dataset.state_dict(0, True)
    with pytest.raises(SettingError, match=error):
        dataset.load_state_dict({**good, **change} if change else change)
    assert dataset.next_epoch == 0
    assert dataset.state_dict(0, True) == good


def test_a_seed_that_no_state_has_room_for_is_an_error(numbers: Path) -> None:
    dataset = StreamingDataset(local=str(numbers / "a"), batch_size=4, shuffle=True, shuffle_seed=(1 << 63) - 1)
    dataset.load_state_dict(dataset.state_dict(296, True))
    with pytest.raises(SettingError, match="shuffle_seed: expected an int from 0, below"):
        StreamingDataset(local=str(numbers / "a"), batch_size=4, shuffle_seed=1 << 63)


@pytest.mark.parametrize("settings", [{"cache_limit": "2kb"}, {"validate_hash": "sha256"}, {"download_retry": 0}])
def test_settings_of_copies_that_cannot_work_are_errors(settings: dict[str, Any], tmp_path: Path) -> None:
    source = write(tmp_path / "source", 0, 100, hashes="sha1")
    with pytest.raises(ValueError, match=next(iter(settings))):
        StreamingDataset(remote=str(source), local=str(tmp_path / "cache"), batch_size=4, **settings)


DROPPED: dict[str, Any] = {
    "local": lambda data, copy: LocalDataset(data)[1],
    "indexed": lambda data, copy: StreamingDataset(local=data, batch_size=1)[1],
    "iterated": lambda data, copy: next(iter(StreamingDataset(local=data, batch_size=4))),
    "copied": lambda data, copy: next(iter(StreamingDataset(remote=data, local=copy, batch_size=4))),
}


@pytest.mark.parametrize("count", [60, pytest.param(10_000, marks=pytest.mark.hunt)])
@pytest.mark.parametrize("use", DROPPED.values(), ids=DROPPED)
def test_datasets_that_are_dropped_leave_descriptors_and_memory_flat(
    use: Any, count: int, numbers: Path, tmp_path: Path
) -> None:
    def held() -> tuple[int, int, int]:
        maps = len(Path("/proc/self/maps").read_text().splitlines())
        return len(os.listdir("/proc/self/fd")), maps, anonymous_bytes()

    def use_and_drop(times: int) -> None:
        for _ in range(times):
            use(str(numbers / "a"), str(tmp_path))

    use_and_drop(30)  # what is made once, such as caches of modules
    descriptors, maps, memory = held()
    use_and_drop(count)
    after = held()
    assert after[0] <= descriptors + 2
    assert after[1] <= maps + 8
    assert after[2] <= memory + max(1 << 20, 400 * count)  # malloc keeps some pages
    assert multiprocessing.active_children() == []


READS = """
import sys
from mx8shards.streaming import StreamingDataLoader, StreamingDataset
for batch in StreamingDataLoader(StreamingDataset(local=sys.argv[1], batch_size=8, shuffle=True), batch_size=8):
    pass
print(*sys.modules)
"""


def test_reading_local_shards_imports_little(numbers: Path) -> None:
    """Each worker that is spawned imports it again, which counts beside torch."""
    run = [sys.executable, "-c", READS, str(numbers / "a")]
    imported = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    rooms = {name.split(".")[1] for name in imported if name.startswith("mx8shards.")}
    assert rooms == {"disk", "errors", "format", "loading", "order", "shards", "streaming"}
    assert not {"numba", "obstore", "PIL", "mx8shards.streaming.split_samples"} & set(imported)
