"""Do processes that begin iterations in any order agree on which epoch each of them is?"""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mx8shards.errors import LoaderError
from mx8shards.loading.shared_epoch import SharedEpoch, key_of


def test_the_first_iteration_resumes_at_the_position_and_later_ones_begin_their_epochs() -> None:
    shared = SharedEpoch(3, 40)
    assert shared.upcoming() == (3, 40)
    assert [shared.start(0, 0) for _ in range(3)] == [(3, 40), (4, 0), (5, 0)]
    shared.begin(1, 8)
    assert [shared.start(0, 0) for _ in range(2)] == [(1, 8), (2, 0)]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.integers(0, 3),  # keys may come again: a training that seeds every epoch alike
            st.none() | st.tuples(st.integers(0, 9), st.integers(0, 99)),  # what is set before
            st.randoms(use_true_random=False),
        ),
        max_size=12,
    )
)
def test_all_workers_of_an_iteration_get_its_epoch_in_any_start_order(iterations: list[Any]) -> None:
    shared, expected = SharedEpoch(0, 5), (0, 5)
    for workers, key, told, random in iterations:
        if told is not None:
            shared.begin(*told)
            expected = told
        order = list(range(workers))
        random.shuffle(order)
        assert {shared.start(1 + worker, key_of(key, workers)) for worker in order} == {expected}
        expected = (expected[0] + 1, 0)
        assert shared.upcoming() == expected


@given(st.integers(1, 4), st.integers(0, 4))
def test_workers_killed_before_they_began_do_not_delay_others(began: int, key: int) -> None:
    shared = SharedEpoch(0, 0)
    for worker in range(began):
        assert shared.start(1 + worker, key_of(key, 4)) == (0, 0)
    assert {shared.start(1 + worker, key_of(key + 1, 4)) for worker in (3, 1, 0, 2)} == {(1, 0)}


def test_a_late_worker_gets_the_epoch_of_its_iteration_even_after_set_epoch() -> None:
    shared = SharedEpoch(2, 16)
    assert shared.start(1, key_of(9, 4)) == (2, 16)
    shared.begin(7, 0)
    assert shared.start(2, key_of(9, 4)) == (2, 16)
    assert {shared.start(slot, key_of(10, 4)) for slot in (2, 1)} == {(7, 0)}


def test_workers_with_loaded_states_continue_with_the_following_epoch() -> None:
    for begun in (0, 1, 8):
        shared = SharedEpoch(begun, 0)
        shared.start(1, key_of(1, 4))
        shared.start(2, key_of(1, 4))
        for slot in (2, 1):
            shared.start_at(slot, key_of(5, 4), 4)
        assert {shared.start(slot, key_of(6, 4)) for slot in (1, 2)} == {(5, 0)}


def test_workers_that_start_at_the_same_moment_get_the_same_epoch() -> None:
    shared, workers = SharedEpoch(0, 0), 4
    barrier = threading.Barrier(workers)

    def act(worker: int) -> list[tuple[int, int]]:
        found = []
        for iteration in range(300):
            barrier.wait(60)
            found.append(shared.start(1 + worker, key_of(iteration % 3, workers)))
        return found

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # between any two bytecodes
    try:
        with ThreadPoolExecutor(workers) as threads:
            found = list(threads.map(act, range(workers)))
    finally:
        sys.setswitchinterval(before)
    assert found == [[(epoch, 0) for epoch in range(300)]] * workers


def counted(shared: SharedEpoch, slot: int, out: Any) -> None:
    out.put(shared.start(slot, key_of(1, 4)))


@pytest.mark.parametrize("way", ["as it is", "pickle", "deepcopy"])
def test_forked_processes_share_the_counter_of_their_parent(way: str) -> None:
    ways: dict[str, Any] = {"pickle": lambda it: pickle.loads(pickle.dumps(it)), "deepcopy": copy.deepcopy}
    shared = ways.get(way, lambda it: it)(SharedEpoch(4, 2))
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    for slot in (1, 2):
        process = context.Process(target=counted, args=(shared, slot, out))
        process.start()
        assert out.get(timeout=60) == (4, 2)
        process.join(60)
    assert shared.upcoming() == (5, 0)
    assert shared.copy().upcoming() == (5, 0)


def test_too_many_workers_are_an_error() -> None:
    with pytest.raises(LoaderError, match="num_workers: expected at most 1023"):
        SharedEpoch(0, 0).start(1024, 1)
    with pytest.raises(LoaderError, match="epoch: expected less than"):
        SharedEpoch(0, 0).begin(1 << 27, 0)


def begin_elsewhere(shared: SharedEpoch, row: int, group: int) -> tuple[int, int]:
    """What a worker gets whose process has ended since."""
    out = multiprocessing.get_context("fork").Queue()

    def act() -> None:
        out.put(shared.start(row, key_of(7, 2), group))

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    found: tuple[int, int] = out.get(timeout=60)
    process.join(60)
    return found


def test_a_worker_with_the_key_of_one_that_died_early_starts_fresh() -> None:
    shared = SharedEpoch(0, 0)
    assert begin_elsewhere(shared, 1, group=1) == (0, 0)  # the other worker of this group never begins
    for epoch, group in [(1, 3), (2, 5)]:
        assert [begin_elsewhere(shared, row, group) for row in (2, 1)] == [(epoch, 0)] * 2


def test_a_worker_that_ended_before_others_of_its_iteration_began_still_counts() -> None:
    shared = SharedEpoch(0, 0)
    for epoch in range(3):
        assert [begin_elsewhere(shared, row, group=2 * epoch + 1) for row in (1, 2)] == [(epoch, 0)] * 2


def test_the_shared_epoch_knows_whether_workers_began_the_last_iteration() -> None:
    shared = SharedEpoch(0, 0)
    assert not shared.workers_began_last
    shared.start(0, 0)
    assert not shared.workers_began_last
    shared.start(1, key_of(1, 2))
    assert shared.workers_began_last
    shared.begin(1, 0)
    assert not shared.workers_began_last
