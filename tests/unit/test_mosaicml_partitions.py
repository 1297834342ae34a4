"""Are rows divided among nodes, ranks, workers and batches as in mosaicml-streaming?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.order.mosaicml.partitions import partition
from mx8shards.order.mosaicml.training_world import World


def divided(count: int, canonical: int, nodes: int, ranks: int, workers: int, batch_size: int, **others: Any) -> Any:
    """The batches of each rank, over all its workers."""
    world = World(nodes=nodes, ranks_per_node=ranks, workers_per_rank=workers)
    found = partition(others.pop("algo", "orig"), count, canonical, world, batch_size, **others)
    rows = found.at(np.arange(len(found))).reshape(found.batches, nodes * ranks, batch_size)
    return rows.transpose(1, 0, 2).tolist()


def test_ranks_take_turns_at_the_rows_of_canonical_nodes_which_take_turns_too() -> None:
    assert divided(12, 2, 2, 1, 1, 3) == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    assert divided(10, 2, 1, 2, 1, 2) == [[[0, 1], [2, 3], [4, -1]], [[5, 6], [7, 8], [9, -1]]]


def test_workers_have_equally_many_batches_which_are_padded() -> None:
    padding = [-1, -1]
    assert divided(7, 1, 2, 2, 2, 2) == [[[0, 4], padding], [[2, 6], padding], [[1, 5], padding], [[3, 5], padding]]


def test_rows_that_were_already_read_are_left_out() -> None:
    assert divided(9, 2, 1, 2, 1, 2, drop=4) == [[[2, 3], [3, -1]], [[6, 7], [8, -1]]]
    assert divided(12, 2, 2, 1, 1, 3, drop=7) == [[[3, 4, 5]], [[9, 10, 11]]]
    assert divided(12, 2, 2, 1, 1, 3, drop=12) == [[], []]


def test_a_short_canonical_node_repeats_its_last_row_and_ranks_repeat_earlier_ones() -> None:
    assert divided(5, 2, 1, 1, 1, 6) == [[[0, 2, 1, 3, 1, 4]]]
    assert divided(5, 2, 2, 2, 1, 2) == [[[0, 1]], [[1, 1]], [[2, 4]], [[3, 3]]]


def test_the_nodes_that_share_a_canonical_node_read_equally_many_rows() -> None:
    assert divided(10, 1, 4, 1, 1, 2) == [[[0, 4], [8, -1]], [[1, 5], [9, -1]], [[2, 6], [5, -1]], [[3, 7], [6, -1]]]


def test_too_few_rows_are_repeated_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="2 samples are divided among 4 canonical nodes: many are repeated"):
        assert divided(2, 4, 2, 2, 1, 1) == [[[0]], [[0]], [[1]], [[1]]]
    with pytest.warns(UserWarning, match="3 samples are divided among 8 ranks: many are repeated"):
        assert divided(3, 1, 1, 8, 1, 1) == [[[row]] for row in (0, 1, 2, 0, 1, 2, 0, 1)]


def test_a_relaxed_partition_goes_on_with_a_number_of_nodes_that_does_not_fit() -> None:
    before = divided(12, 2, 2, 1, 1, 3, algo="relaxed")
    after = divided(12, 2, 3, 1, 1, 2, algo="relaxed", initial_nodes=2)
    assert before == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    assert after == [[[0, 1], [3, 4]], [[2, 6], [5, 9]], [[7, 8], [10, 11]]]
    steps = [[{row for rank in found for row in rank[step]} for step in range(2)] for found in (before, after)]
    assert steps[0] == steps[1]


def test_a_relaxed_partition_is_the_original_one_where_nodes_fit() -> None:
    for initial_nodes in (None, 1, 4):
        assert divided(13, 4, 2, 2, 2, 2, algo="relaxed", initial_nodes=initial_nodes) == divided(13, 4, 2, 2, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "others", "told"),
    [
        (
            (12, 2, 3, 1, 1, 2),
            {},
            "num_canonical_nodes: expected a divisor or a multiple of .* nodes, 3, got 2",
        ),
        ((12, 2, 3, 1, 1, 2), {"algo": "relaxed"}, "num_canonical_nodes: expected a divisor"),
        ((12, 2, 3, 1, 1, 1), {"algo": "relaxed", "initial_nodes": 2}, "batch_size: expected the global batch size"),
        ((12, 2, 3, 1, 1, 2), {"algo": "relaxed", "initial_nodes": 3}, "num_canonical_nodes: expected a divisor"),
        ((12, 1, 1, 5, 1, 2), {"drop": 16}, "sample_in_epoch: expected at most the epoch's 12 samples, got 16"),
        ((3, 1, 4, 1, 1, 1), {}, "epoch_size: expected more samples than 3 for 4 nodes"),
        ((3, 1, 1, 1, 1, 1), {"algo": "new"}, "partition_algo: expected one of 'relaxed', 'orig', got 'new'"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_refused(arguments: Any, others: dict[str, Any], told: str) -> None:
    with pytest.raises(mx8.SettingError, match=told):
        divided(*arguments, **others)


def test_positions_are_computed_one_by_one_as_well_as_together() -> None:
    found = partition("orig", 1000, 6, World(nodes=3, ranks_per_node=4, workers_per_rank=2), 7, drop=120)
    together = found.at(np.arange(len(found))).tolist()
    assert [int(found.at(np.array([position]))[0]) for position in range(len(found))] == together


# the world ------------------------------------------------------------------------------------------------------------


def test_replicated_ranks_count_as_one_and_may_share_one_node() -> None:
    world = World(nodes=2, ranks_per_node=4, workers_per_rank=3)
    assert world.ranks == 8
    assert world.replicated(1) == world
    assert world.replicated(2) == World(nodes=1, ranks_per_node=4, workers_per_rank=3)
    assert world.replicated(4) == World(nodes=1, ranks_per_node=2, workers_per_rank=3)
    assert World(nodes=3, ranks_per_node=2).replicated(2) == World(nodes=1, ranks_per_node=3)
    assert World(nodes=10, ranks_per_node=4).replicated(4) == World(nodes=1, ranks_per_node=10)
    assert [world.place(rank) for rank in (0, 3, 4, 7)] == [(0, 0), (0, 3), (1, 0), (1, 3)]


@pytest.mark.parametrize("replication", [0, -1, 3, 16])
def test_a_replication_divides_the_number_of_ranks(replication: int) -> None:
    with pytest.raises(mx8.SettingError, match="replication: expected"):
        World(nodes=2, ranks_per_node=4).replicated(replication)
