"""Does every order deliver each position once, reproducibly, differently per epoch, and within its blocks of shards?"""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from format_spec import order_parts
from mx8shards.order.blocks import BlockOrder, BlockShuffle
from mx8shards.order.keys import Key
from mx8shards.order.orders import PADDING, Order, Sequential, Shuffle, shards_ahead
from mx8shards.order.shard_lookup import ShardLookup
from mx8shards.order.steps import Steps

Ids = npt.NDArray[np.int64]

KEY = Key("sha256:00", "whole", 17)
KEY_PARTS = (KEY.snapshot, KEY.view, KEY.seed)
SIZES = st.lists(st.integers(0, 12), max_size=14)
SHARDS = st.integers(1, 16)
EPOCHS = st.integers(0, 3)


def lookup_of(sizes: list[int]) -> ShardLookup:
    """A lookup for all samples of shards of these sizes."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(sizes, np.int64))])
    return ShardLookup(int(starts[-1]), starts)


class SelectionView:
    """A view of some samples, in some order, repeats included."""

    def __init__(self, sample_ids: list[int]) -> None:
        self.sample_ids = np.array(sample_ids, np.int64)

    def __call__(self, positions: Ids, epoch: int) -> Ids:
        found: Ids = self.sample_ids[positions]
        return found


@st.composite
def lookups(draw: st.DrawFn) -> ShardLookup:
    """All samples, or a selection of them: sorted, or in any order."""
    places = lookup_of(draw(SIZES))
    kind = draw(st.sampled_from(["all", "sorted", "any"]))
    if kind == "all" or places.count == 0:
        return places
    picked = draw(st.lists(st.integers(0, places.count - 1), max_size=60))
    return ShardLookup(len(picked), places.starts, SelectionView(sorted(picked) if kind == "sorted" else picked))


def sequential(places: ShardLookup) -> Order:
    return Sequential(places.count)


def shuffle(places: ShardLookup) -> Order:
    return Shuffle(places.count, KEY)


def blocks(places: ShardLookup) -> Order:
    return BlockOrder(places, KEY, BlockShuffle(shards=3))


EVERY_ORDER = pytest.mark.parametrize("make", [sequential, shuffle, blocks])
Make = Callable[[ShardLookup], Order]


@EVERY_ORDER
@given(lookups(), EPOCHS)
def test_every_position_occurs_once_in_every_epoch(make: Make, places: ShardLookup, epoch: int) -> None:
    order = make(places)
    ids = order.ids(epoch, 0, len(order))
    assert len(order) == places.count
    assert ids.dtype == np.int64
    assert np.array_equal(np.sort(ids), np.arange(places.count))


@EVERY_ORDER
@settings(max_examples=50)
@given(lookups(), st.lists(st.tuples(EPOCHS, st.floats(0, 1), st.floats(0, 1)), max_size=8))
def test_any_range_of_any_epoch_is_reproducible_in_any_sequence(
    make: Make, places: ShardLookup, asked: list[tuple[int, float, float]]
) -> None:
    order, again = make(places), pickle.loads(pickle.dumps(make(places)))
    for epoch, one, other in asked:
        start, stop = sorted((int(one * len(order)), int(other * len(order))))
        ids = order.ids(epoch, start, stop)
        assert np.array_equal(ids, make(places).ids(epoch, 0, len(order))[start:stop])
        assert np.array_equal(ids, again.at(epoch, np.arange(start, stop)[::-1])[::-1])


@EVERY_ORDER
@given(lookups(), EPOCHS, st.floats(0, 1), st.integers(0, 80))
def test_shards_ahead_are_listed_in_the_order_of_first_use(
    make: Make, places: ShardLookup, epoch: int, where: float, n: int
) -> None:
    order = make(places)
    position = int(where * len(order))
    needed = places.shards_of(order.ids(epoch, position, min(position + n, len(order))), epoch)
    assert list(shards_ahead(order, places, epoch, position, n)) == list(dict.fromkeys(needed.tolist()))


@given(lookups(), SHARDS, EPOCHS)
def test_a_block_shuffle_equals_the_reference_of_the_spec(places: ShardLookup, shards: int, epoch: int) -> None:
    found = BlockOrder(places, KEY, BlockShuffle(shards=shards)).ids(epoch, 0, places.count)
    shard_of = places.shards_of(np.arange(places.count), epoch)
    groups = [np.flatnonzero(shard_of == shard).tolist() for shard in range(places.shards)]
    assert found.tolist() == order_parts.block_shuffle(groups, shards, *KEY_PARTS, epoch)


@given(lookups(), SHARDS, EPOCHS)
def test_a_block_shuffle_uses_at_most_its_number_of_shards(places: ShardLookup, shards: int, epoch: int) -> None:
    order = BlockOrder(places, KEY, BlockShuffle(shards=shards))
    ids = order.ids(epoch, 0, len(order))
    used = places.shards_of(ids, epoch).tolist()
    groups = [ids[np.array(used) == shard].tolist() for shard in range(places.shards)]
    if len(set(used)) <= shards:
        return
    # The length of a slot is the sum of its parts, which does not depend on the shards' order
    lengths = [len(slot) for slot in order_parts.slots([sorted(group) for group in groups], shards, *KEY_PARTS, epoch)]
    ends = np.cumsum([0, *lengths]).tolist()
    in_slots = [set(used[begin:end]) for begin, end in itertools.pairwise(ends)]
    for i in range(len(in_slots)):
        for width in range(1, len(in_slots) - i + 1):
            assert len(set().union(*in_slots[i : i + width])) <= shards + width - 1
    # A shard is in use in consecutive slots, except for those at the begin and end of the epoch
    slots_of = {shard: [i for i, slot in enumerate(in_slots) if shard in slot] for shard in set(used)}
    paused = [shard for shard, found in slots_of.items() if found[-1] - found[0] >= shards]
    assert len(paused) <= shards - 1


@pytest.mark.parametrize("shards", [1, 2, 3, 8, 19])
def test_consecutive_slots_differ_in_one_shard(shards: int) -> None:
    size, count = 60, 20  # shards of equal size, so a slot is as long as a shard
    places = lookup_of([size] * count)
    order = BlockOrder(places, KEY, BlockShuffle(shards=shards))
    for epoch in range(3):
        used = places.shards_of(order.ids(epoch, 0, len(order)), epoch).reshape(count, size)
        slots = [set(slot.tolist()) for slot in used]
        assert all(len(slot) == shards for slot in slots)
        for i in range(count):
            assert len(slots[i] - slots[i - 1]) == 1  # the first one follows the last one
        for i in range(count - 3):
            assert len(set().union(*slots[i : i + 3])) == min(shards + 2, count)


def test_a_block_shuffle_over_all_shards_is_the_whole_shuffle() -> None:
    places = lookup_of([5, 0, 9, 7])
    whole = Shuffle(places.count, KEY)
    for shards in (3, 4, 100):
        assert np.array_equal(BlockOrder(places, KEY, BlockShuffle(shards=shards)).ids(1, 0, 21), whole.ids(1, 0, 21))
    assert not np.array_equal(BlockOrder(places, KEY, BlockShuffle(shards=2)).ids(1, 0, 21), whole.ids(1, 0, 21))


@pytest.mark.parametrize("make", [shuffle, blocks])
def test_orders_differ_between_epochs_seeds_and_views(make: Make) -> None:
    places = lookup_of([50] * 20)
    order = make(places)
    epochs = [order.ids(epoch, 0, 1000) for epoch in range(5)]
    for i, one in enumerate(epochs):
        for other in epochs[:i]:
            assert (one == other).mean() < 0.01
    for key in (Key("sha256:01", "whole", 17), Key("sha256:00", "half", 17), Key("sha256:00", "whole", 18)):
        other = Shuffle(places.count, key) if make is shuffle else BlockOrder(places, key, BlockShuffle(shards=3))
        assert (other.ids(0, 0, 1000) == epochs[0]).mean() < 0.01


@given(lookups())
def test_positions_are_grouped_by_shard_without_an_array_if_the_view_keeps_their_order(places: ShardLookup) -> None:
    groups = places.by_shard()
    shards = places.shards_of(np.arange(places.count), 0)
    assert groups.bounds.tolist() == [int((shards < i).sum()) for i in range(places.shards + 1)]
    if (shards[1:] >= shards[:-1]).all():
        assert groups.positions is None
    else:
        assert groups.positions is not None
        assert np.array_equal(groups.positions, np.argsort(shards, kind="stable"))


def test_a_large_view_is_grouped_run_by_run() -> None:
    rng = np.random.default_rng(3)
    picked = rng.integers(0, 10_000, 200_000)
    places = ShardLookup(len(picked), np.arange(0, 10_001, 100), SelectionView(picked.tolist()))
    groups = places.by_shard()
    assert groups.positions is not None
    assert np.array_equal(groups.positions, np.argsort(picked // 100, kind="stable"))
    in_order = ShardLookup(len(picked), places.starts, SelectionView(np.sort(picked).tolist())).by_shard()
    assert in_order.positions is None
    assert np.array_equal(in_order.bounds, groups.bounds)


def test_shards_ahead_are_computed_only_as_far_as_requested() -> None:
    class Counting(Shuffle):
        looked = 0

        def ids(self, epoch: int, start: int, stop: int) -> Ids:
            self.looked = max(self.looked, stop)
            return super().ids(epoch, start, stop)

    places = lookup_of([1000] * 1000)
    order = Counting(places.count, KEY)
    ahead = shards_ahead(order, places, 0, 0, len(order))
    assert order.looked == 0
    assert len({next(ahead) for _ in range(10)}) == 10
    assert order.looked <= 10_000
    assert sorted([*range(1000)]) == sorted({*shards_ahead(order, places, 0, 0, len(order))})
    assert order.looked < 100_000  # all shards were seen, so the rest adds none


def test_shards_ahead_skip_padding_and_repeats() -> None:
    class Padded(Sequential):
        def ids(self, epoch: int, start: int, stop: int) -> Ids:
            return np.array([PADDING, 5, 5, PADDING, 0, 2, 9], np.int64)[start:stop]

        def __len__(self) -> int:
            return 7

    places = lookup_of([3, 3, 4])
    assert list(shards_ahead(Padded(10), places, 0, 0, 7)) == [1, 0, 2]
    assert list(shards_ahead(Padded(10), places, 0, 3, 100)) == [0, 2]
    assert list(shards_ahead(Padded(10), places, 0, 0, 1)) == []


@EVERY_ORDER
def test_descriptions_are_json_and_differ_between_orders(make: Make) -> None:
    description = make(lookup_of([4])).description
    assert json.loads(json.dumps(description)) == description
    assert description["name"] == {"sequential": "sequential", "shuffle": "shuffle"}.get(make.__name__, "block_shuffle")
    two, three = (BlockOrder(lookup_of([4]), KEY, BlockShuffle(shards=k)).description for k in (2, 3))
    assert two != three


@EVERY_ORDER
@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0], [1], [0, 1, 0]])
def test_orders_of_no_or_one_sample_work(make: Make, sizes: list[int]) -> None:
    order = make(lookup_of(sizes))
    assert order.ids(0, 0, len(order)).tolist() == list(range(sum(sizes)))
    assert list(shards_ahead(order, lookup_of(sizes), 0, 0, 10)) == [i for i, size in enumerate(sizes) if size]


@EVERY_ORDER
@pytest.mark.parametrize("world_size", range(1, 17))
def test_all_ranks_together_deliver_each_id_once(make: Make, world_size: int) -> None:
    order = make(lookup_of([7, 30, 0, 11, 25]))
    steps = Steps(length=len(order), batch_size=3, world_size=world_size)
    epoch, position, seen = 0, 0, []
    while epoch == 0:
        for rank in range(world_size):
            share = steps.slice_of(rank, position)
            seen += order.at(epoch, share.positions[~share.padding]).tolist()
        epoch, position = steps.after(epoch, position)
    assert sorted(seen) == list(range(len(order)))


def test_a_shard_lookup_with_fewer_positions_than_samples_needs_a_view() -> None:
    with pytest.raises(ValueError, match="count: expected 4, as a position is a sample_id, got 3"):
        ShardLookup(3, np.array([0, 4]))


@pytest.mark.parametrize("shards", [0, -1, 2.0, True, None, "3"])
def test_an_invalid_number_of_shards_is_refused(shards: object) -> None:
    with pytest.raises(ValueError, match=f"shards: expected an int from 1, got {shards!r}"):
        BlockShuffle(shards=shards)  # type: ignore[arg-type]
