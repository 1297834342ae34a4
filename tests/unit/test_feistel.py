"""Is the compiled shuffle equal to the one in order/, position by position?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mx8shards.kernels.feistel import walk
from mx8shards.order.keys import Key
from mx8shards.order.orders import Shuffle
from mx8shards.order.permutation import LARGEST, WORDS, Permutation

TABLE: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "format_spec" / "vectors" / "permutation.json").read_text(encoding="utf-8")
)
COUNTS = st.integers(1, 9) | st.integers(1, 9_000) | st.integers(1, LARGEST) | st.integers(0, 61).map(lambda k: 1 << k)


@given(count=COUNTS, seed=st.integers(0, 1 << 32), data=st.data())
def test_the_kernel_and_numpy_give_equal_positions_of_any_shuffle(count: int, seed: int, data: st.DataObject) -> None:
    words = np.random.default_rng(seed).integers(0, 1 << 64, WORDS, np.uint64)
    drawn = data.draw(st.lists(st.integers(0, count - 1), max_size=30))
    positions = np.array([0, count - 1, *drawn], np.int64)
    assert np.array_equal(Permutation(count, words, walk).of(positions), Permutation(count, words).of(positions))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 4095, 4096, 4097, 70_001])
def test_the_kernel_and_numpy_give_equal_whole_shuffles(count: int) -> None:
    words = Key("sha256:00", "whole", 17).words("shuffle", 3)
    positions = np.arange(count)
    found = Permutation(count, words, walk).of(positions)
    assert np.array_equal(found, Permutation(count, words).of(positions))
    assert np.array_equal(np.sort(found), positions)


@pytest.mark.parametrize("row", TABLE["permutations"], ids=lambda row: f"{row['purpose']}-{row['seed']}")
def test_permutations_of_the_kernel_match_the_spec_vectors(row: dict[str, Any]) -> None:
    words = Key(row["snapshot"], row["view"], int(row["seed"])).words(row["purpose"], int(row["epoch"]))
    for values in row["values"]:
        if values["number"] == 0:
            positions = np.array([int(position) for position in values["at"]], np.int64)
            expected = [int(value) for value in values["at"].values()]
            assert Permutation(int(values["count"]), words, walk).of(positions).tolist() == expected


@pytest.mark.parametrize("row", TABLE["shuffles"], ids="{0[count]}-{0[seed]}".format)
def test_shuffles_of_the_kernel_match_the_spec_vectors(row: dict[str, Any]) -> None:
    key = Key(row["snapshot"], row["view"], row["seed"])
    order = Shuffle(row["count"], key, walk)
    assert order.ids(row["epoch"], 0, row["count"]).tolist() == row["order"]
