"""Does a Loader deliver the samples of a StreamingDataset in its order, after resuming and on several ranks too?"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.order.mosaicml.epoch_plan import plan_epoch
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.stream_weights import StreamWeight, resolve_streams
from mx8shards.order.mosaicml.streaming_order import StreamingOrder
from mx8shards.order.mosaicml.training_world import World
from tests.batches import ids_of, write

COUNTS = (37, 52)
BATCH = 4
CASES = [
    {"shuffle": False},
    {"shuffle": True},
    {"shuffle": True, "shuffle_algo": "py1br", "batching_method": "per_stream"},
    {"shuffle": True, "shuffle_algo": "py1s", "batching_method": "stratified", "sampling_method": "fixed"},
    {"shuffle": True, "shuffle_algo": "py2s", "batching_method": "device_per_stream", "sampling_granularity": 3},
    {"shuffle": True, "shuffle_algo": "naive", "shuffle_seed": 5, "epoch_size": 120},
]
WEIGHTS: list[dict[str, float]] = [{"proportion": 0.25}, {"proportion": 0.75}]


@pytest.fixture(scope="module")
def roots(place: Path) -> list[Path]:
    """Two datasets, whose samples are numbered from 0 across both."""
    first = 0
    for number, count in enumerate(COUNTS):
        samples = [{"id": first + i, "data": bytes(20)} for i in range(count)]
        write(place / f"part{number}", samples, {"id": "int", "data": "bytes"}, size_limit=400).close()
        first += count
    return [place / f"part{number}" for number in range(len(COUNTS))]


@pytest.fixture
def dataset(roots: list[Path]) -> Iterator[mx8.Dataset]:
    with mx8.concat([mx8.Dataset(root) for root in roots]) as dataset:
        yield dataset


def shard_sizes(root: Path) -> list[int]:
    return [shard["samples"] for shard in json.loads((root / "index.json").read_text())["shards"]]


def settings_of(roots: list[Path], case: dict[str, Any], canonical_nodes: int = 2) -> EpochSettings:
    shards = [shard_sizes(root) for root in roots]
    others = {name: value for name, value in case.items() if name != "epoch_size"}
    seed = case.get("shuffle_seed", 9176)
    weights = [StreamWeight(**weight) for weight in WEIGHTS]
    return EpochSettings(
        samples_per_shard=np.array([*itertools.chain(*shards)]),
        shards_per_stream=np.array([len(sizes) for sizes in shards]),
        shares=resolve_streams(weights, np.array(COUNTS), case.get("epoch_size"), seed),
        batch_size=BATCH,
        num_canonical_nodes=canonical_nodes,
        shuffle_block_size=60,
        **others,
    )


def their_dataset(streaming: Any, roots: list[Path], case: dict[str, Any]) -> Any:
    streams = [streaming.Stream(local=str(root), **weight) for root, weight in zip(roots, WEIGHTS, strict=True)]
    return streaming.StreamingDataset(
        streams=streams, batch_size=BATCH, num_canonical_nodes=2, shuffle_block_size=60, **case
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_loader_delivers_the_batches_of_a_streaming_dataset(
    case: dict[str, Any], streaming: Any, roots: list[Path], dataset: mx8.Dataset
) -> None:
    theirs = their_dataset(streaming, roots, case)
    order = StreamingOrder(settings_of(roots, case), World())
    with mx8.Loader(dataset, batch_size=BATCH, order=order) as loader:
        for _ in range(2):
            wanted = [sample["id"] for sample in theirs]
            found = ids_of(loader)
            assert [i for batch in found for i in batch] == wanted
            assert len(found) == -(-len(wanted) // BATCH)


@pytest.mark.filterwarnings("ignore:Because of the `stratified` batching method")
def test_an_epoch_resumes_from_a_state_of_streaming(streaming: Any, roots: list[Path]) -> None:
    for case in CASES:
        theirs = their_dataset(streaming, roots, case)
        state = {"epoch": 3, "sample_in_epoch": 21, "num_canonical_nodes": 3, "shuffle_seed": 4}
        theirs.load_state_dict({**state, "initial_physical_nodes": 1})
        wanted = [sample["id"] for sample in theirs]
        settings = replace(settings_of(roots, case, canonical_nodes=3), shuffle_seed=4)
        ids = plan_epoch(settings, World(), 3, 21, initial_nodes=1).worker_ids(0, 0, 0)
        assert ids[ids >= 0].tolist() == wanted


def test_ranks_of_loaders_read_what_ranks_of_streaming_read(roots: list[Path], dataset: mx8.Dataset) -> None:
    world = World(nodes=2, ranks_per_node=2)
    settings = settings_of(roots, CASES[1])
    plan, order = plan_epoch(settings, world, 1), StreamingOrder(settings, world)
    for rank in range(world.ranks):
        with mx8.Loader(dataset, batch_size=BATCH, order=order, rank=rank, world_size=world.ranks) as loader:
            loader.set_epoch(1)
            found = [batch.sample_ids.tolist() for batch in loader]
        assert found == plan.rank_batches(*world.place(rank), 0, plan.batches).tolist()


def test_a_loader_resumes_the_order_of_its_world_on_another_number_of_ranks(
    roots: list[Path], dataset: mx8.Dataset
) -> None:
    settings, world = settings_of(roots, CASES[1]), World(nodes=2)
    whole = StreamingOrder(settings, world).ids(0, 0, len(StreamingOrder(settings, world)))
    with mx8.Loader(dataset, batch_size=BATCH, order=StreamingOrder(settings, world), rank=0, world_size=2) as loader:
        next(iter(loader))
        state = json.loads(json.dumps(loader.state_dict()))
    assert state["order"]["nodes"] == 2
    with mx8.Loader(dataset, batch_size=8, order=StreamingOrder(settings, world)) as loader:
        loader.load_state_dict(state)
        found = [i for batch in loader for i in batch.sample_ids.tolist()]
    assert found == whole[2 * BATCH :].tolist()


def test_the_description_of_an_order_names_its_world_and_changes_with_its_settings(roots: list[Path]) -> None:
    settings = [settings_of(roots, case) for case in CASES]
    orders = [StreamingOrder(each, World()) for each in settings]
    orders.append(StreamingOrder(settings[0], World(nodes=2)))
    orders.append(StreamingOrder(settings_of(roots, {"epoch_size": 7}), World()))
    told = [json.dumps(order.description, sort_keys=True) for order in orders]
    assert len(set(told)) == len(told)
    assert orders[6].description["nodes"] == 2
    assert orders[0].description == StreamingOrder(settings_of(roots, CASES[0]), World()).description


def test_an_order_over_more_nodes_than_samples_warns_when_it_is_made(roots: list[Path]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        StreamingOrder(settings_of(roots, CASES[0], canonical_nodes=200), World())
    assert "many are repeated" in str(caught[0].message)
