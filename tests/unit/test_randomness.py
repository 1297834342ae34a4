"""Do random draws equal NumPy's Philox and the specification's vectors?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mx8shards.format.randomness import integers, uniforms, words

VECTORS = Path(__file__).parents[2] / "format_spec" / "vectors" / "randomness.json"
IDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4)
ANY_INT = st.integers(-(2**70), 2**70)


def numpys_words(seed: int, epoch: int, sample_id: int, purpose: str, count: int, occurrence: int = 0) -> list[int]:
    """The reference: NumPy's generator, set to each block. NumPy increments the counter before it draws."""
    key = [seed % 2**64, int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")]
    drawn: list[int] = []
    for block in range(-(-count // 4)):
        counter = block + (sample_id << 64) + ((epoch % 2**64) << 128) + (occurrence << 192)
        before = [(counter - 1) % 2**256 >> shift & (2**64 - 1) for shift in (0, 64, 128, 192)]
        philox = np.random.Philox(counter=np.array(before, np.uint64), key=np.array(key, np.uint64))
        drawn += philox.random_raw(4).tolist()
    return drawn[:count]


@given(ANY_INT, ANY_INT, IDS, st.text(max_size=20), st.integers(0, 11))
def test_words_equal_numpys_philox_at_the_counter_of_each_block(
    seed: int, epoch: int, ids: list[int], purpose: str, count: int
) -> None:
    drawn = words(seed, epoch, np.array(ids, np.int64), purpose, count)
    assert drawn.dtype == np.uint64
    assert drawn.tolist() == [numpys_words(seed, epoch, sample_id, purpose, count) for sample_id in ids]
    assert drawn.tolist() == words(seed, epoch, np.array(ids), purpose, count, np.zeros(len(ids), np.int64)).tolist()
    repeated = words(seed, epoch, np.array(ids, np.int64), purpose, count, np.array(ids[::-1], np.int64))
    pairs = zip(ids, ids[::-1], strict=True)
    assert repeated.tolist() == [numpys_words(seed, epoch, i, purpose, count, repeat) for i, repeat in pairs]


@given(ANY_INT, IDS, st.integers(1, 2**32))
def test_uniforms_and_integers_are_the_upper_bits_of_the_words(seed: int, ids: list[int], n: int) -> None:
    ids_ = np.array(ids, np.int64)
    drawn = words(seed, 3, ids_, "x", 6).tolist()
    assert uniforms(seed, 3, ids_, "x", 6).tolist() == [[(word >> 11) / 2**53 for word in row] for row in drawn]
    assert integers(seed, 3, ids_, "x", 6, n).tolist() == [[(word >> 32) * n >> 32 for word in row] for row in drawn]


def test_draws_of_a_sample_do_not_depend_on_the_other_samples() -> None:
    together = words(7, 1, np.arange(100), "crop", 5)
    assert np.array_equal(together[40:60], words(7, 1, np.arange(40, 60), "crop", 5))
    assert np.array_equal(together[:, :2], words(7, 1, np.arange(100), "crop", 2))


def test_seed_epoch_sample_and_purpose_each_change_every_word() -> None:
    base = words(1, 2, np.array([3]), "crop", 8)
    for other in (
        words(9, 2, np.array([3]), "crop", 8),
        words(1, 9, np.array([3]), "crop", 8),
        words(1, 2, np.array([9]), "crop", 8),
        words(1, 2, np.array([3]), "flip", 8),
        words(1, 2, np.array([3]), "crop", 8, np.array([1])),
    ):
        assert not np.any(base == other)


def test_uniforms_fill_the_unit_interval_evenly() -> None:
    counts, _ = np.histogram(uniforms(0, 0, np.arange(50_000), "even", 2), bins=10, range=(0, 1))
    assert counts.sum() == 100_000
    assert abs(counts - 10_000).max() < 5 * np.sqrt(10_000 * 0.9)


def test_integers_below_one_are_zero_and_the_largest_bound_gives_the_upper_half_of_the_word() -> None:
    ids = np.arange(5)
    assert not integers(1, 1, ids, "n", 3, 1).any()
    assert np.array_equal(integers(1, 1, ids, "n", 3, 2**32), words(1, 1, ids, "n", 3) >> np.uint64(32))


@pytest.mark.parametrize("n", [0, -1, 2**32 + 1])
def test_a_bound_beyond_half_a_word_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=rf"n: expected an int from 1 to 2\*\*32, got {n}"):
        integers(1, 1, np.arange(2), "n", 1, n)


def test_draws_for_no_samples_have_no_rows() -> None:
    assert words(1, 1, np.array([], np.int64), "x", 3).shape == (0, 3)


def test_draws_match_the_spec_vectors() -> None:
    for draw in json.loads(VECTORS.read_text())["draws"]:
        arguments = (int(draw["seed"]), int(draw["epoch"]), np.array([int(draw["sample_id"])]), draw["purpose"])
        count, occurrence = len(draw["words"]), np.array([int(draw["occurrence"])])
        assert [f"{word:016x}" for word in words(*arguments, count, occurrence)[0].tolist()] == draw["words"]
        assert uniforms(*arguments, count, occurrence)[0].tolist() == [float.fromhex(text) for text in draw["uniforms"]]
        for n, expected in draw["integers"].items():
            assert integers(*arguments, count, int(n), occurrence)[0].tolist() == expected
