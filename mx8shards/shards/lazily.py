"""How is an attribute computed once, by whoever asks first, and without a lock?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class lazily(Generic[T]):  # noqa: N801 - it is used as a decorator
    """Like `functools.cached_property`, of which Python 3.11 has one lock for all, and a fork may catch it held.

    Two threads may compute at once. The value of the first one stays, and both get it: a map whose address somebody
    keeps is never replaced by another.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
