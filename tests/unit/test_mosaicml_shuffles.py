"""Do the shuffles give the ids that mosaicml-streaming gives? The literal lists were computed with version 0.13.0."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.order.mosaicml import expanded_spans, id_chunks, shuffles
from mx8shards.order.mosaicml.canonical_spans import canonical_spans
from mx8shards.order.mosaicml.expanded_spans import ascending, expanded
from mx8shards.order.mosaicml.id_chunks import IdQueue, collected, id_dtype, joined, picked
from mx8shards.order.mosaicml.resampling import Rows
from mx8shards.order.mosaicml.shuffles import ALGORITHMS, Shuffling


def rows_of(sizes: list[int]) -> Rows:
    """Units of these sizes, each with all samples of a shard."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Rows(starts, starts[:-1], np.full(len(sizes), -1), np.empty(0, np.uint8), sum(sizes))


def shuffled(algo: str, sizes: list[int], **others: Any) -> list[int]:
    how = Shuffling(**{"nodes": 2, "seed": 7, "epoch": 0, "block_size": 6, **others})
    return [i for chunk in shuffles.shuffled(algo, rows_of(sizes), how) for i in chunk.tolist()]


@pytest.mark.parametrize(
    ("algo", "first", "second"),
    [
        ("py1s", [3, 1, 2, 0, 6, 7, 8, 9, 10, 13, 11, 12, 4, 5], [6, 7, 8, 1, 3, 2, 0, 9, 10, 5, 4, 12, 11, 13]),
        ("py2s", [2, 3, 0, 1, 6, 10, 7, 9, 8, 5, 4, 11, 13, 12], [6, 10, 7, 0, 3, 1, 2, 5, 4, 8, 9, 13, 12, 11]),
        ("py1br", [7, 3, 2, 1, 0, 6, 8, 12, 4, 13, 10, 11, 9, 5], [8, 3, 1, 6, 7, 2, 0, 4, 5, 9, 10, 13, 12, 11]),
        ("py1e", [3, 1, 2, 0, 6, 7, 8, 10, 11, 9, 13, 5, 12, 4], [6, 7, 1, 8, 3, 2, 0, 9, 10, 4, 5, 11, 13, 12]),
        ("naive", [3, 12, 8, 6, 7, 0, 4, 1, 13, 10, 2, 5, 9, 11], [11, 0, 3, 7, 8, 1, 12, 6, 13, 5, 10, 9, 2, 4]),
    ],
)
def test_a_small_epoch_is_shuffled_as_streaming_does(algo: str, first: list[int], second: list[int]) -> None:
    assert shuffled(algo, [4, 2, 5, 3]) == first
    assert shuffled(algo, [4, 2, 5, 3], epoch=1) == second


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_sample_appears_once_and_stays_in_its_canonical_node(algo: str) -> None:
    sizes = [30, 10, 50, 25, 25]
    halves = [shuffled(algo, sizes, epoch=epoch, block_size=60)[:70] for epoch in (0, 1)]
    assert sorted(shuffled(algo, sizes, block_size=60)) == list(range(140))
    assert halves[0] != halves[1]
    assert (set(halves[0]) == set(halves[1])) is (algo != "naive")


@pytest.mark.parametrize("algo", ["py1b", "py3", None])
def test_py1b_which_streaming_removed_and_unknown_names_are_refused(algo: Any) -> None:
    with pytest.raises(
        mx8.SettingError, match="shuffle_algo: expected one of 'py1e', 'py1br', 'py1s', 'py2s', 'naive'"
    ):
        shuffled(algo, [4])


def test_units_are_cut_where_a_canonical_node_ends() -> None:
    spans = canonical_spans(np.array([4, 2, 5, 3]), 2, np.random.default_rng(7))
    assert list(spans) == [(0, 0, 4), (2, 0, 3), (2, 3, 2), (1, 0, 2), (3, 0, 3)]
    assert [list(part) for part in spans.per_node()] == [list(spans)[:2], list(spans)[2:]]
    assert spans.edges.tolist() == [0, 2, 5]


def test_a_unit_that_ends_with_its_canonical_node_is_not_cut_and_a_node_may_be_empty() -> None:
    assert canonical_spans(np.array([2, 2]), 2, np.random.default_rng(0)).edges.tolist() == [0, 1, 2]
    assert canonical_spans(np.array([2]), 4, np.random.default_rng(0)).edges.tolist() == [0, 0, 1, 1, 2]


def test_py1e_refuses_a_canonical_node_without_samples() -> None:
    with pytest.raises(mx8.SettingError, match=r"num_canonical_nodes: .* got a canonical node without samples"):
        shuffled("py1e", [2], nodes=3)
    assert sorted(shuffled("py1s", [2], nodes=3)) == [0, 1]


def test_py1e_warns_if_a_shard_is_larger_than_the_block() -> None:
    with pytest.warns(UserWarning, match="shuffle_block_size is smaller than some shards"):
        found = shuffled("py1e", [20, 20], nodes=1, block_size=10)
    assert [sorted(found[:20]), sorted(found[20:])] in (
        [[*range(20)], [*range(20, 40)]],
        [[*range(20, 40)], [*range(20)]],
    )


@pytest.mark.parametrize(("algo", "least"), [("py1e", 1), ("py1br", 2)])
def test_blocks_that_are_too_small_are_refused(algo: str, least: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sorted(shuffled(algo, [4, 2, 5, 3], block_size=least)) == list(range(14))
    with pytest.raises(mx8.SettingError, match=f"shuffle_block_size: expected at least {least} .* got {least - 1}"):
        shuffled(algo, [4, 2, 5, 3], block_size=least - 1)


# windows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 7, 40, 1000])
def test_sorting_in_windows_gives_the_order_of_sorting_all_at_once(
    block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = np.random.default_rng(block_size).integers(1, 30, 80)
    found = []
    for window in (1, 50, 1 << 18):
        monkeypatch.setattr(expanded_spans, "_LEAST_WINDOW", window)
        spans = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            queue = IdQueue(spans, np.dtype(np.uint32))
            chunks = list(expanded(queue, sizes, block_size, np.random.default_rng(3)))
        found.append(np.concatenate(chunks).tolist())
    assert found[0] == found[1] == found[2]
    assert sorted(found[0]) == list(range(int(sizes.sum())))


@pytest.mark.parametrize("offset", [0.0, -5.5, 1e8])
def test_places_are_sorted_as_by_a_stable_argsort_even_if_they_are_close_or_equal(offset: float) -> None:
    rng = np.random.default_rng(5)
    for count in (1, 2, 3, 1000):
        places = offset + rng.integers(0, max(count // 2, 1), count) + rng.choice([0, 1e-13, 1e-7, 0.5], count)
        assert ascending(places).tolist() == np.argsort(places, kind="stable").tolist()
    assert ascending(np.empty(0)).tolist() == []


def test_places_closer_than_the_fixed_point_are_sorted_exactly() -> None:
    places = np.array([0.5 + 3e-13, 1e6, 0.5 + 1e-13, 0.5, 0.5 + 2e-13, 0.25, 0.5, 1e6 - 1e-9])
    assert ascending(places).tolist() == [5, 3, 6, 2, 4, 0, 7, 1]
    clusters = np.repeat(np.arange(200) * 5e3, 5) + np.random.default_rng(1).random(1000) * 1e-11
    assert ascending(clusters).tolist() == np.argsort(clusters, kind="stable").tolist()


# chunks ---------------------------------------------------------------------------------------------------------------


def chunks_of(*sizes: int) -> list[Any]:
    return np.split(np.arange(sum(sizes)) * 10, np.cumsum(sizes)[:-1])


def test_a_queue_gives_any_number_of_ids_at_a_time() -> None:
    queue = IdQueue(chunks_of(3, 0, 1, 4), np.dtype(np.uint32))
    assert queue.take(0).dtype == np.uint32
    assert [queue.take(count).tolist() for count in (2, 0, 3, 3)] == [[0, 10], [], [20, 30, 40], [50, 60, 70]]


def test_small_chunks_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_chunks, "_LEAST", 3)
    assert [chunk.tolist() for chunk in joined(chunks_of(2, 2, 5, 1))] == [[0, 10, 20, 30], [40, 50, 60, 70, 80], [90]]
    assert list(joined([])) == []


@pytest.mark.parametrize("indices", [[], [0], [7], [1, 1, 2, 5, 5, 7], list(range(8))])
def test_ids_are_collected_or_picked_from_chunks(indices: list[int]) -> None:
    chunks = chunks_of(3, 0, 1, 4)
    assert collected(chunks, 8, id_dtype(8)).tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert picked(chunks, np.array(indices, np.uint32), id_dtype(8)).tolist() == [10 * i for i in indices]


def test_ids_take_four_bytes_if_they_and_their_number_fit() -> None:
    assert [id_dtype(count).itemsize for count in (1, (1 << 32) - 1, 1 << 32)] == [4, 4, 8]
