"""Is a shuffle statistically like `numpy.random`'s, and how far from it is a block shuffle?

All seeds are fixed, so a test always passes or always fails. The statistics detect weak permutations: they count pairs
of positions in one batch, or in one row or column of the Feistel grid, whose values are close together, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from mx8shards.order import permutation
from mx8shards.order.blocks import BlockOrder, BlockShuffle
from mx8shards.order.keys import Key
from mx8shards.order.orders import Order, Shuffle
from mx8shards.order.permutation import Permutation, Permutations
from mx8shards.order.shard_lookup import ShardLookup

Ids = npt.NDArray[np.int64]

BATCH, LABELS = 256, 100


def excess_pairs(of_position: Ids, of_value: Ids) -> float:
    """Pairs that share a label of their positions and one of their values, less those expected: an unscaled χ²."""
    n, width = len(of_position), int(of_value.max()) + 1
    counts = np.bincount(of_position * width + of_value).astype(np.float64)
    rows, columns = (np.bincount(labels).astype(np.float64) for labels in (of_position, of_value))
    expected = (rows * (rows - 1)).sum() * (columns * (columns - 1)).sum() / (n * (n - 1.0))
    return float((counts * (counts - 1)).sum() - expected)


def statistics(values: Ids) -> dict[str, float]:
    """Statistics whose distribution over permutations is equal for all good shuffles."""
    n = len(values)
    positions = np.arange(n)
    bits = ((n - 1).bit_length() + 1) // 2  # rows and columns of the grid, where structure could remain
    mask = (1 << bits) - 1
    found = {
        "labels in a batch": excess_pairs(positions // BATCH, values * LABELS // n),
        "remainders in a batch": excess_pairs(positions // BATCH, values % 97),
        "labels in a residue class": excess_pairs(positions % 8, values * 8 // n),
        "row to row": excess_pairs(positions >> bits, values >> bits),
        "row to column": excess_pairs(positions >> bits, values & mask),
        "column to row": excess_pairs(positions & mask, values >> bits),
        "column to column": excess_pairs(positions & mask, values & mask),
        "fixed points": float((values == positions).sum()),
        "neighbours": float((np.abs(np.diff(values)) == 1).sum()),
    }
    for lag in (1, 2, 1 << bits):
        one, other = values[lag:], values[:-lag]
        found[f"product at lag {lag}"] = float((one * (other / n**2)).mean())
        found[f"same row at lag {lag}"] = float((one >> bits == other >> bits).sum())
        found[f"same column at lag {lag}"] = float((one & mask == other & mask).sum())
    return found


def largest_difference(n: int, keys: int, shuffled: Callable[[int], Ids]) -> float:
    """The largest difference from NumPy's permutations, in standard errors, of any statistic's mean or spread."""
    rng = np.random.default_rng(n)
    ours = [statistics(shuffled(seed)) for seed in range(keys)]
    theirs = [statistics(rng.permutation(n)) for _ in range(keys)]
    worst = 0.0
    for name in ours[0]:
        one, other = (np.array([row[name] for row in rows]) for rows in (ours, theirs))
        means = abs(one.mean() - other.mean()) / math.sqrt((one.var() + other.var()) / keys)
        kurtosis = ((other - other.mean()) ** 4).mean() / other.var() ** 2
        spreads = abs(math.log(one.var() / other.var())) / math.sqrt(2 * (kurtosis - 1) / keys)
        worst = max(worst, means, spreads)
    return worst


def by_seed(n: int) -> Callable[[int], Ids]:
    return lambda seed: Shuffle(n, Key("sha256:00", "whole", seed)).ids(seed % 3, 0, n)


def chi_squared_as_normal(counts: npt.NDArray[np.int64], df: int) -> float:
    """χ² of counts that should be equal, transformed to a standard normal (Wilson and Hilferty)."""
    expected = counts.sum() / counts.size
    chi2 = float(((counts - expected) ** 2).sum() / expected)
    return ((chi2 / df) ** (1 / 3) - 1 + 2 / (9 * df)) / math.sqrt(2 / (9 * df))


def orders_of(n: int, draws: int) -> npt.NDArray[np.int64]:
    """The counts of the n! orders of range(n) in `draws` permutations of one key."""
    family = Permutations(np.full(draws, n), Key("sha256:00", "whole", n).words("orders", 0))
    numbers = np.arange(draws)
    code = np.zeros(draws, np.int64)
    for i in range(n):
        code = code * n + family.of(numbers, np.full(draws, i))
    seen, counts = np.unique(code, return_counts=True)
    assert len(seen) <= math.factorial(n)
    return np.concatenate([counts, np.zeros(math.factorial(n) - len(seen), np.int64)])


def values_at(n: int, draws: int) -> npt.NDArray[np.int64]:
    """The counts of each value at each position."""
    family = Permutations(np.full(draws, n), Key("sha256:00", "whole", n).words("values", 0))
    every = [family.of(np.arange(draws), np.full(draws, i)) for i in range(n)]
    return np.stack([np.bincount(values, minlength=n) for values in every])


# a whole shuffle ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1000, 4097])
def test_shuffles_are_statistically_like_numpys(n: int) -> None:
    assert largest_difference(n, 120, by_seed(n)) < 4.5


def test_the_statistics_detect_a_feistel_network_of_four_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "_ROUNDS", 4)
    assert largest_difference(4097, 120, by_seed(4097)) > 6


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_of_few_positions_are_equally_frequent(n: int) -> None:
    assert abs(chi_squared_as_normal(orders_of(n, 300 * math.factorial(n)), math.factorial(n) - 1)) < 4


def test_all_orders_of_four_are_equally_frequent_over_keys() -> None:
    counts = np.zeros(256, np.int64)
    for seed in range(1500):
        key = Key("sha256:00", "whole", seed)
        counts[np.dot(Permutation(4, key.words("shuffle", 0)).of(np.arange(4)), [64, 16, 4, 1])] += 1
    assert np.count_nonzero(counts) == 24
    assert abs(chi_squared_as_normal(counts[counts > 0], 23)) < 4


@pytest.mark.parametrize("n", [9, 33])
def test_every_value_is_equally_frequent_at_every_position(n: int) -> None:
    assert abs(chi_squared_as_normal(values_at(n, 200 * n), (n - 1) ** 2)) < 4


@pytest.mark.hunt
@pytest.mark.parametrize("n", [300, 2049, 4096, 4097, 5000, 8192, 10_007])
def test_shuffles_of_many_keys_are_statistically_like_numpys(n: int) -> None:
    assert largest_difference(n, 3000, by_seed(n)) < 4.5


@pytest.mark.hunt
@pytest.mark.parametrize("n", [65_537, 1_000_003])
def test_large_shuffles_are_statistically_like_numpys(n: int) -> None:
    assert largest_difference(n, 60, by_seed(n)) < 5


@pytest.mark.hunt
@pytest.mark.parametrize("n", range(2, 9))
def test_all_orders_of_up_to_eight_are_equally_frequent(n: int) -> None:
    assert abs(chi_squared_as_normal(orders_of(n, max(200_000, 60 * math.factorial(n))), math.factorial(n) - 1)) < 4


@pytest.mark.hunt
@pytest.mark.parametrize("n", [9, 12, 17, 33, 65, 200])
def test_every_value_is_equally_frequent_at_every_position_of_many(n: int) -> None:
    assert abs(chi_squared_as_normal(values_at(n, 20_000), (n - 1) ** 2)) < 4


# a block shuffle ------------------------------------------------------------------------------------------------------

CLASSES, PER_CLASS, PER_SHARD = 1000, 1280, 640
SAMPLES = CLASSES * PER_CLASS


def sorted_by_class() -> ShardLookup:
    """The worst case of a block shuffle: samples sorted by class, half a class per shard."""
    return ShardLookup(SAMPLES, np.arange(0, SAMPLES + 1, PER_SHARD))


def labels_in_batches(order: Order) -> npt.NDArray[np.int64]:
    """The counts of each label in 200 batches spread over an epoch."""
    starts = range(0, SAMPLES - BATCH, SAMPLES // 200)
    labels = [order.ids(0, start, start + BATCH) // PER_CLASS for start in starts]
    return np.stack([np.bincount(batch, minlength=CLASSES) for batch in labels])


@pytest.mark.parametrize(
    ("shards", "labels", "times_as_uneven"), [(16, 16, 16.4), (64, 63, 4.5), (256, 172, 1.55), (2000, 226, 1.0)]
)
def test_a_batch_has_the_number_of_labels_that_the_docstring_gives(
    shards: int, labels: int, times_as_uneven: float
) -> None:
    counts = labels_in_batches(BlockOrder(sorted_by_class(), Key("sha256:00", "whole", 1), BlockShuffle(shards=shards)))
    assert np.count_nonzero(counts, axis=1).mean() == pytest.approx(labels, rel=0.02)
    even = BATCH / CLASSES
    chi2 = ((counts - even) ** 2).sum(axis=1).mean() / even / (CLASSES - 1)
    assert chi2 == pytest.approx(times_as_uneven, rel=0.05)


def test_a_slot_of_a_block_shuffle_is_shuffled_uniformly() -> None:
    shards, size = 4, 1000
    places = ShardLookup(8 * size, np.arange(0, 8 * size + 1, size))

    def ranks_in_a_slot(seed: int) -> Ids:
        """The relative order of a slot's samples, which must be uniformly distributed."""
        slot = BlockOrder(places, Key("sha256:00", "whole", seed), BlockShuffle(shards=shards)).ids(0, size, 2 * size)
        return np.argsort(np.argsort(slot))

    assert largest_difference(size, 120, ranks_in_a_slot) < 4.5


def test_over_many_epochs_every_position_occurs_at_every_time() -> None:
    count, size = 12, 5
    places = ShardLookup(count * size, np.arange(0, count * size + 1, size))
    order = BlockOrder(places, Key("sha256:00", "whole", 5), BlockShuffle(shards=3))
    n, epochs = len(order), 500
    counts = np.zeros((n, n), np.int64)
    for epoch in range(epochs):
        counts[np.arange(n), order.ids(epoch, 0, n)] += 1
    assert abs(chi_squared_as_normal(counts, (n - 1) ** 2)) < 4
