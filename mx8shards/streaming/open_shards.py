"""Which open shards are closed again, because a cache with a limit may evict them? OpenShards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mx8shards.order.permutation import Ids
from mx8shards.shards.providers import Eviction

_PART = 4  # of the limit


class OpenShards:
    """Bounds the bytes of open shards of caches with a limit: first opened, first closed.

    An evicted file takes disk space as long as it is open. So each process keeps at most a quarter of the limit open.

    Args:
        limited: The number of the first shard of each cache with a limit, and what decides which of its shards stay.
        count: The number of shards.
    """

    def __init__(self, limited: Sequence[tuple[int, Eviction]], count: int) -> None:
        self._sizes: Ids = np.zeros(count, np.int64)
        self._most_bytes = min((eviction.limit_bytes // _PART for _, eviction in limited), default=0)
        self._open: dict[int, int] = {}  # the bytes of each open shard, in the order of their opening
        for first, eviction in limited:
            self._sizes[first : first + len(eviction.sizes)] = eviction.sizes

    def opened(self, shard: int) -> list[int]:
        """Record that a shard was opened. Returns those to be closed."""
        size_bytes = int(self._sizes[shard])
        if not size_bytes or shard in self._open:
            return []
        self._open[shard] = size_bytes
        beyond = sum(self._open.values()) - self._most_bytes
        to_close = []
        for each, each_bytes in list(self._open.items()):
            if beyond <= 0 or each == shard:
                break
            to_close.append(each)
            beyond -= each_bytes
        return to_close

    def closed(self, shard: int) -> None:
        """Record that a shard was closed."""
        self._open.pop(shard, None)

    def may_leave(self, shard: int) -> bool:
        """Whether this shard may be evicted."""
        return bool(self._sizes[shard])

    def fit(self, shards: Ids) -> bool:
        """Whether these shards may be open together."""
        return int(self._sizes[shards].sum()) <= self._most_bytes

    @property
    def all(self) -> list[int]:
        """The open shards of caches with a limit."""
        return list(self._open)
