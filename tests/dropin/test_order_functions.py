"""Do get_shuffle, get_partitions, get_sampling and generate_work give what those of mosaicml-streaming give?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mx8shards import streaming as ours_package
from mx8shards.streaming.base import batching, partition, sampling, shuffle
from mx8shards.streaming.world import World
from tests.mosaicml_cases import outcome

pytestmark = [pytest.mark.streaming, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")]

CASES = range(60)


def same(ours: Any, theirs: Any, *arguments: Any) -> None:
    mine, its = outcome(ours, *arguments), outcome(theirs, *arguments)
    if its is ValueError or mine is ValueError:
        assert mine is its, arguments
    else:
        assert mine.shape == its.shape
        assert np.array_equal(mine, its), arguments


@pytest.mark.parametrize("algo", ["py1e", "py1br", "py1s", "py2s", "naive"])
def test_shuffles_are_equal(algo: str, streaming: Any) -> None:
    from streaming.base.shuffle import algos, get_shuffle

    for case in CASES:
        rng = np.random.default_rng(case)
        sizes, nodes = rng.integers(1, 40, rng.integers(1, 12)), int(rng.integers(1, 5))
        arguments = (sizes, nodes, case, int(rng.integers(5)), int(rng.integers(4, 90)))
        same(shuffle.get_shuffle, get_shuffle, algo, *arguments)
        same(shuffle.algos[algo], algos[algo], *arguments)
        same(getattr(shuffle, f"get_shuffle_{algo}"), algos[algo], *arguments)


@pytest.mark.parametrize("algo", ["orig", "relaxed"])
def test_partitions_are_equal(algo: str, streaming: Any) -> None:
    from streaming.base.partition import get_partitions

    for case in CASES:
        rng = np.random.default_rng(case)
        samples, nodes = int(rng.integers(8, 400)), int(rng.choice([1, 2, 4]))
        world = (
            int(rng.choice([1, 2, 3, 4])),
            int(rng.integers(1, 4)),
            int(rng.integers(1, 4)),
            int(rng.integers(1, 9)),
        )
        resumed = (int(rng.integers(0, samples)), int(rng.choice([1, 2, 4]))) if case % 2 else ()
        same(partition.get_partitions, get_partitions, algo, samples, nodes, *world, *resumed)


def test_samples_per_shard_are_equal(streaming: Any) -> None:
    from streaming.base.sampling import get_sampling

    for case in CASES:
        rng = np.random.default_rng(case)
        sizes, granularity = rng.integers(1, 40, 6), int(rng.integers(0, 9))
        choose, epoch = int(rng.integers(-1, 300)), int(rng.integers(3))
        same(sampling.get_sampling, get_sampling, sizes, choose, granularity, case, epoch, bool(case % 2))


@pytest.mark.parametrize("method", ["random", "stratified", "per_stream", "device_per_stream"])
def test_work_is_equal(method: str, numbers: Path, streaming: Any) -> None:
    from streaming.base.batching import generate_work
    from streaming.base.world import World as TheirWorld

    def work(module: Any, generate: Any, world: Any) -> Any:
        streams = [module.Stream(local=str(numbers / name), proportion=0.5) for name in "ab"]
        dataset = module.StreamingDataset(streams=streams, batch_size=6, shuffle=True, num_canonical_nodes=2)
        dataset.shuffle_block_size = 100
        return generate(method, dataset, world, 1, 48)

    ours = work(ours_package, batching.generate_work, World(2, 2, 2, 0))
    theirs = work(streaming, generate_work, TheirWorld(2, 2, 2, 0))
    assert np.array_equal(ours, theirs)
