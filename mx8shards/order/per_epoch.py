"""How are values that depend on the epoch, such as permutations, cached?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerEpoch(Generic[T]):
    """Caches a pure function's values for the last two epochs: one may be ending while the next is prefetched.

    Threads share it without a lock; at worst, two threads compute one value twice.
    """

    def __init__(self) -> None:
        self._known: tuple[tuple[int, T], ...] = ()

    def get(self, epoch: int, compute: Callable[[int], T]) -> T:
        """The value at this epoch."""
        for known, value in self._known:
            if known == epoch:
                return value
        made = compute(epoch)
        self._known = ((epoch, made), *self._known[:1])
        return made
