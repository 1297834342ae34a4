"""How is an attribute computed on first access and cached, without a lock?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class cached_attribute(Generic[T]):  # noqa: N801 - it is used as a decorator
    """Like `functools.cached_property`, whose lock in Python 3.11 may be held by another thread during a fork.

    Two threads may compute the value at once, but both get the first one that was stored, so that a mapping whose
    address is in use is never replaced.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
