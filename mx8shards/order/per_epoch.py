"""How is what an epoch needs computed once for it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerEpoch(Generic[T]):
    """The values of a pure function at the last two epochs asked for: one is ending while the next is prefetched.

    Threads may share it without a lock. At worst two of them compute the same value.
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
