"""How are blocks of shards that are read in parts fetched for batches? Those of a few batches at a time.

The planner leases the blocks of one batch after the other, so that an earlier batch never waits for memory that a
later one has. It waits for the size headers and packet indices of a batch, which tell which parts of payloads the batch
needs. These come while the next batches are planned.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np

from mx8shards.errors import LoaderError
from mx8shards.loading.execution.calls import Calls, Errors
from mx8shards.loading.execution.provisions import Provisions
from mx8shards.loading.planning.partial_shards import Fetched, Needed, PartialShards, PartsTooLargeError, Spans

_POLL_S = 0.02
_AHEAD = 4  # batches whose parts are under way


class BlockFetch:
    """Fetches blocks for one run: a `Fetch`. Only its planner uses this.

    partial         the shards
    provisions      calls the provider's threads, and waits
    is_filling      whether batches are being filled, whose blocks will make room
    is_interrupted  whether the run was stopped or must restart
    """

    def __init__(
        self,
        shards: PartialShards,
        provisions: Provisions,
        is_filling: Callable[[], bool],
        is_interrupted: Callable[[], bool],
    ) -> None:
        self._shards = shards
        self._provisions = provisions
        self._is_filling = is_filling
        self._is_interrupted = is_interrupted
        self._under_way: deque[Calls] = deque()

    def __call__(self, spans: Spans) -> Fetched:
        """Fetch these spans of shards, and wait for them. PartsTooLargeError if they cannot fit into memory."""
        needed = self.lease(spans)
        calls = self._launch(needed, lambda _: None)
        if calls is None:
            return Fetched(needed.lease, {})
        self._provisions.wait_for(calls)
        return Fetched(needed.lease, calls.errors)

    def lease(self, spans: Spans) -> Needed:
        """Lease the blocks of these spans, as soon as there is room for those that are missing."""
        while True:
            was_filling = self._is_filling()
            needed = self._shards.need(spans)
            if needed is None and not was_filling:
                raise PartsTooLargeError(np.unique(spans.shards).tolist())
            if needed is not None and not needed.awaits_others:
                return needed
            if needed is not None and self._under_way:
                self._wait(0)
                continue
            if self._is_interrupted():
                raise LoaderError("the run was stopped")
            needed = None  # its blocks are not in use
            time.sleep(_POLL_S)  # until blocks make room, or those come that a run before this one still fetches

    def begin(self, needed: Needed, then: Callable[[Errors], object]) -> None:
        """Begin to fetch what a lease needs. `then` gets the errors by shard, in any thread, and must not raise."""
        calls = self._launch(needed, then)
        if calls is None:
            then({})
        else:
            self._under_way.append(calls)

    def wait_for_turn(self) -> None:
        """Wait until few batches are under way."""
        self._wait(_AHEAD - 1)

    def _launch(self, needed: Needed, then: Callable[[Errors], object]) -> Calls | None:
        tasks = {i: partial(self._shards.fetch, i, blocks) for i, blocks in needed.missing.items()}
        return self._provisions.launch(tasks, then) if tasks else None

    def _wait(self, count: int) -> None:
        """Wait until at most `count` batches are under way."""
        while self._under_way and self._under_way[0].ended.is_set():
            self._under_way.popleft()
        while len(self._under_way) > count:
            self._provisions.wait_for(self._under_way.popleft())
