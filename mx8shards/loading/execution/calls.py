"""Functions that the threads of providers call for a planner: when have all ended, and with which errors?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from threading import Event

Errors = dict[int, Exception]


class Calls:
    """Calls for several shards. `then` gets their errors in the thread that ends last, and must not raise.

    shard  the number of one of the shards, for messages
    since  when they were queued, by time.monotonic
    ended  set when all calls have ended, and `then` too
    """

    def __init__(self, shard: int, count: int, then: Callable[[Errors], object]) -> None:
        self.shard = shard
        self.since = time.monotonic()
        self.ended = Event()
        self.errors: Errors = {}
        self._count = count
        self._then = then
        self._number = itertools.count(1)  # `next` of it is atomic under the GIL

    def one_ended(self, i: int, error: Exception | None) -> None:
        """The call for shard `i` has ended."""
        if error is not None:
            self.errors[i] = error
        if next(self._number) == self._count:
            self._then(self.errors)
            self.ended.set()
