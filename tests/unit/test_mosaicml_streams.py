"""How many samples does an epoch take from each stream and each shard, and which?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.order.mosaicml.epoch_settings import EpochSettings, default_block_size, default_canonical_nodes
from mx8shards.order.mosaicml.resampling import Rows, resampled
from mx8shards.order.mosaicml.shard_sampling import chosen_per_shard
from mx8shards.order.mosaicml.stream_weights import StreamShares, StreamWeight, resolve_streams

SIZES = np.array([40, 20, 10])


def resolved(*weights: dict[str, Any], epoch_size: int | None = None, seed: int = 7) -> StreamShares:
    return resolve_streams([StreamWeight(**weight) for weight in weights], SIZES, epoch_size, seed)


def test_without_weights_every_sample_is_read_once() -> None:
    shares = resolved({}, {}, {})
    assert shares.choose.tolist() == [40, 20, 10]
    assert shares.repeat.tolist() == [1, 1, 1]
    assert shares.proportion.tolist() == [4 / 7, 2 / 7, 1 / 7]
    assert shares.epoch_size == 70


def test_repeat_is_rounded_down_and_choose_is_exact() -> None:
    shares = resolved({"repeat": 0.99}, {"choose": 50}, {})
    assert shares.choose.tolist() == [39, 50, 10]
    assert shares.epoch_size == 99


def test_proportions_divide_the_epoch_and_samples_left_over_by_rounding_go_to_random_streams() -> None:
    drawn = {tuple(resolved(*[{"proportion": 3}] * 3, epoch_size=100, seed=seed).choose) for seed in range(20)}
    assert drawn == {(34, 33, 33), (33, 34, 33), (33, 33, 34)}
    assert resolved(*[{"proportion": 1}] * 3).epoch_size == 70


def test_an_epoch_size_alone_is_divided_in_proportion_to_the_streams() -> None:
    assert resolved({}, {}, {}, epoch_size=7).choose.tolist() == [4, 2, 1]
    assert resolved({}, {}, {}, epoch_size=0).epoch_size == 70


@pytest.mark.parametrize(
    ("weights", "epoch_size", "told"),
    [
        ([{"proportion": 1}, {}, {}], None, "streams: stream 1: expected a proportion for all streams .* got none"),
        ([{"repeat": 1}, {}, {"proportion": 2}], None, "streams: stream 2: .* got 2"),
        ([{"repeat": 1}, {}, {}], 10, "epoch_size: expected None beside streams with repeat or choose.* got 10"),
        ([{"repeat": 1, "choose": 3}], None, "stream: expected at most one .* got repeat and choose"),
        ([{"choose": -1}], None, "choose: expected a number from 0, got -1"),
        ([{"repeat": float("nan")}], None, "repeat: expected a number from 0, got nan"),
        ([{"proportion": "2"}], None, "proportion: expected a number from 0, got '2'"),
        ([{"choose": 0}, {"repeat": 0.01}, {"repeat": 0}], None, "streams: expected a weight above 0.* got none"),
        ([{"proportion": 0}] * 3, 10, "streams: expected a weight above 0.* got none"),
    ],
)
def test_weights_that_exclude_each_other_are_refused(weights: Any, epoch_size: int | None, told: str) -> None:
    with pytest.raises(mx8.SettingError, match=told):
        resolved(*weights, epoch_size=epoch_size)


def test_the_number_of_canonical_nodes_and_the_block_size_have_streamings_defaults() -> None:
    assert [default_canonical_nodes(algo, 2) for algo in ("py1s", "py2s", "py1e", "naive")] == [128, 128, 2, 2]
    assert [default_block_size(nodes) for nodes in (1, 8, 64)] == [4_000_000, 500_000, 1 << 18]


# shards ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "choose", "granularity", "seed", "wanted"),
    [
        ([4, 2, 5, 3], 28, 1, 7, [8, 4, 10, 6]),
        ([4, 2, 5, 3], 9, 1, 8, [3, 0, 3, 3]),
        ([4, 2, 5, 3], 9, 3, 7, [3, 2, 1, 3]),
        ([4, 2, 5, 3], 28 + 9, 3, 7, [11, 6, 11, 9]),
        ([5, 2, 0, 3], 10, 5, 7, [5, 2, 0, 3]),
        ([6, 0, 3], 4, 4, 2, [1, 0, 3]),
        ([3, 0], 2, 2, 0, [2, 0]),
    ],
)
def test_samples_are_taken_from_random_shards_a_few_at_a_time(
    sizes: list[int], choose: int, granularity: int, seed: int, wanted: list[int]
) -> None:
    assert chosen_per_shard(np.array(sizes), choose, granularity, seed).tolist() == wanted


def settings_of(shards: list[int], streams: list[int], choose: list[int], **others: Any) -> EpochSettings:
    counts = np.array(choose)
    shares = StreamShares(choose=counts, proportion=counts / counts.sum(), repeat=counts / 1, epoch_size=sum(choose))
    return EpochSettings(
        samples_per_shard=np.array(shards),
        shards_per_stream=np.array(streams),
        shares=shares,
        **{"batch_size": 1, "num_canonical_nodes": 1, **others},
    )


def ids_of(rows: Rows) -> list[int]:
    found = rows.at(np.arange(len(rows)))
    for unit, (start, stop) in enumerate(zip(rows.starts[:-1], rows.starts[1:], strict=True)):
        for offset in range(stop - start):
            assert rows.ids(unit, offset, stop - start - offset).tolist() == found[start + offset : stop].tolist()
    return found.tolist()


def test_a_shard_read_two_and_a_half_times_is_two_whole_units_and_half_a_one() -> None:
    rows = resampled(settings_of([4, 2], [2], [15]), 0, range(1))
    assert rows.sizes.tolist() == [4, 4, 2, 2, 2, 1]
    found = ids_of(rows)
    assert found[:8] == [0, 1, 2, 3] * 2
    assert found[8] < found[9] < 4
    assert found[10:14] == [4, 5] * 2
    assert found[14] in (4, 5)


def test_a_stream_of_its_own_has_its_own_shards_and_the_ids_of_all_streams() -> None:
    settings = settings_of([4, 2, 0, 3], [1, 2, 1], [4, 2, 3])
    assert [ids_of(resampled(settings, 0, range(i, i + 1))) for i in range(3)] == [[0, 1, 2, 3], [4, 5], [6, 7, 8]]
    assert ids_of(resampled(settings, 0, range(3))) == list(range(9))


@pytest.mark.parametrize(("method", "shuffle", "differ"), [("balanced", False, True), ("fixed", True, False)])
def test_balanced_sampling_draws_other_samples_in_every_epoch_and_fixed_sampling_does_not(
    method: Any, shuffle: bool, differ: bool
) -> None:
    settings = settings_of([100], [1], [50], sampling_method=method, shuffle=shuffle)
    first, second = (ids_of(resampled(settings, epoch, range(1))) for epoch in (0, 1))
    assert (first != second) is differ
    assert len(set(first)) == 50


def test_a_stream_of_its_own_without_samples_is_refused() -> None:
    settings = settings_of([4, 2], [1, 1], [4, 0])
    assert ids_of(resampled(settings, 0, range(2))) == [0, 1, 2, 3]
    with pytest.raises(mx8.SettingError, match="stream 1: expected at least one sample per epoch, got none"):
        resampled(settings, 0, range(1, 2))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sampling_method": "even"}, "sampling_method: expected one of 'balanced', 'fixed', got 'even'"),
        ({"batching_method": "mixed"}, "batching_method: expected one of 'random', .* got 'mixed'"),
        ({"num_canonical_nodes": 1 << 21}, "num_canonical_nodes: expected an int from 1 to 1048576"),
        ({"sampling_granularity": 0}, "sampling_granularity: expected an int from 1"),
        ({"shuffle_seed": -1}, "shuffle_seed: expected an int from 0"),
        ({"streams": [2]}, r"shards_per_stream: expected 1 shards of 1 streams.*, got \[2\]"),
        ({"streams": [1, 0]}, r"shards_per_stream: expected 1 shards of 1 streams.*, got \[1, 0\]"),
        ({"shards": [0]}, "samples_per_shard: expected at least one sample per stream"),
        ({"shards": [4, 0], "streams": [1, 1], "choose": [4, 1]}, "samples_per_shard: expected at least one sample"),
        ({"shards": [4, 9, -2], "streams": [1, 2], "choose": [4, 1]}, "samples_per_shard: expected at least one"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(mx8.SettingError, match=told):
        settings_of(**{"shards": [4], "streams": [1], "choose": [4], **wrong})
