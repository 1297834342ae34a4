"""Where do batches lie in memory, and when may that memory be used again?

`Memory` is a hard limit, shared by loaders in equal parts. A loader's `Share` first reserves an upper bound of what a
batch will need, then takes a bank of the size it really needs, lends it with the batch, and gets it back when the last
array that views it is gone. Banks that came back stay, to be used again, while there is room for them.

A lease may end anywhere: in any thread, within a garbage collection, while any lock is held. So it only appends to a
queue, which whoever needs memory empties.
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

    __slots__ = ("bank", "share", "waking")

    bank: Bank
    share: Share
    waking: weakref.ref[Lease]


def nobody_waits() -> None:
    """What a share calls where there is no run that could be woken, or shed."""


class Memory:
    """So many bytes for all banks of all loaders that share it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.lock = Lock()
        self.shares: tuple[Share, ...] = ()
        self.departed: tuple[Share, ...] = ()  # they left, but somebody still holds what they lent
        self.lent: dict[int, Lent] = {}
        self.returned: deque[Lent] = deque()  # some may be there twice
        self.abandoned: deque[Share] = deque()
        self.free: list[Bank] = []  # the one that came back last is last: it may still be in a cache
        self.free_bytes = 0
        self.pins: Pins | None = None
        self.shared: WeakValueDictionary[str, Any] = WeakValueDictionary()  # what stages of several loaders share

    def join(self) -> Share:
        """Another equal share."""
        share = Share(self)
        with self.lock:
            self.shares = (*self.shares, share)
        return share

    def leave(self, share: Share) -> None:
        """This share's part is the others' from now on, but for what it has lent until that comes back."""
        with self.lock:
            self.abandoned.append(share)
            self.take_back()
        for other in self.shares:
            other.wake()

    @property
    def scratch_bytes(self) -> int:
        """What the threads need to work in: whichever loader they work for, they need it once."""
        return max((share.scratch_bytes for share in self.shares), default=0)

    @property
    def held_bytes(self) -> int:
        """All that is mapped now."""
        return self.scratch_bytes + self.free_bytes + sum(share.fixed_bytes + share.used_bytes for share in self._all)

    @property
    def promised_bytes(self) -> int:
        """All that is in use or reserved: free banks make room for it."""
        promised = sum(share.fixed_bytes + share.used_bytes + share.reserved_bytes for share in self._all)
        return self.scratch_bytes + promised

    @property
    def _all(self) -> tuple[Share, ...]:
        return self.shares + self.departed

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
        """Count what came back, to whichever share, and keep it for the next; the lock is held."""
        while self.abandoned:
            share = self.abandoned.popleft()
            if share in self.shares:
                self.shares = tuple(other for other in self.shares if other is not share)
                self.departed = (*self.departed, share)
                share.fixed_bytes = 0
        while self.returned:
            lent = self.returned.popleft()
            if self.lent.pop(id(lent), None) is None:
                continue
            share, bank = lent.share, lent.bank
            del lent.bank  # the second time may come much later
            share.leases -= 1
            share.used_bytes -= bank.size_bytes
            self.free.append(bank)
            self.free_bytes += bank.size_bytes
        if self.departed:
            self.departed = tuple(share for share in self.departed if share.leases or share.reserved_bytes)
        if not self.shares:
            self.free.clear()
            self.free_bytes = 0

    def _remove(self, i: int) -> Bank:
        bank = self.free.pop(i)
        self.free_bytes -= bank.size_bytes
        return bank


class Share:
    """What one loader has of a Memory: counters of what it reserved and uses.

    `wake` is called, from anywhere, whenever a bank comes back to any of the shares; `shed` when another share joins
    and this one has more than its part, which is smaller now: what was made ahead is to be given up.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.wake: Callable[[], None] = nobody_waits
        self.shed: Callable[[], None] = nobody_waits
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
        return (memory.limit_bytes - memory.scratch_bytes) // max(1, len(memory.shares)) - self.fixed_bytes

    def set_fixed(self, size_bytes: int) -> None:
        """So many bytes are held besides banks; SettingError if others already use what that would take.

        Those that made more ahead than is their part now make it again later.
        """
        memory = self._memory
        with memory.lock:
            memory.take_back()
            greedy = [other for other in memory.shares if other.used_bytes + other.reserved_bytes > other.limit_bytes]
        for other in greedy:
            other.shed()
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
        """The `memory=` that leaves this share so many bytes for banks."""
        now = size_bytes + self.fixed_bytes
        return (now + min(self.growth_bytes, now // 3 + 1)) * max(
            1, len(self._memory.shares)
        ) + self._memory.scratch_bytes

    def reserve(self, size_bytes: int) -> bool:
        """Set aside room for a bank of so many bytes, if there is room."""
        with self._memory.lock:
            self._memory.take_back()
            mine = self.used_bytes + self.reserved_bytes + size_bytes
            if mine > self.limit_bytes or self._memory.promised_bytes + size_bytes > self._memory.limit_bytes:
                return False
            self.reserved_bytes += size_bytes
            self.high_water_bytes = max(self.high_water_bytes, mine)
            return True

    def cancel(self, reserved_bytes: int) -> None:
        """Give up what was reserved."""
        with self._memory.lock:
            self.reserved_bytes -= reserved_bytes

    def take(self, reserved_bytes: int, size_bytes: int) -> Lease:
        """A bank of at least `size_bytes` for what was reserved; what it does not need is free again."""
        least = bank_bytes(size_bytes)
        if least > reserved_bytes:
            raise LoaderError(f"a batch needs {least} bytes, and {reserved_bytes} were reserved for it")
        with self._memory.lock:
            self._memory.take_back()
            bank = self._memory.find(least, reserved_bytes)
            self.reserved_bytes -= reserved_bytes
            self.used_bytes += bank.size_bytes
            self.leases += 1
        return self._lend(bank)

    def _lend(self, bank: Bank) -> Lease:
        memory, lease = self._memory, Lease(bank)
        lent = Lent(lease, memory.returned.append)
        lent.bank, lent.share = bank, self
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
        """The same, where a garbage collection may be under way: in due time."""
        self._memory.abandoned.append(self)

    def _come_back(self, lent: Lent) -> None:
        memory = self._memory
        memory.returned.append(lent)  # this may come before the callback that only does this
        for share in memory.shares:
            share.wake()
        if not memory.shares and memory.lock.acquire(blocking=False):  # nobody else will ever come to take it back
            try:
                memory.take_back()
            finally:
                memory.lock.release()
