"""Random settings of a StreamingDataset, and the order that mosaicml-streaming itself and we compute from them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.order.mosaicml.epoch_plan import epoch_ids
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.stream_weights import StreamWeight, resolve_streams
from mx8shards.order.mosaicml.training_world import World

Ids = npt.NDArray[np.int64]
ALGORITHMS = ("py1s", "py2s", "py1br", "py1e", "naive")
BATCHING = ("random", "stratified", "per_stream", "device_per_stream")


@dataclass(frozen=True, kw_only=True)
class Case:
    """The arguments of a dataset and of its run."""

    shards: list[list[int]]  # the sizes of each stream's shards
    weights: list[dict[str, Any]]  # the weight of each stream
    epoch_size: int | None = None
    nodes: int = 1
    ranks_per_node: int = 1
    workers: int = 1
    replication: int | None = None
    epoch: int = 0
    sample_in_epoch: int = 0
    initial_nodes: int | None = None
    batch_size: int = 1
    canonical_nodes: int = 1
    sampling_method: Any = "balanced"
    granularity: int = 1
    partition_algo: str = "relaxed"
    shuffle: bool = False
    shuffle_algo: str = "py1e"
    seed: int = 9176
    block_size: int = 1 << 18
    batching_method: Any = "random"

    @property
    def sizes(self) -> list[int]:
        return [size for stream in self.shards for size in stream]

    @property
    def samples_per_stream(self) -> Ids:
        return np.array([sum(stream) for stream in self.shards], np.int64)


def outcome(compute: Any, *arguments: Any) -> Any:
    """The result; or ValueError if one was raised. Warnings are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return compute(*arguments)
        except ValueError:
            return ValueError


def ours(case: Case) -> Ids:
    """The ids of the world, as we compute them."""
    return epoch_ids(
        settings_of(case), world_of(case), case.epoch, case.sample_in_epoch, initial_nodes=case.initial_nodes
    )


def world_of(case: Case) -> World:
    world = World(nodes=case.nodes, ranks_per_node=case.ranks_per_node, workers_per_rank=case.workers)
    return world if case.replication is None else world.replicated(case.replication)


def settings_of(case: Case) -> EpochSettings:
    weights = [StreamWeight(**weight) for weight in case.weights]
    return EpochSettings(
        samples_per_shard=np.array(case.sizes),
        shards_per_stream=np.array([len(stream) for stream in case.shards]),
        shares=resolve_streams(weights, case.samples_per_stream, case.epoch_size, case.seed),
        batch_size=case.batch_size,
        num_canonical_nodes=case.canonical_nodes,
        sampling_method=case.sampling_method,
        sampling_granularity=case.granularity,
        partition_algo=case.partition_algo,
        shuffle=case.shuffle,
        shuffle_algo=case.shuffle_algo,
        shuffle_seed=case.seed,
        shuffle_block_size=case.block_size,
        batching_method=case.batching_method,
    )


def theirs(streaming: Any, case: Case) -> Ids:
    """The ids of the world, as mosaicml-streaming computes them, in a dataset that has no files."""
    from streaming.base.batching import generate_work
    from streaming.base.world import World as TheirWorld

    world = TheirWorld(case.nodes, case.ranks_per_node, case.workers, 0)
    if case.replication is not None:
        world = world.replicate(case.replication)
    found: Ids = generate_work(case.batching_method, _dataset(streaming, case), world, case.epoch, case.sample_in_epoch)
    return found


def _dataset(streaming: Any, case: Case) -> Any:
    dataset = streaming.StreamingDataset.__new__(streaming.StreamingDataset)
    sizes = np.array(case.sizes, np.int64)
    shards = np.array([len(stream) for stream in case.shards], np.int64)
    streams = [SimpleNamespace(**weight) for weight in case.weights]
    dataset.__dict__.update(
        streams=streams,
        num_streams=len(streams),
        samples_per_shard=sizes,
        sample_offset_per_shard=sizes.cumsum() - sizes,
        shards_per_stream=shards,
        shard_offset_per_stream=shards.cumsum() - shards,
        epoch_size=streaming.Stream.apply_weights(streams, case.samples_per_stream, case.epoch_size, case.seed),
        initial_physical_nodes=case.initial_nodes,
        batch_size=case.batch_size,
        num_canonical_nodes=case.canonical_nodes,
        sampling_method=case.sampling_method,
        sampling_granularity=case.granularity,
        epoch_seed_change=case.shuffle and case.sampling_method == "balanced",
        partition_algo=case.partition_algo,
        shuffle=case.shuffle,
        shuffle_algo=case.shuffle_algo,
        shuffle_seed=case.seed,
        shuffle_block_size=case.block_size,
    )
    return dataset


# random cases ---------------------------------------------------------------------------------------------------------


def random_case(rng: np.random.Generator) -> Case:
    """Small numbers, so that all borders are met; most cases are valid."""

    def pick(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    def upto(least: int, most: int) -> int:
        return int(rng.integers(least, most + 1))

    largest = pick(3, 12, 40)
    shards = [_shard_sizes(rng, upto(1, 6), largest) for _ in range(pick(1, 1, 2, 3, 5))]
    samples = sum(map(sum, shards))
    weights, may_size = _weights(rng, [sum(stream) for stream in shards])
    nodes, ranks, workers, batch_size = pick(1, 1, 2, 3, 4), upto(1, 4), upto(1, 3), pick(1, 1, 2, 3, 5, 8)
    global_batch = nodes * ranks * batch_size
    return Case(
        shards=shards,
        weights=weights,
        epoch_size=upto(1, 2 * samples) if may_size and pick(True, False) else None,
        nodes=nodes,
        ranks_per_node=ranks,
        workers=workers,
        replication=pick(*[None] * 5, 1, ranks, ranks, nodes * ranks, 2, 3),
        epoch=pick(0, 0, 1, 2, 7),
        sample_in_epoch=pick(0, 0, global_batch, upto(0, 4) * global_batch, upto(0, samples + 9)),
        initial_nodes=pick(None, None, nodes, 1, 2, 3, 4),
        batch_size=batch_size,
        canonical_nodes=pick(nodes, nodes, 2 * nodes, 1, 2, 3, 4, 12, 64),
        sampling_method=pick("balanced", "fixed"),
        granularity=pick(1, 1, 2, 5, 100),
        partition_algo=pick("relaxed", "orig"),
        shuffle=pick(True, True, False),
        shuffle_algo=pick(*ALGORITHMS),
        seed=pick(0, 1, 9176, upto(0, 1 << 31)),
        block_size=pick(1, 4, 20, 100, 1 << 18, upto(0, 60)),
        batching_method=pick("random", *BATCHING),
    )


def _shard_sizes(rng: np.random.Generator, count: int, largest: int) -> list[int]:
    """The sizes of a stream's shards; few are empty, but not all."""
    sizes = rng.integers(1, largest + 1, count)
    sizes[rng.random(count) < 0.05] = 0
    sizes[int(rng.integers(count))] = int(rng.integers(1, largest + 1))
    found: list[int] = sizes.tolist()
    return found


def _weights(rng: np.random.Generator, sizes: list[int]) -> tuple[list[dict[str, Any]], bool]:
    """A weight per stream, and whether an epoch size is usually allowed."""

    def absolute(size: int) -> dict[str, Any]:
        kind = int(rng.integers(4))
        repeat = float(rng.choice([0.0, 0.3, 0.5, 1.0, 1.25, 2.0, 2.7], p=[0.04, *[0.16] * 6]))
        return ({}, {"repeat": repeat}, {"choose": int(rng.integers(0, 3 * size + 1))}, {"repeat": 0.5})[kind]

    kind = int(rng.integers(4))
    if kind == 0:
        return [{} for _ in sizes], True
    if kind == 1:
        return [{"proportion": float(rng.choice([0.1, 0.25, 1.0, rng.random()]))} for _ in sizes], True
    if kind == 2:
        return [absolute(size) for size in sizes], bool(rng.random() < 0.1)
    return [{"repeat": 1.0} for _ in sizes], False
