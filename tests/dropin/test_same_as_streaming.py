"""Do samples, order, state and exceptions equal those of the real mosaicml-streaming?"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mx8shards import streaming as ours
from tests.dropin.conftest import write
from tests.strategies import EVERY_COLUMN, EVERY_SAMPLE, same

pytestmark = [pytest.mark.streaming, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")]


def ids(batches: Any) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


def both(streaming: Any, make: Any) -> list[Any]:
    """What a function makes of our package, and of the real one."""
    return [make(module) for module in (ours, streaming)]


ORDERS: dict[str, dict[str, Any]] = {
    "sequential": {},
    **{algo: {"shuffle": True, "shuffle_algo": algo} for algo in ("py1e", "py1br", "py1s", "py2s", "naive")},
    "small blocks": {"shuffle": True, "shuffle_block_size": 40, "num_canonical_nodes": 2},
    "orig": {"shuffle": True, "partition_algo": "orig", "num_canonical_nodes": 4},
    "small epochs": {"shuffle": True, "epoch_size": 130},
    "large epochs, fixed": {"shuffle": True, "epoch_size": "1k", "sampling_method": "fixed"},
    "granular": {"epoch_size": 100, "sampling_granularity": 7},
}


@pytest.mark.parametrize(
    ("settings", "workers"),
    [(settings, 0) for settings in ORDERS.values()] + [(ORDERS[name], 2) for name in ("sequential", "orig")],
    ids=[*ORDERS, "sequential, 2 workers", "orig, 2 workers"],
)
def test_batches_of_two_epochs_are_equal(settings: dict[str, Any], workers: int, numbers: Path, streaming: Any) -> None:
    def batches(module: Any) -> list[list[list[int]]]:
        dataset = module.StreamingDataset(local=str(numbers / "a"), batch_size=8, **settings)
        loader = DataLoader(dataset, batch_size=8, num_workers=workers)
        return [len(dataset), len(loader), ids(loader), ids(loader)]

    mine, theirs = both(streaming, batches)
    assert mine == theirs


MIXES: dict[str, Any] = {
    "none": ({}, {}),
    "proportion": ({"proportion": 0.25}, {"proportion": 0.75}),
    "repeat": ({"repeat": 0.5}, {"repeat": 2.3}),
    "choose": ({"choose": 10}, {}),
}


@pytest.mark.parametrize("weights", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("method", ["random", "stratified", "per_stream", "device_per_stream"])
def test_mixed_streams_are_equal(weights: Any, method: str, numbers: Path, streaming: Any) -> None:
    def facts(module: Any) -> Any:
        streams = [
            module.Stream(remote=None, local=str(numbers / name), **weight)
            for name, weight in zip("ab", weights, strict=True)
        ]
        dataset = module.StreamingDataset(streams=streams, batch_size=10, shuffle=True, batching_method=method)
        about = [dataset.num_samples, dataset.size, dataset.length, dataset.epoch_size, dataset.num_shards]
        about += [getattr(dataset, name).tolist() for name in ARRAYS]
        about += [(stream.proportion, stream.repeat, stream.choose) for stream in dataset.streams]
        about += [dataset.spanner[350], [shard.samples for shard in dataset.shards]]
        return about, [sample["id"] for sample in dataset]

    mine, theirs = both(streaming, facts)
    assert mine == theirs


@pytest.mark.parametrize("settings", [{"epoch_size": 700}, {"epoch_size": 130, "sampling_method": "fixed"}], ids=str)
def test_resampled_streams_are_equal(settings: dict[str, Any], numbers: Path, streaming: Any) -> None:
    def resampled(module: Any) -> list[list[int]]:
        streams = [module.Stream(local=str(numbers / name)) for name in "ab"]
        dataset = module.StreamingDataset(streams=streams, batch_size=4, shuffle=True, **settings)
        found = [dataset.resample_streams(3), dataset.resample_streams(0, 1)]
        return [array.tolist() for pair in found for array in pair]

    mine, theirs = both(streaming, resampled)
    assert mine == theirs


ARRAYS = (
    *("samples_per_shard", "sample_offset_per_shard", "samples_per_stream", "sample_offset_per_stream"),
    *("shards_per_stream", "shard_offset_per_stream", "stream_per_shard"),
)


def test_every_value_is_equal_and_of_the_same_type(tmp_path: Path, streaming: Any) -> None:
    with ours.MDSWriter(out=str(tmp_path / "data"), columns=EVERY_COLUMN) as writer:
        for each in EVERY_SAMPLE:
            writer.write(each)
    mine, theirs = both(
        streaming,
        lambda module: list(
            module.StreamingDataset(local=str(tmp_path / "data"), batch_size=1, allow_unsafe_types=True)
        ),
    )
    for sample, expected in zip(mine, theirs, strict=True):
        assert list(sample) == list(expected)
        for name, value in expected.items():
            assert same(sample[name], value), name
            numbers = isinstance(value, np.generic)
            assert not numbers or sample[name].dtype == value.dtype, name


@pytest.mark.parametrize("saved_by", ["ours", "theirs"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_saved_within_an_epoch_resumes_in_the_other_package(
    saved_by: str, workers: int, numbers: Path, streaming: Any
) -> None:
    first, second = (ours, streaming) if saved_by == "ours" else (streaming, ours)

    def loader(module: Any, canonical: int | None) -> Any:
        dataset = module.StreamingDataset(
            local=str(numbers / "a"), batch_size=8, shuffle=True, num_canonical_nodes=canonical
        )
        return module.StreamingDataLoader(dataset, batch_size=8, num_workers=workers)

    before = loader(first, 2)
    ids(before)
    batches = iter(before)
    seen = [next(batches)["id"].tolist() for _ in range(7)]
    state = json.loads(json.dumps(before.state_dict()))
    rest = ids(batches)
    after = loader(second, None)
    after.load_state_dict(state)
    assert after.state_dict() == state
    assert ids(after) == rest
    assert len(seen) + len(rest) == 38
    assert ids(after) == ids(before)


def test_states_at_all_times_are_equal(numbers: Path, streaming: Any) -> None:
    def states(module: Any) -> Iterator[Any]:
        dataset = module.StreamingDataset(local=str(numbers / "a"), batch_size=16, shuffle=True, shuffle_algo="py1s")
        loader = module.StreamingDataLoader(dataset, batch_size=16)
        yield loader.state_dict()
        for _ in range(2):
            for _ in loader:
                yield loader.state_dict()
            yield loader.state_dict(), dataset.next_epoch
        dataset.load_state_dict({**loader.state_dict(), "epoch": 1, "sample_in_epoch": 48})
        yield loader.state_dict(), dataset.next_epoch
        yield ids(loader)
        dataset.load_state_dict({**loader.state_dict(), "epoch": 5, "sample_in_epoch": 32})
        yield dataset.state_dict(16, True), dataset.state_dict(16, False), dataset.next_epoch
        yield ids(loader)
        yield dataset.state_dict(16, True), dataset.state_dict(16, False), dataset.next_epoch
        yield ids(loader)
        dataset.load_state_dict({**loader.state_dict(), "epoch": 8, "sample_in_epoch": 300})  # the end: an empty epoch
        yield ids(loader), ids(loader), loader.state_dict()

    mine, theirs = both(streaming, lambda module: list(states(module)))
    assert mine == theirs


MISTAKES: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "neither": ({"local": None}, ValueError),
    "both": ({"streams": [1]}, ValueError),
    "sampling": ({"sampling_method": "random"}, ValueError),
    "granularity": ({"sampling_granularity": 0}, ValueError),
    "batching": ({"batching_method": "all"}, ValueError),
    "seed": ({"shuffle_seed": -1}, ValueError),
    "epoch": ({"epoch_size": "many"}, ValueError),
    "negative epoch": ({"epoch_size": -5}, ValueError),
    "limit": ({"cache_limit": "1kb"}, ValueError),
    "replication": ({"replication": 0}, ValueError),
    "odd replication": ({"replication": 2}, ValueError),
    "missing": ({"local": "/nowhere/at/all"}, RuntimeError),
    "canonical nodes": ({"shuffle": True, "shuffle_algo": "py1e", "num_canonical_nodes": 400}, ValueError),
    "split": ({"split": "nowhere"}, RuntimeError),
}


@pytest.mark.parametrize(("settings", "error"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_raise_the_exceptions_of_streaming(
    settings: dict[str, Any], error: type[Exception], numbers: Path, streaming: Any
) -> None:
    for module in (ours, streaming):
        with pytest.raises(error), warnings.catch_warnings():
            list(module.StreamingDataset(**{"local": str(numbers / "a"), "batch_size": 8, **settings}))


@pytest.mark.parametrize("settings", [{"shuffle": True, "shuffle_algo": "py1b"}, {"partition_algo": "none"}])
def test_an_unknown_algorithm_is_an_error_when_an_epoch_begins(settings: dict[str, Any], numbers: Path) -> None:
    dataset = ours.StreamingDataset(local=str(numbers / "a"), batch_size=8, **settings)
    with pytest.raises(ValueError, match="expected one of"):
        next(iter(dataset))


def test_columns_whose_decoding_runs_code_are_refused_unless_they_are_allowed(tmp_path: Path, streaming: Any) -> None:
    with ours.MDSWriter(out=str(tmp_path), columns={"x": "pkl"}) as writer:
        writer.write({"x": {3, 4}})
    for module in (ours, streaming):
        with pytest.raises(ValueError, match=r"pkl|unsafe"):
            module.StreamingDataset(local=str(tmp_path), batch_size=1)
        allowed = module.StreamingDataset(local=str(tmp_path), batch_size=1, allow_unsafe_types=True)
        assert allowed[0]["x"] == {3, 4}


BATCHES: dict[str, Any] = {
    "dict": {"x": [1, 2, 3], "y": [4]},
    "tensor": torch.zeros(5, 2),
    "list of tensors": [torch.zeros(4), torch.zeros(7)],
    "tuple of lists": ([1, 2], [3, 4, 5]),
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_samples_of_a_batch_are_counted_alike(batch: Any, numbers: Path, streaming: Any) -> None:
    mine, theirs = both(
        streaming,
        lambda module: module.StreamingDataLoader(
            module.StreamingDataset(local=str(numbers / "a"), batch_size=1)
        )._get_batch_size(batch),
    )
    assert mine == theirs


def test_a_stream_of_two_weights_is_an_error(streaming: Any) -> None:
    for module in (ours, streaming):
        with pytest.raises(ValueError, match="proportion"):
            module.Stream(local="x", proportion=1, repeat=2)
        with pytest.raises(ValueError, match=r"choose|at least"):
            module.Stream(local="x", choose=-1)


@pytest.mark.parametrize("at", [5, -1, np.int64(7), slice(3, 20, 4), slice(-3, None), [1, [2, -3]], np.array([4, 5])])
def test_indexing_is_equal(at: Any, numbers: Path, streaming: Any) -> None:
    def flat(found: Any) -> Any:
        return [flat(each) for each in found] if isinstance(found, list) else found["id"]

    for kind in ("StreamingDataset", "LocalDataset"):
        mine, theirs = both(streaming, lambda module, kind=kind: getattr(module, kind)(local=str(numbers / "a")))
        assert flat(mine[at]) == flat(theirs[at])
        assert len(mine) == len(theirs) == 300


@pytest.mark.parametrize("at", [300, -301])
def test_an_index_out_of_range_is_an_error(at: int, numbers: Path, streaming: Any) -> None:
    for module in (ours, streaming):
        with pytest.raises(IndexError):
            module.LocalDataset(str(numbers / "a"))[at]


def test_compressed_remote_shards_are_copied_and_decompressed(tmp_path: Path, streaming: Any) -> None:
    write(tmp_path / "remote" / "train", 0, 200, compression="zstd:7", hashes=["sha1", "xxh64"])

    def read(module: Any) -> list[int]:
        cache = tmp_path / module.__name__
        dataset = module.StreamingDataset(
            remote=str(tmp_path / "remote"), local=str(cache), split="train", batch_size=4, validate_hash="sha1"
        )
        return [each["id"] for each in dataset]

    mine, theirs = both(streaming, read)
    assert mine == theirs == list(range(200))
    left = [sorted(p.name for p in (tmp_path / m.__name__ / "train").glob("*.mds*")) for m in (ours, streaming)]
    assert left[0] == left[1]
