"""Do permutations match the specification at every position?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mx8shards.order.blocks import BlockOrder, BlockShuffle
from mx8shards.order.keys import Key
from mx8shards.order.orders import Shuffle
from mx8shards.order.permutation import LARGEST, Permutation, Permutations
from mx8shards.order.shard_lookup import ShardLookup

TABLE: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "format_spec" / "vectors" / "permutation.json").read_text(encoding="utf-8")
)
KEY = Key("sha256:00", "whole", 17)


@pytest.mark.parametrize("row", TABLE["permutations"], ids=lambda row: f"{row['purpose']}-{row['seed']}")
def test_words_and_permutations_match_the_spec_vectors(row: dict[str, Any]) -> None:
    words = Key(row["snapshot"], row["view"], int(row["seed"])).words(row["purpose"], int(row["epoch"]))
    assert [f"{word:016x}" for word in words.tolist()] == row["words"]
    for values in row["values"]:
        count, number = int(values["count"]), values["number"]
        positions = np.array([int(position) for position in values["at"]], np.int64)
        expected = [int(value) for value in values["at"].values()]
        family = Permutations(np.full(number + 1, count, np.int64), words)
        assert family.of(np.full(len(positions), number), positions).tolist() == expected
        if number == 0:
            assert Permutation(count, words).of(positions).tolist() == expected


@pytest.mark.parametrize("row", TABLE["shuffles"], ids="{0[count]}-{0[seed]}".format)
def test_shuffles_match_the_spec_vectors(row: dict[str, Any]) -> None:
    key = Key(row["snapshot"], row["view"], row["seed"])
    order = Shuffle(row["count"], key)
    assert order.ids(row["epoch"], 0, row["count"]).tolist() == row["order"]


@pytest.mark.parametrize("row", TABLE["block_shuffles"], ids="{0[groups]}-{0[shards]}-{0[seed]}".format)
def test_block_shuffles_match_the_spec_vectors(row: dict[str, Any]) -> None:
    shard_of = {position: shard for shard, group in enumerate(row["groups"]) for position in group}
    shards = np.array([shard_of[position] for position in range(len(shard_of))])
    # sample_ids in the shards of the row: shard i has samples 100 i to 100 i + 99
    places = ShardLookup(
        len(shards), np.arange(len(row["groups"]) + 1) * 100, lambda at, _: shards[at] * 100 + at % 100
    )
    order = BlockOrder(places, Key(row["snapshot"], row["view"], row["seed"]), BlockShuffle(shards=row["shards"]))
    assert order.ids(row["epoch"], 0, len(order)).tolist() == row["order"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 4095, 4096, 4097, 4098, 65_536, 70_001])
def test_every_number_occurs_exactly_once(count: int) -> None:
    found = Permutation(count, KEY.words("shuffle", 0)).of(np.arange(count))
    assert np.array_equal(np.sort(found), np.arange(count))


@pytest.mark.parametrize("count", [10**9 + 7, 1 << 53, (1 << 61) + 1, LARGEST - 1, LARGEST])
def test_counts_larger_than_memory_work(count: int) -> None:
    permutation = Permutation(count, KEY.words("shuffle", 0))
    positions = np.unique(np.linspace(0, count - 1, 50_000).astype(np.int64).clip(0, count - 1))
    found = permutation.of(positions)
    assert len(permutation) == count
    assert found.min() >= 0
    assert found.max() < count
    assert len(np.unique(found)) == len(positions)


def test_positions_computed_together_or_alone_give_equal_values() -> None:
    count = 100_003
    permutation = Permutation(count, KEY.words("shuffle", 0))
    all_of_them = permutation.of(np.arange(count))
    asked = np.array([7, 99_999, 0, 7, 40_000])
    assert np.array_equal(permutation.of(asked), all_of_them[asked])
    assert permutation.of(np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("count", [-1, LARGEST + 1])
def test_an_invalid_count_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"count: expected an int from 0 to 2\*\*62, got {count}"):
        Permutation(count, KEY.words("shuffle", 0))


def test_every_part_of_the_key_changes_the_words() -> None:
    keys = [KEY, Key("sha256:01", "whole", 17), Key("sha256:00", "other", 17), Key("sha256:00", "whole", 18)]
    words = [key.words("shuffle", 0) for key in keys] + [KEY.words("shuffle", 1), KEY.words("other", 0)]
    for i, one in enumerate(words):
        assert not any((one == other).any() for other in words[:i])
    assert np.array_equal(Key("sha256:00", "whole", 17 - 2**64).words("shuffle", 2**64), words[0])
