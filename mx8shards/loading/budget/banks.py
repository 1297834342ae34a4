"""Where are batches in memory, and when is that memory reused? Banks, leases, reservations and the memory limit.

`Memory` is a hard limit that loaders share in equal parts. A loader's `Budget` reserves an upper bound of the size of
batches. The `Reservation` is spent on a bank of their exact size, or cancelled. The bank is leased to the batches, and
returns when the last array over it is gone. Returned banks are kept for reuse while there is room.

A lease may end in any thread, within a garbage collection, and while any lock is held. So its end only appends to a
queue, and a thread that needs memory processes the queue.
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

_MIN_BYTES = 64 << 10
_STEPS = 8  # sizes per power of two: a bank is at most an eighth larger than its content
_HUGE_BYTES = 2 << 20


def bank_bytes(size_bytes: int) -> int:
    """The size of a bank for this many bytes, rounded up to one of few sizes, so that a returned bank often fits."""
    power = 1 << max(size_bytes - 1, 1).bit_length() - 1
    step = max(_MIN_BYTES, power // _STEPS)
    return max(1, -(-size_bytes // step)) * step


class Pins(Protocol):
    """Pins memory, so that a device can copy from it."""

    def pin(self, address: int, size_bytes: int) -> None:
        """Pin memory before its first use."""

    def unpin(self, address: int) -> None:
        """Unpin memory before it is unmapped."""


class Bank:
    """Anonymous memory for the batches of one group."""

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
    """The base object of all arrays over a bank. The bank returns when the lease is deallocated."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank  # the bank stays mapped, even after its loader and pool are gone
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (bank.size_bytes,),
            "typestr": "|u1",
            "data": (bank.address, False),
        }


class Lent(weakref.ref[Lease]):
    """A leased bank, as a weak reference to its lease.

    The callback that records the end of the lease is a C function. In `__del__` or a Python callback, Ctrl-C may come
    before the first statement, and the bank would be lost. Waking the planners that wait for memory is Python code: if
    Ctrl-C comes there, the waiting consumer wakes them after half a second at most.
    """

    __slots__ = ("bank", "budget", "waking")

    bank: Bank
    budget: Budget
    waking: weakref.ref[Lease]


def nobody_waits() -> None:
    """The `wake` of a budget while no planner waits for memory."""


class Memory:
    """A hard limit on the memory of several loaders, divided into equal parts.

    limit_bytes  the maximum number of bytes that all loaders hold together
    expected     the number of budgets that will join, whose parts stay free until then. A forked child sets it to the
                 number of its parent's loaders
    """

    def __init__(self, limit_bytes: int, *, expected: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.expected = expected
        self.lock = Lock()
        self.budgets: tuple[Budget, ...] = ()
        self.departed: tuple[Budget, ...] = ()  # they left, but the user still holds batches in their banks
        self.lent: dict[int, Lent] = {}
        self.returned: deque[Lent] = deque()  # a bank may be in it twice
        self.abandoned: deque[Budget] = deque()
        self.free: list[Bank] = []  # the bank returned last is last: it may still be in a CPU cache
        self.free_bytes = 0
        self.pins: Pins | None = None
        self.shared: WeakValueDictionary[str, Any] = WeakValueDictionary()  # by stages of different loaders

    def wake(self) -> None:
        """Wake the planners that wait for memory, because some has become free."""
        for budget in self.budgets:
            budget.wake()

    @property
    def parts(self) -> int:
        """The number of equal parts of the memory."""
        return max(1, len(self.budgets), self.expected)

    def leave(self, budget: Budget) -> None:
        """Divide this budget's part among the others; banks that are still leased follow when they return."""
        with self.lock:
            self.abandoned.append(budget)
            self.take_back()
        self.wake()

    @property
    def scratch_bytes(self) -> int:
        """The decoders' scratch of all threads. A thread works for one loader at a time, so the maximum is enough."""
        return max((budget.scratch_bytes for budget in self.budgets), default=0)

    @property
    def held_bytes(self) -> int:
        """The bytes that are mapped now."""
        return (
            self.scratch_bytes + self.free_bytes + sum(budget.fixed_bytes + budget.used_bytes for budget in self._all)
        )

    @property
    def promised_bytes(self) -> int:
        """The bytes in use or reserved. Free banks do not count, because they are unmapped when memory is needed."""
        promised = sum(budget.fixed_bytes + budget.used_bytes + budget.reserved_bytes for budget in self._all)
        return self.scratch_bytes + promised

    @property
    def _all(self) -> tuple[Budget, ...]:
        return self.budgets + self.departed

    def find(self, least: int, most: int) -> Bank:
        """A free or new bank of `least` to `most` bytes, with the lock held. A new one may replace free ones."""
        if self.free and least <= self.free[-1].size_bytes <= most:  # nearly always
            return self._remove(-1)
        fitting = [(bank.size_bytes, -i) for i, bank in enumerate(self.free) if least <= bank.size_bytes <= most]
        if fitting:
            return self._remove(-min(fitting)[1])
        self.make_room(least)
        return Bank(least, self.pins)

    def make_room(self, size_bytes: int) -> None:
        """Unmap free banks until this many bytes fit, with the lock held."""
        while self.free and self.held_bytes + size_bytes > self.limit_bytes:
            self._remove(0)

    def take_back(self) -> None:
        """Process the queues of returned banks and abandoned budgets, with the lock held."""
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
            del lent.bank  # the second entry in the queue may come much later
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
    """Bytes of a budget for one bank, until the bank is taken or the reservation is cancelled.

    It is used by one thread at a time: first the planner, then the thread that takes the bank.
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
            self._budget.give_up(reserved_bytes)  # mmap failed
            raise

    def cancel(self) -> None:
        """Free the reserved bytes. Has no effect if the reservation was spent or cancelled before."""
        reserved_bytes, self.size_bytes = self.size_bytes, 0
        if reserved_bytes:
            self._budget.give_up(reserved_bytes)


class Budget:
    """One loader's part of a Memory: counters of reserved and used bytes.

    `wake` is called, in any thread, when a bank returns to any of the budgets. `iterating` identifies the current run.
    A budget counts after `join`; `leave` and `abandon` may also be called before it.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.wake: Callable[[], None] = nobody_waits
        self.iterating: object | None = None
        self.reserved_bytes = 0
        self.used_bytes = 0
        self.leases = 0
        self.fixed_bytes = 0
        self.growth_bytes = 0  # how much `fixed_bytes` may grow if `memory=` is raised
        self.scratch_bytes = 0
        self.high_water_bytes = 0

    @property
    def limit_bytes(self) -> int:
        """The bytes that this budget may hold in banks now."""
        memory = self._memory
        return (memory.limit_bytes - memory.scratch_bytes) // memory.parts - self.fixed_bytes

    def join(self) -> None:
        """Take an equal part. SettingError if parts become smaller while another loader of the pool iterates."""
        memory = self._memory
        with memory.lock:
            memory.take_back()
            if len(memory.budgets) >= memory.expected and any(
                budget.iterating is not None for budget in memory.budgets
            ):
                raise SettingError(
                    subject="pool",
                    expected="a pool in which no loader iterates, as each loader's part of the memory becomes smaller",
                    found="a loader that iterates",
                    hint="make all loaders of a pool (train and validation) before one of them is iterated",
                )
            memory.budgets = (*memory.budgets, self)

    def set_fixed(self, size_bytes: int) -> None:
        """Hold this many bytes besides banks; SettingError if other loaders already use them."""
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
        """The value of `memory=` that gives this budget this many bytes for banks."""
        now = size_bytes + self.fixed_bytes
        return (now + min(self.growth_bytes, now // 3 + 1)) * self._memory.parts + self._memory.scratch_bytes

    def reserve(self, size_bytes: int) -> Reservation | None:
        """Reserve this many bytes for a bank; None if they are not free now."""
        with self._memory.lock:
            self._memory.take_back()
            mine = self.used_bytes + self.reserved_bytes + size_bytes
            if mine > self.limit_bytes or self._memory.promised_bytes + size_bytes > self._memory.limit_bytes:
                return None
            self.reserved_bytes += size_bytes
            self.high_water_bytes = max(self.high_water_bytes, mine)
        return Reservation(self, size_bytes)

    def give_up(self, reserved_bytes: int) -> None:
        """Free the bytes of a reservation."""
        with self._memory.lock:
            self.reserved_bytes -= reserved_bytes
        self._memory.wake()

    def take(self, reserved_bytes: int, size_bytes: int) -> Lease:
        """Exchange reserved bytes for a bank of at least `size_bytes`, and free the rest of the reservation."""
        with self._memory.lock:
            self._memory.take_back()
            bank = self._memory.find(size_bytes, reserved_bytes)
            self.reserved_bytes -= reserved_bytes
            self.used_bytes += bank.size_bytes
            self.leases += 1
        if bank.size_bytes < reserved_bytes:
            self._memory.wake()
        return self._lend(bank)

    def _lend(self, bank: Bank) -> Lease:
        memory, lease = self._memory, Lease(bank)
        lent = Lent(lease, memory.returned.append)
        lent.bank, lent.budget = bank, self
        lent.waking = weakref.ref(lease, lambda _: self._come_back(lent))
        memory.lent[id(lent)] = lent
        return lease

    def report(self) -> dict[str, int]:
        """The counters of this budget, by name."""
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
        """Leave the memory. Leased banks follow when they return."""
        self._memory.leave(self)

    def abandon(self) -> None:
        """Leave later, without a lock: a garbage collection may call this while a lock is held."""
        self._memory.abandoned.append(self)

    def _come_back(self, lent: Lent) -> None:
        memory = self._memory
        memory.returned.append(lent)  # this callback may run before the one in C
        memory.wake()
        if not memory.budgets and memory.lock.acquire(blocking=False):  # no budget is left that would process the queue
            try:
                memory.take_back()
            finally:
                memory.lock.release()
