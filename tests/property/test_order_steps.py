"""Is every position delivered once, for any world size and batch size, and any point of resuming?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mx8shards.order.steps import UNEVEN, Steps, StepSlice, Uneven

LENGTHS = st.integers(0, 90)
BATCHES = st.integers(1, 12)
WORLDS = st.integers(1, 16)
UNEVENS = st.sampled_from(UNEVEN)
ALL_STEPS = st.builds(Steps, length=LENGTHS, batch_size=BATCHES, world_size=WORLDS, uneven=UNEVENS)


def epoch_of(steps: Steps, position: int = 0) -> Iterator[tuple[int, list[StepSlice]]]:
    """The begin of each step from `position` on, and the slices of all ranks. Asserts that the epoch ends."""
    for _ in range(steps.left(position)):
        yield position, [steps.slice_of(rank, position) for rank in range(steps.world_size)]
        epoch, position = steps.after(5, position)
        if epoch != 5:
            assert (epoch, position) == (6, 0)
            return
    assert steps.after(5, position) == (6, 0)


def delivered(steps: Steps, position: int = 0) -> list[int]:
    """All positions delivered from `position` on, without padding."""
    shares = [share for _, row in epoch_of(steps, position) for share in row]
    return [p for share in shares for p in share.positions[~share.padding].tolist()]


@given(ALL_STEPS)
def test_every_position_occurs_once_in_rank_order(steps: Steps) -> None:
    dropped = steps.length % steps.size if steps.uneven == "drop" else 0
    assert delivered(steps) == list(range(steps.length - dropped))


@given(ALL_STEPS)
def test_the_number_of_steps_and_batches_is_as_announced(steps: Steps) -> None:
    rows = [row for _, row in epoch_of(steps)]
    assert len(rows) == steps.left()
    for rank in range(steps.world_size):
        assert sum(len(row[rank].positions) > 0 for row in rows) == steps.batches(rank)
    if steps.uneven != "exact":
        assert {steps.batches(rank) for rank in range(steps.world_size)} == {steps.left()}
    assert [steps.at(i) for i in range(len(rows))] == [position for position, _ in epoch_of(steps)]


@given(ALL_STEPS)
def test_all_batches_except_the_last_are_full(steps: Steps) -> None:
    rows = [row for _, row in epoch_of(steps)]
    sizes = [[len(share.positions) for share in row] for row in rows]
    assert all(size == steps.batch_size for row in sizes[:-1] for size in row)
    assert all(size <= steps.batch_size for row in sizes[-1:] for size in row)
    if steps.uneven in ("pad", "drop"):
        assert all(size == steps.batch_size for row in sizes for size in row)
    if steps.uneven == "split":
        assert all(max(row) - min(row) <= 1 and min(row) >= 1 for row in sizes)


@given(ALL_STEPS)
def test_padding_repeats_positions_and_occurs_only_with_uneven_pad(steps: Steps) -> None:
    for position, row in epoch_of(steps):
        rest = min(steps.size, steps.length - position)
        padded = sum(int(share.padding.sum()) for share in row)
        wanted = {"pad": steps.size - rest, "split": max(0, steps.world_size - rest) if rest < steps.size else 0}
        assert padded == wanted.get(steps.uneven, 0)
        for share in row:
            assert share.positions.dtype == np.int64
            assert share.padding.dtype == bool
            assert ((share.positions >= 0) & (share.positions < steps.length)).all()


@given(ALL_STEPS, st.data())
def test_several_steps_computed_at_once_equal_single_steps(steps: Steps, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, steps.length))
    left = steps.left(position)
    count = data.draw(st.integers(0, left))
    first = data.draw(st.integers(0, steps.world_size))
    ranks = range(first, data.draw(st.integers(first, steps.world_size)))
    positions, padding, bounds = steps.slices_of(ranks, position, count)
    assert positions.dtype == np.int64
    assert padding.dtype == bool
    wanted = [steps.slice_of(rank, position + k * steps.size) for k in range(count) for rank in ranks]
    found = [slice(*pair) for pair in pairwise(bounds)]
    assert len(found) == len(wanted)
    for part, share in zip(found, wanted, strict=True):
        assert positions[part].tolist() == share.positions.tolist()
        assert padding[part].tolist() == share.padding.tolist()
    assert bounds[-1] == len(positions) == len(padding)


@given(LENGTHS, st.sampled_from([12, 16, 24]), UNEVENS)
def test_a_global_step_is_equal_for_every_world_size_that_divides_it(length: int, size: int, uneven: Uneven) -> None:
    for world in (w for w in range(1, 17) if size % w == 0):
        steps = Steps(length=length, batch_size=size // world, world_size=world, uneven=uneven)
        alone = Steps(length=length, batch_size=size, uneven=uneven)
        for (_, row), (_, [only]) in zip(epoch_of(steps), epoch_of(alone), strict=True):
            together = [p for share in row for p in share.positions[~share.padding].tolist()]
            assert together == only.positions[~only.padding].tolist()


@given(ALL_STEPS, BATCHES, WORLDS, UNEVENS)
def test_any_world_and_batch_size_resume_with_exactly_the_remaining_positions(
    steps: Steps, batch_size: int, world_size: int, uneven: Uneven
) -> None:
    other = Steps(length=steps.length, batch_size=batch_size, world_size=world_size, uneven=uneven)
    for position, _ in epoch_of(steps):
        rest = steps.length - position
        dropped = rest % other.size if uneven == "drop" else 0
        assert delivered(other, position) == list(range(position, steps.length - dropped))


@given(ALL_STEPS, st.lists(st.tuples(BATCHES, WORLDS), min_size=1, max_size=6))
def test_changing_world_and_batch_size_at_every_step_delivers_all_once(
    steps: Steps, changes: list[tuple[int, int]]
) -> None:
    seen: Counter[int] = Counter()
    epoch, position, i = 0, 0, 0
    while epoch == 0 and steps.length:
        batch_size, world_size = changes[i % len(changes)]
        now = Steps(length=steps.length, batch_size=batch_size, world_size=world_size, uneven="split")
        for rank in range(world_size):
            share = now.slice_of(rank, position)
            seen.update(share.positions[~share.padding].tolist())
        epoch, position = now.after(epoch, position)
        i += 1
    assert seen == Counter(range(steps.length))


@pytest.mark.parametrize("uneven", UNEVEN)
def test_an_empty_order_has_no_steps(uneven: Uneven) -> None:
    steps = Steps(length=0, batch_size=4, world_size=3, uneven=uneven)
    assert [steps.left(), steps.batches(2)] == [0, 0]
    assert steps.slice_of(0, 0).positions.tolist() == []
    assert steps.after(7, 0) == (8, 0)


def test_a_batch_size_larger_than_the_data_gives_one_step_or_none() -> None:
    by_uneven = {
        uneven: [
            share.positions.tolist()
            for _, row in epoch_of(Steps(length=3, batch_size=4, world_size=2, uneven=uneven))
            for share in row
        ]
        for uneven in UNEVEN
    }
    assert by_uneven == {
        "split": [[0], [1, 2]],
        "pad": [[0, 1, 2, 0], [1, 2, 0, 1]],
        "drop": [],
        "exact": [[0, 1, 2], []],
    }


def test_fewer_samples_than_ranks_are_split_with_marked_repeats() -> None:
    steps = Steps(length=5, batch_size=1, world_size=4, uneven="split")
    shares = [steps.slice_of(rank, 4) for rank in range(4)]
    assert [share.positions.tolist() for share in shares] == [[4], [0], [1], [2]]
    assert [share.padding.tolist() for share in shares] == [[False], [True], [True], [True]]


def test_totals_beyond_32_bits_do_not_overflow() -> None:
    steps = Steps(length=3072 * 10**15 + 2000, batch_size=3, world_size=1024, uneven="split")
    position = (steps.left() - 1) * steps.size
    ends = [share.positions for share in (steps.slice_of(0, position), steps.slice_of(1023, position))]
    assert ends[0][0] == position
    assert ends[1][-1] == steps.length - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length": -1}, "length: expected an int from 0, got -1"),
        ({"batch_size": 0}, "batch_size: expected an int from 1 to 1099511627776, got 0"),
        ({"batch_size": 2.0}, "batch_size: expected an int from 1 to 1099511627776, got 2.0"),
        ({"world_size": True}, "world_size: expected an int from 1 to 1048576, got True"),
        ({"uneven": "even"}, "uneven: expected one of 'split', 'pad', 'drop', 'exact', got 'even'"),
    ],
)
def test_invalid_settings_of_steps_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Steps(**{"length": 8, "batch_size": 2, **change})  # type: ignore[arg-type]


def test_an_invalid_rank_or_position_is_refused() -> None:
    steps = Steps(length=8, batch_size=2, world_size=2)
    with pytest.raises(ValueError, match="rank: expected an int from 0 to 1, got 2"):
        steps.slice_of(2, 0)
    with pytest.raises(ValueError, match="position: expected an int from 0 to 8, got 9"):
        steps.left(9)
    with pytest.raises(IndexError, match="step 2 of 2"):
        steps.at(2)


@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 3), st.integers(1, 5), UNEVENS, st.integers(0, 80))
def test_workers_that_take_turns_give_the_steps_of_one_process(
    length: int, size: int, world: int, turns: int, uneven: Uneven, position: int
) -> None:
    position = min(position, length)
    alone = Steps(length=length, batch_size=size, world_size=world, uneven=uneven)
    one = Steps(length=length, batch_size=size, world_size=world, uneven=uneven, turns=turns)
    for rank in range(world):
        wanted = [alone.slice_of(rank, position + step * alone.size) for step in range(alone.left(position))]
        wanted = [share for share in wanted if len(share.positions)]
        found: list[tuple[int, tuple[list[int], list[bool]]]] = []
        counted = 0
        for turn in range(turns):
            at = min(position + turn * one.size, length)
            counted += one.batches(rank, at)
            positions, padding, bounds = one.slices_of(range(rank, rank + 1), at, one.left(at))
            parts = [((positions[a:b] % max(length, 1)).tolist(), padding[a:b].tolist()) for a, b in pairwise(bounds)]
            begins = [at + step * one.stride for step in range(one.left(at))]
            found += zip(begins, parts, strict=True)
            if begins:
                ends = [one.after(0, begin) for begin in begins]
                assert ends == [*((0, begin) for begin in begins[1:]), (1, 0)]
        in_order = [part for _, part in sorted(found, key=lambda each: each[0]) if part[0]]
        assert counted == len(wanted)
        assert in_order == [(share.positions.tolist(), share.padding.tolist()) for share in wanted]
