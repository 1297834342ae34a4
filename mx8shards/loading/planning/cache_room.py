"""Is cache_limit= of a remote dataset large enough for the order of a loader?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SettingError
from mx8shards.loading.planning.settings import Settings
from mx8shards.order.permutation import Ids
from mx8shards.order.shard_uses import ShardUses
from mx8shards.order.steps import Steps
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.providers import Eviction

Bools = npt.NDArray[np.bool_]

_logger = logging.getLogger("mx8shards")


def require_room(
    shards: Shards, settings: Settings, steps: Steps, uses: Callable[[int], ShardUses], sparse: Bools | None = None
) -> None:
    """SettingError if a limit is smaller than the dataset for shuffle=True, or than the shards in use at a time.

    `sparse` shards are read in parts, which are not stored. If one has to be read whole, it waits for room.
    """
    stored = np.ones(shards.count, np.bool_) if sparse is None else ~sparse
    for sizes, limit in _limits(shards):
        sizes[~stored] = 0
        total = int(sizes.sum())
        if limit >= total:
            continue
        if settings.shuffle is True:
            raise SettingError(
                subject="cache_limit",
                expected=f"{total} bytes, {_shown(sparse)}, for shuffle=True, which uses all shards all the time",
                found=f"{limit}",
                hint="shuffle=mx8shards.BlockShuffle(shards=…) uses few shards at a time",
            )
        every = uses(0)
        here = ShardUses(*(each[sizes[every.shard] > 0] for each in every))
        count = here.peak(np.ones(len(sizes), np.int64), steps.stride)
        least = int(np.sort(sizes)[-count:].sum()) if count else 0
        if limit < least:
            raise SettingError(
                subject="cache_limit",
                expected=f"at least {least} bytes, for {count} shards in use at a time",
                found=f"{limit}",
                hint=f"cache_limit={least}, or BlockShuffle with fewer shards, or a smaller batch_size",
            )
    if settings.shuffle is True and _must_fetch(shards, stored):
        _logger.warning(
            "shuffle=True uses all shards from the first batches on, and most of them may have to be fetched first; "
            "shuffle=mx8shards.BlockShuffle(shards=…) uses few shards at a time"
        )


def _shown(sparse: Bools | None) -> str:
    return "the whole dataset" if sparse is None else "the shards that are not read in parts"


def _limits(shards: Shards) -> Iterator[tuple[Ids, int]]:
    """Of each limit: the bytes of the shards that share it, with 0 for all others, and the limit."""
    by_limit: dict[object, list[tuple[int, Eviction]]] = {}
    for first, eviction in shards.limited:
        by_limit.setdefault(eviction.shared_limit, []).append((first, eviction))
    for parts in by_limit.values():
        sizes = np.zeros(shards.count, np.int64)
        for first, eviction in parts:
            sizes[first : first + len(eviction.sizes)] = eviction.sizes
        yield sizes, parts[0][1].limit_bytes


def _must_fetch(shards: Shards, stored: Bools) -> bool:
    """Whether one of the shards that are stored has to be fetched. Looks at all shards of a mirror that is complete."""
    if all(opened.provider.parallel is None or opened.provider.all_here for opened in shards.opened):
        return False
    return any(shards.awaits(i) == "network" for i in np.flatnonzero(stored).tolist())
