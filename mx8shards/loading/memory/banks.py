"""Where do batches lie in memory, and when may that memory be used again?

`Memory` is a hard limit that loaders share in equal parts. A loader's `Budget` reserves an upper bound of what batches
will need. The `Reservation` is spent on a bank of the size they really need, or cancelled. The bank is lent with the
batches, and comes back when the last array that views it is gone. Banks are kept for reuse while there is room.

A lease may end anywhere: in any thread, within a garbage collection, while any lock is held. So its end only appends to
a queue, which is emptied by whoever needs memory.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from mx8shards.errors import LoaderError, SettingError

_LEAST_BYTES = 64 << 10
_STEPS = 8  # between a power of two and the next one: a bank is at most an eighth larger than what was asked for
_HUGE_BYTES = 2 << 20


def bank_bytes(size_bytes: int) -> int:
    """The size of the bank that holds this many bytes: few sizes, so that a bank that came back often fits."""
    power = 1 << max(size_bytes - 1, 1).bit_length() - 1
    step = max(_LEAST_BYTES, power // _STEPS)
    return max(1, -(-size_bytes // step)) * step


class Pins(Protocol):
    """What makes memory ready to be copied from by a device."""

    def pin(self, address: int, size_bytes: int) -> None:
        """Before it is used."""

    def unpin(self, address: int) -> None:
        """Before it is unmapped."""


class Bank:
    """Anonymous memory for one batch."""

    __slots__ = ("__weakref__", "_memory", "address", "size_bytes")

    def __init__(self, size_bytes: int, pins: Pins | None = None) -> None:
        self._memory = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if size_bytes >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self.size_bytes = size_bytes
        self.address = int(np.frombuffer(self._memory, np.uint8).ctypes.data)
        if pins is not None:
            pins.pin(self.address, size_bytes)
            weakref.finalize(self, pins.unpin, self.address)


class Lease:
    """The base of every array over a bank that somebody views. The bank goes back when the lease is gone."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank  # it stays mapped, also when the loader and its pool are gone
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (bank.size_bytes,),
            "typestr": "|u1",
            "data": (bank.address, False),
        }


class Lent(weakref.ref[Lease]):
    """A bank that is lent, and what watches its lease.

    That a lease ended is noted by a callback that is no Python code: in a `__del__`, or a callback in Python, Ctrl-C
    may come before its first statement, and the bank would be lost. Waking those who wait for memory is Python code. If
    Ctrl-C comes there, the consumer wakes them, at the latest half a second after it began to wait.
    """

    __slots__ = ("bank", "budget", "waking")

    bank: Bank
    budget: Budget
    waking: weakref.ref[Lease]


def nobody_waits() -> None:
    """The `wake` of a budget without a planner that waits for memory."""


class Memory:
    """A hard limit on the banks of several loaders, which have equal parts of it.

    limit_bytes  the most bytes that all of them hold together
    expected     how many budgets will join at least: their parts are kept free for them. A forked child knows this of
                 its parent's loaders
    """

    def __init__(self, limit_bytes: int, *, expected: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.expected = expected
        self.lock = Lock()
        self.budgets: tuple[Budget, ...] = ()
        self.departed: tuple[Budget, ...] = ()  # they left, but somebody still holds what they lent
        self.lent: dict[int, Lent] = {}
        self.returned: deque[Lent] = deque()  # some may be there twice
        self.abandoned: deque[Budget] = deque()
        self.free: list[Bank] = []  # the one that came back last is last: it may still be in a cache
        self.free_bytes = 0
        self.pins: Pins | None = None
        self.shared: WeakValueDictionary[str, Any] = WeakValueDictionary()  # what stages of several loaders share

    @property
    def parts(self) -> int:
        """Into how many equal parts the memory is divided."""
        return max(1, len(self.budgets), self.expected)

    def leave(self, budget: Budget) -> None:
        """This budget's part is the others' from now on, except for what it has lent, until that comes back."""
        with self.lock:
            self.abandoned.append(budget)
            self.take_back()
        for other in self.budgets:
            other.wake()

    @property
    def scratch_bytes(self) -> int:
        """What the threads need to work in: whichever loader they work for, they need it once."""
        return max((budget.scratch_bytes for budget in self.budgets), default=0)

    @property
    def held_bytes(self) -> int:
        """All that is mapped now."""
        return (
            self.scratch_bytes + self.free_bytes + sum(budget.fixed_bytes + budget.used_bytes for budget in self._all)
        )

    @property
    def promised_bytes(self) -> int:
        """All that is in use or reserved: free banks make room for it."""
        promised = sum(budget.fixed_bytes + budget.used_bytes + budget.reserved_bytes for budget in self._all)
        return self.scratch_bytes + promised

    @property
    def _all(self) -> tuple[Budget, ...]:
        return self.budgets + self.departed

    def find(self, least: int, most: int) -> Bank:
        """A bank of `least` to `most` bytes; the lock is held. A new one makes room for itself among the free ones."""
        if self.free and least <= self.free[-1].size_bytes <= most:  # nearly always
            return self._remove(-1)
        fitting = [(bank.size_bytes, -i) for i, bank in enumerate(self.free) if least <= bank.size_bytes <= most]
        if fitting:
            return self._remove(-min(fitting)[1])
        self.make_room(least)
        return Bank(least, self.pins)

    def make_room(self, size_bytes: int) -> None:
        """Give up free banks for so many bytes; the lock is held."""
        while self.free and self.held_bytes + size_bytes > self.limit_bytes:
            self._remove(0)

    def take_back(self) -> None:
        """Count what came back, to whichever budget, and keep it for the next; the lock is held."""
        while self.abandoned:
            budget = self.abandoned.popleft()
            if budget in self.budgets:
                self.expected = max(0, self.expected - 1)
                self.budgets = tuple(other for other in self.budgets if other is not budget)
                self.departed = (*self.departed, budget)
                budget.fixed_bytes = 0
        while self.returned:
            lent = self.returned.popleft()
            if self.lent.pop(id(lent), None) is None:
                continue
            budget, bank = lent.budget, lent.bank
            del lent.bank  # the second time may come much later
            budget.leases -= 1
            budget.used_bytes -= bank.size_bytes
            self.free.append(bank)
            self.free_bytes += bank.size_bytes
        if self.departed:
            self.departed = tuple(budget for budget in self.departed if budget.leases or budget.reserved_bytes)
        if not self.budgets:
            self.free.clear()
            self.free_bytes = 0

    def _remove(self, i: int) -> Bank:
        bank = self.free.pop(i)
        self.free_bytes -= bank.size_bytes
        return bank


class Reservation:
    """Bytes of a budget that are set aside for one bank, until that is taken or the reservation is cancelled.

    One thread at a time has it: the planner, and then the thread that takes the bank.
    """

    __slots__ = ("_budget", "size_bytes")

    def __init__(self, budget: Budget, size_bytes: int) -> None:
        self._budget = budget
        self.size_bytes = size_bytes  # 0 once it is spent or cancelled

    def take(self, size_bytes: int) -> Lease:
        """A bank of at least `size_bytes`, which spends the reservation."""
        least = bank_bytes(size_bytes)
        if least > self.size_bytes:
            raise LoaderError(f"a batch needs {least} bytes, and {self.size_bytes} were reserved for it")
        reserved_bytes, self.size_bytes = self.size_bytes, 0
        try:
            return self._budget.take(reserved_bytes, least)
        except BaseException:
            self._budget.give_up(reserved_bytes)  # no memory could be mapped
            raise

    def cancel(self) -> None:
        """Give it up. Without effect if it was spent or cancelled before."""
        reserved_bytes, self.size_bytes = self.size_bytes, 0
        if reserved_bytes:
            self._budget.give_up(reserved_bytes)


class Budget:
    """One loader's part of a Memory: counters of what it reserved and uses.

    `wake` is called, from anywhere, whenever a bank comes back to any of the budgets. `iterating` identifies the run
    that makes batches now. A budget counts from `join` on; one that may have joined or not can be abandoned.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.wake: Callable[[], None] = nobody_waits
        self.iterating: object | None = None
        self.reserved_bytes = 0
        self.used_bytes = 0
        self.leases = 0
        self.fixed_bytes = 0
        self.growth_bytes = 0  # how much more would be fixed with more memory, which is a third of the rest at most
        self.scratch_bytes = 0
        self.high_water_bytes = 0

    @property
    def limit_bytes(self) -> int:
        """How much it may hold now."""
        memory = self._memory
        return (memory.limit_bytes - memory.scratch_bytes) // memory.parts - self.fixed_bytes

    def join(self) -> None:
        """Take an equal part. SettingError if another loader makes batches and the parts would become smaller."""
        memory = self._memory
        with memory.lock:
            memory.take_back()
            if len(memory.budgets) >= memory.expected and any(
                budget.iterating is not None for budget in memory.budgets
            ):
                raise SettingError(
                    subject="pool",
                    expected="a pool of which no loader iterates: all parts of its memory become smaller now",
                    found="one whose loader makes batches",
                    hint="make all loaders of a pool (train and validation) before one of them is iterated",
                )
            memory.budgets = (*memory.budgets, self)

    def set_fixed(self, size_bytes: int) -> None:
        """Hold so many bytes besides banks; SettingError if others already use what that would take."""
        memory = self._memory
        with memory.lock:
            memory.take_back()
            if memory.promised_bytes + size_bytes > memory.limit_bytes:
                raise SettingError(
                    subject="memory",
                    expected=f"room for {size_bytes} bytes of tables, of {memory.limit_bytes} in all",
                    found=f"{memory.promised_bytes} in use",
                )
            memory.make_room(size_bytes)
            self.fixed_bytes = size_bytes

    def memory_for(self, size_bytes: int) -> int:
        """The `memory=` that leaves this budget so many bytes for banks."""
        now = size_bytes + self.fixed_bytes
        return (now + min(self.growth_bytes, now // 3 + 1)) * self._memory.parts + self._memory.scratch_bytes

    def reserve(self, size_bytes: int) -> Reservation | None:
        """Set aside room for a bank of so many bytes; None if there is no room now."""
        with self._memory.lock:
            self._memory.take_back()
            mine = self.used_bytes + self.reserved_bytes + size_bytes
            if mine > self.limit_bytes or self._memory.promised_bytes + size_bytes > self._memory.limit_bytes:
                return None
            self.reserved_bytes += size_bytes
            self.high_water_bytes = max(self.high_water_bytes, mine)
        return Reservation(self, size_bytes)

    def give_up(self, reserved_bytes: int) -> None:
        """What a reservation held is free again."""
        with self._memory.lock:
            self.reserved_bytes -= reserved_bytes

    def take(self, reserved_bytes: int, size_bytes: int) -> Lease:
        """A bank of at least `size_bytes` for what was reserved; the rest of that is free again."""
        with self._memory.lock:
            self._memory.take_back()
            bank = self._memory.find(size_bytes, reserved_bytes)
            self.reserved_bytes -= reserved_bytes
            self.used_bytes += bank.size_bytes
            self.leases += 1
        return self._lend(bank)

    def _lend(self, bank: Bank) -> Lease:
        memory, lease = self._memory, Lease(bank)
        lent = Lent(lease, memory.returned.append)
        lent.bank, lent.budget = bank, self
        lent.waking = weakref.ref(lease, lambda _: self._come_back(lent))
        memory.lent[id(lent)] = lent
        return lease

    def report(self) -> dict[str, int]:
        """What it holds now, by name."""
        with self._memory.lock:
            self._memory.take_back()
            return {
                "memory_limit_bytes": self.limit_bytes,
                "memory_high_water_bytes": self.high_water_bytes,
                "bytes_in_use": self.used_bytes,
                "bytes_reserved": self.reserved_bytes,
                "bytes_free_in_banks": self._memory.free_bytes,
                "banks_in_use": self.leases,
                "banks_free": len(self._memory.free),
            }

    def leave(self) -> None:
        """Give this part up to the others. What is still lent is given up when it comes back."""
        self._memory.leave(self)

    def abandon(self) -> None:
        """Leave later: a garbage collection may be under way, and a lock held."""
        self._memory.abandoned.append(self)

    def _come_back(self, lent: Lent) -> None:
        memory = self._memory
        memory.returned.append(lent)  # this may come before the callback that only does this
        for budget in memory.budgets:
            budget.wake()
        if not memory.budgets and memory.lock.acquire(blocking=False):  # nobody else will ever come to take it back
            try:
                memory.take_back()
            finally:
                memory.lock.release()
