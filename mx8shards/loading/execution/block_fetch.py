"""How are the blocks fetched that a batch needs of shards read in parts? The planner waits for room, and for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from mx8shards.errors import LoaderError
from mx8shards.loading.execution.provisions import Provisions
from mx8shards.loading.planning.partial_shards import Fetched, Ids, Needed, PartialShards, PartsTooLargeError

_POLL_S = 0.02


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

    def __call__(self, shards: Ids, begins: Ids, ends: Ids) -> Fetched:
        """Fetch what lies in these shards between these offsets. PartsTooLargeError if it cannot fit into memory."""
        needed = self._leased(shards, begins, ends)
        tasks = {i: partial(self._shards.fetch, i, blocks) for i, blocks in needed.missing.items()}
        return Fetched(needed.lease, self._provisions.call(tasks) if tasks else {})

    def _leased(self, shards: Ids, begins: Ids, ends: Ids) -> Needed:
        """Lease the blocks, as soon as there is room for them."""
        while True:
            was_filling = self._is_filling()
            needed = self._shards.need(shards, begins, ends)
            if needed is not None:
                return needed
            if not was_filling:
                raise PartsTooLargeError(np.unique(shards).tolist())
            if self._is_interrupted():
                raise LoaderError("the run was stopped")
            time.sleep(_POLL_S)
