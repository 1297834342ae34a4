"""How much memory does the plan of an epoch of MosaicML Streaming's order take?"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mx8shards.order.mosaicml import expanded_spans
from mx8shards.order.mosaicml.epoch_plan import plan_epoch
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.stream_weights import StreamWeight, resolve_streams
from mx8shards.order.mosaicml.training_world import Reader, World

SHARDS, PER_SHARD = 1_000, 2_000
SAMPLES = SHARDS * PER_SHARD
# The most bytes per sample of the epoch while it is planned. 1 GB for 10⁸ samples is 10 bytes.
MOST = {"py1e": 10, "py1br": 10, "py1s": 10, "py2s": 24, "naive": 24}


def bytes_per_sample(algo: str, world: World) -> tuple[float, float]:
    """What the plan of a rank's only worker takes, and the peak while it is made, per sample of the epoch."""
    settings = EpochSettings(
        samples_per_shard=np.full(SHARDS, PER_SHARD),
        shards_per_stream=np.array([SHARDS]),
        shares=resolve_streams([StreamWeight()], np.array([SAMPLES]), None, 9176),
        batch_size=8,
        num_canonical_nodes=world.nodes,
        shuffle=True,
        shuffle_algo=algo,
        shuffle_block_size=20_000,
    )
    tracemalloc.start()
    try:
        plan = plan_epoch(settings, world, 1, reader=Reader(node=0, rank=0, worker=0))
        taken, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.worker_ids(0, 0, 0).size >= SAMPLES // world.ranks
    return taken / SAMPLES, peak / SAMPLES


@pytest.mark.parametrize("algo", MOST)
def test_planning_takes_few_bytes_per_sample(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expanded_spans, "_LEAST_WINDOW", 1 << 14)  # as small beside this epoch as it is beside 10⁸
    taken, peak = bytes_per_sample(algo, World())
    assert taken <= 4.5
    assert peak <= MOST[algo]


@pytest.mark.parametrize("algo", MOST)
def test_a_rank_among_many_keeps_only_its_own_samples(algo: str) -> None:
    taken, _ = bytes_per_sample(algo, World(nodes=4, ranks_per_node=8))
    assert taken <= 12 / 32
