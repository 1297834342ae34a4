"""Do banks stay within the memory limit and never serve two batches at once, for any order of take and give back?"""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from mx8shards.errors import LoaderError, SettingError
from mx8shards.loading.budget.banks import Budget, Lease, Memory, Reservation, bank_bytes

KIB = 1 << 10
SMALLEST = 64 * KIB
LIMIT = 16 * SMALLEST


def array_of(lease: Lease) -> Any:
    return np.asarray(lease)


def joined(memory: Memory) -> Budget:
    budget = Budget(memory)
    budget.join()
    return budget


def reserved(budget: Budget, size: int) -> Reservation:
    found = budget.reserve(size)
    assert found is not None
    return found


def leased_array(budget: Budget, size: int = SMALLEST) -> Any:
    return array_of(reserved(budget, size).take(size))


# sizes ----------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 42))
def test_a_bank_is_large_enough_and_at_most_an_eighth_larger(size: int) -> None:
    found = bank_bytes(size)
    assert found >= max(size, SMALLEST)
    assert found <= max(SMALLEST, size + max(SMALLEST, size // 8))
    assert found % SMALLEST == 0
    assert bank_bytes(found) == found  # so what was reserved is enough for what is taken


@given(st.integers(0, 1 << 42), st.integers(0, 1 << 42))
def test_a_larger_batch_never_gets_a_smaller_bank(one: int, other: int) -> None:
    small, large = sorted([one, other])
    assert bank_bytes(small) <= bank_bytes(large)


# one budget -----------------------------------------------------------------------------------------------------------


def test_leased_arrays_are_writable_and_do_not_overlap() -> None:
    budget = joined(Memory(LIMIT))
    arrays = [leased_array(budget) for _ in range(16)]
    for i, array in enumerate(arrays):
        assert array.flags.writeable
        array[:] = i
    assert [set(array.tolist()) for array in arrays[:3]] == [{0}, {1}, {2}]
    assert all((array == i).all() for i, array in enumerate(arrays))


def test_reservations_keep_to_the_limit_and_cancelled_ones_can_be_reserved_again() -> None:
    budget = joined(Memory(LIMIT))
    first = reserved(budget, LIMIT)
    assert not budget.reserve(1)
    first.cancel()
    first.cancel()  # once is enough
    second = reserved(budget, LIMIT)
    first.cancel()
    assert not budget.reserve(1)
    second.cancel()
    assert budget.report()["bytes_reserved"] == 0


def test_a_spent_reservation_cannot_be_cancelled() -> None:
    budget = joined(Memory(LIMIT))
    reservation = reserved(budget, LIMIT)
    lease = reservation.take(LIMIT)
    reservation.cancel()
    assert not budget.reserve(1)
    with pytest.raises(LoaderError, match="and 0 were reserved"):
        reservation.take(1)
    del lease
    assert budget.reserve(LIMIT)


def test_the_unused_rest_of_a_reservation_is_free_at_once() -> None:
    budget = joined(Memory(LIMIT))
    lease = reserved(budget, LIMIT).take(10)
    assert budget.used_bytes == SMALLEST
    assert budget.reserve(LIMIT - SMALLEST)
    del lease


def test_a_lease_cannot_exceed_its_reservation() -> None:
    budget = joined(Memory(LIMIT))
    reservation = reserved(budget, SMALLEST)
    with pytest.raises(LoaderError, match=f"a batch needs {2 * SMALLEST} bytes, and {SMALLEST} were reserved"):
        reservation.take(SMALLEST + 1)


def test_a_bank_is_returned_with_the_last_array_over_it() -> None:
    budget = joined(Memory(LIMIT))
    array = leased_array(budget, LIMIT)
    part = array[100:200].view(np.int16)[::2]
    del array
    assert not budget.reserve(SMALLEST)
    del part
    assert budget.reserve(LIMIT)


def test_a_returned_bank_is_reused() -> None:
    budget = joined(Memory(LIMIT))
    first = leased_array(budget)
    address = first.ctypes.data
    del first
    assert leased_array(budget).ctypes.data == address
    assert budget.report()["banks_free"] == 1


def test_the_smallest_free_bank_that_fits_and_was_returned_last_is_used() -> None:
    budget = joined(Memory(LIMIT))
    arrays = [leased_array(budget, size) for size in (2 * SMALLEST, SMALLEST, 4 * SMALLEST, SMALLEST)]
    wanted = arrays[3].ctypes.data
    while arrays:
        del arrays[0]
        budget.report()  # one lease is returned after the other
    found = array_of(reserved(budget, 3 * SMALLEST).take(1))
    assert found.nbytes == SMALLEST
    assert found.ctypes.data == wanted


def test_free_banks_are_dropped_for_a_batch_that_fits_none_of_them() -> None:
    budget = joined(Memory(LIMIT))
    small = [leased_array(budget) for _ in range(16)]
    del small
    assert budget.report()["bytes_free_in_banks"] == LIMIT
    large = leased_array(budget, LIMIT - SMALLEST)
    found = budget.report()
    assert found["bytes_in_use"] + found["bytes_free_in_banks"] <= LIMIT
    assert large.nbytes == LIMIT - SMALLEST


def test_a_larger_bank_is_leased_only_within_the_reservation() -> None:
    """Otherwise one small batch could take memory that another one reserved."""
    budget = joined(Memory(LIMIT))
    large = leased_array(budget, LIMIT // 2)
    del large
    small = leased_array(budget, SMALLEST)
    assert small.nbytes == SMALLEST
    assert budget.used_bytes == SMALLEST


def test_returned_memory_wakes_waiting_threads() -> None:
    budget = joined(Memory(LIMIT))
    woken: list[int] = []
    budget.wake = lambda: woken.append(1)
    array = leased_array(budget)
    assert not woken
    del array
    assert woken == [1]


def test_leases_may_end_in_any_thread_and_by_garbage_collection_of_cycles() -> None:
    budget = joined(Memory(LIMIT))
    held: list[Any] = [leased_array(budget) for _ in range(8)]
    threads = [threading.Thread(target=held.pop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.report()["banks_in_use"] == 0
    cycle: list[Any] = [leased_array(budget, LIMIT)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert budget.reserve(LIMIT)


def test_a_lease_that_ends_while_the_lock_is_held_does_not_block() -> None:
    memory = Memory(LIMIT)
    budget = joined(memory)
    array = leased_array(budget)
    with memory.lock:
        del array  # like the garbage collector, in the thread that holds the lock
    assert budget.report()["banks_in_use"] == 0


def test_the_report_counts_held_memory() -> None:
    budget = joined(Memory(LIMIT))
    budget.fixed_bytes = 1000
    one, other = leased_array(budget), leased_array(budget, 2 * SMALLEST)
    assert budget.reserve(SMALLEST)
    del other
    found = budget.report()
    assert found == {
        "memory_limit_bytes": LIMIT - 1000,
        "memory_high_water_bytes": 4 * SMALLEST,
        "bytes_in_use": SMALLEST,
        "bytes_reserved": SMALLEST,
        "bytes_free_in_banks": 2 * SMALLEST,
        "banks_in_use": 1,
        "banks_free": 1,
    }
    del one


# several budgets ------------------------------------------------------------------------------------------------------


def test_shares_are_equal_and_the_memory_of_a_share_that_leaves_goes_to_the_others() -> None:
    memory = Memory(LIMIT)
    one, other = joined(memory), joined(memory)
    assert one.limit_bytes == other.limit_bytes == LIMIT // 2
    assert one.reserve(LIMIT // 2)
    assert not one.reserve(SMALLEST)
    reserved(other, LIMIT // 2).cancel()
    other.leave()
    assert one.limit_bytes == LIMIT
    assert one.reserve(LIMIT // 2)


def test_a_free_bank_of_one_share_can_be_used_by_another() -> None:
    memory = Memory(LIMIT)
    one, other = joined(memory), joined(memory)
    array = leased_array(one)
    address = array.ctypes.data
    del array
    one.report()
    assert leased_array(other).ctypes.data == address


def test_memory_returned_to_an_idle_share_can_be_used_by_another() -> None:
    memory = Memory(LIMIT)
    one = joined(memory)
    arrays = [leased_array(one) for _ in range(16)]
    other = joined(memory)
    assert not other.reserve(SMALLEST)
    del arrays
    assert other.reserve(LIMIT // 2)


def test_leased_memory_of_a_share_that_left_counts_until_it_is_returned() -> None:
    memory = Memory(LIMIT)
    one, other = joined(memory), joined(memory)
    array = leased_array(one, LIMIT // 2)
    one.leave()
    assert other.reserve(LIMIT // 2)
    assert not other.reserve(SMALLEST)
    del array
    assert other.reserve(LIMIT // 2)


def test_no_memory_is_kept_after_all_shares_left_and_all_banks_were_returned() -> None:
    memory = Memory(LIMIT)
    budget = joined(memory)
    lent, free = leased_array(budget), leased_array(budget)
    del free
    budget.leave()
    assert memory.held_bytes == SMALLEST
    lent[:] = 1
    del lent
    assert memory.held_bytes == 0
    assert not memory.free


def test_memory_used_by_other_shares_leaves_no_room_for_tables() -> None:
    memory = Memory(LIMIT)
    one = joined(memory)
    arrays = [leased_array(one) for _ in range(15)]
    other = joined(memory)
    with pytest.raises(SettingError, match=f"memory: expected room for {2 * SMALLEST} bytes of tables, of {LIMIT}"):
        other.set_fixed(2 * SMALLEST)
    other.set_fixed(SMALLEST)
    del arrays
    other.report()
    assert memory.held_bytes == LIMIT
    one.set_fixed(SMALLEST)
    assert memory.held_bytes == LIMIT  # free banks made room


def test_a_share_can_join_during_an_iteration_only_if_its_part_was_kept_free() -> None:
    memory = Memory(LIMIT)
    one = joined(memory)
    one.iterating = object()
    with pytest.raises(SettingError, match="pool: expected a pool in which no loader iterates"):
        joined(memory)
    assert one.limit_bytes == LIMIT
    one.iterating = None
    assert joined(memory).limit_bytes == LIMIT // 2
    expecting = Memory(LIMIT, expected=2)
    one = joined(expecting)
    assert one.limit_bytes == LIMIT // 2
    one.iterating = object()
    other = joined(expecting)
    assert other.limit_bytes == LIMIT // 2
    with pytest.raises(SettingError, match="pool"):
        joined(expecting)
    other.leave()
    assert one.limit_bytes == LIMIT


def test_a_share_can_be_abandoned_whether_or_not_it_joined() -> None:
    memory = Memory(LIMIT)
    one = joined(memory)
    Budget(memory).abandon()
    other = joined(memory)
    other.abandon()
    one.report()
    assert one.limit_bytes == LIMIT


def test_memory_returned_to_one_share_wakes_waiting_threads_of_others() -> None:
    memory = Memory(LIMIT)
    one, other = joined(memory), joined(memory)
    woken: list[int] = []
    other.wake = lambda: woken.append(1)
    array = leased_array(one)
    del array
    assert woken == [1]


def test_the_suggested_memory_leaves_exactly_the_bytes_asked_for() -> None:
    memory = Memory(1)
    budgets = [joined(memory) for _ in range(3)]
    budgets[1].fixed_bytes = 1000
    named = budgets[1].memory_for(5000)
    memory.limit_bytes = named
    assert budgets[1].limit_bytes == 5000


# any sequence of operations -------------------------------------------------------------------------------------------


class BankMachine(RuleBasedStateMachine):
    """Shares join, reserve, lease, return and leave in any order, and a model counts the same."""

    budgets = Bundle("budgets")
    reservations = Bundle("reservations")
    arrays = Bundle("arrays")

    @initialize(limit=st.integers(1, 12).map(lambda n: n * SMALLEST + 77))
    def begin(self, limit: int) -> None:
        self.memory = Memory(limit)
        self.members: list[Budget] = []
        self.live: dict[int, tuple[int, Any]] = {}  # address → size and array of all leases
        self.reserved: dict[Budget, int] = {}
        self.pending: list[Reservation] = []

    @precondition(lambda self: len(self.members) < 3)
    @rule(target=budgets, fixed=st.integers(0, 2 * SMALLEST))
    def join(self, fixed: int) -> Any:
        budget = joined(self.memory)
        try:
            budget.set_fixed(fixed)
        except SettingError:
            budget.leave()
            return multiple()
        self.members.append(budget)
        self.reserved[budget] = 0
        return budget

    @rule(target=reservations, budget=budgets, size=st.integers(0, 6 * SMALLEST))
    def reserve(self, budget: Budget, size: int) -> Any:
        size = bank_bytes(size)
        found = budget.reserve(size) if budget in self.members else None
        if found is None:
            return multiple()
        self.reserved[budget] += size
        self.pending.append(found)
        assert budget.used_bytes + budget.reserved_bytes <= budget.limit_bytes
        return budget, found

    @rule(reservation=consumes(reservations))
    def cancel(self, reservation: tuple[Budget, Reservation]) -> None:
        budget, found = reservation
        self.reserved[budget] -= found.size_bytes
        found.cancel()  # also of a share that left: its threads may end later

    @rule(target=arrays, reservation=consumes(reservations), share_of_it=st.floats(0, 1))
    def take(self, reservation: tuple[Budget, Reservation], share_of_it: float) -> Any:
        budget, found = reservation
        size = found.size_bytes
        array = array_of(found.take(int(size * share_of_it)))
        self.reserved[budget] -= size
        assert int(size * share_of_it) <= array.nbytes <= size
        address = array.ctypes.data
        for other, (length, _) in self.live.items():
            assert address + array.nbytes <= other or other + length <= address
        array[[0, -1]] = len(self.live) % 251
        self.live[address] = array.nbytes, array
        return address

    @rule(address=consumes(arrays), in_thread=st.booleans())
    def give_back(self, address: int, in_thread: bool) -> None:
        if in_thread:
            thread = threading.Thread(target=self.live.pop, args=(address,))
            thread.start()
            thread.join()
        else:
            del self.live[address]

    @rule(budget=consumes(budgets))
    def leave(self, budget: Budget) -> None:
        if budget in self.members:
            budget.leave()
            self.members.remove(budget)

    @invariant()
    def no_more_is_held_than_the_limit(self) -> None:
        if not hasattr(self, "memory"):
            return
        lent = sum(size for size, _ in self.live.values())
        free = sum(bank.size_bytes for bank in self.memory.free)
        fixed = sum(budget.fixed_bytes for budget in self.members)
        if not self.members:
            assert not free
        assert free == self.memory.free_bytes
        assert lent + free + fixed <= self.memory.limit_bytes
        assert lent + fixed + sum(self.reserved.values()) <= self.memory.limit_bytes

    @invariant()
    def what_is_lent_is_lent_to_nobody_else(self) -> None:
        free = {bank.address for bank in getattr(self, "memory", Memory(1)).free}
        assert not free & set(getattr(self, "live", ()))

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            self.live.clear()
            for found in self.pending:
                found.cancel()
            for budget in self.reserved:
                assert budget.report()["banks_in_use"] == 0
                budget.leave()
            assert self.memory.promised_bytes == self.memory.held_bytes == 0


TestBanks = BankMachine.TestCase
TestBanks.settings = settings(max_examples=60, stateful_step_count=40)
