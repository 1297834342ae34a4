"""How do all ranks learn that the store has failed one of them? Through the key-value store of torch.distributed.

A rank whose fetch failed cannot take part in the next step. So it says so, and the others raise its error with their
next batch, also if they have batches ahead or wait for shards that the store may still give them. Without
torch.distributed, each rank has its own deadline.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from typing import Any

from mx8shards.errors import RemoteError
from mx8shards.loading.planning.batch_plan import Plan

_INTERVAL_S = 1.0  # between two looks
_inherited: Any = None  # the store of a parent process, whose connection a forked child must not use


def connect(plan: Plan, epoch: int, position: int) -> OtherRanks | None:
    """The other ranks of a run that begins here; None if there are none, if they are not known, or without URLs."""
    fetches = any(opened.provider.parallel is not None for opened in plan.shards.opened)
    store = _store(plan.steps.world_size) if fetches and plan.steps.turns == 1 else None
    if store is None:
        return None
    snapshots = " ".join(snapshot.id for snapshot in plan.shards.snapshots)
    name = hashlib.sha256(f"{snapshots} {epoch} {position}".encode()).hexdigest()[:32]
    return OtherRanks(store, f"mx8shards/outages/{name}", plan.rank)


class OtherRanks:
    """The ranks that run through the same epoch. Used by the consumer's thread.

    Args:
        store: The key-value store that all ranks have.
        prefix: Of the keys of this run. A failure that is noted there already is that of an earlier run.
        rank: The rank of this process.
    """

    def __init__(self, store: Any, prefix: str, rank: int) -> None:
        self._store: Any = store
        self._prefix, self._rank = prefix, rank
        self._next = f"{prefix}/1"
        self._looked = time.monotonic()
        self._ask(self._begin)

    def _begin(self) -> None:
        self._next = f"{self._prefix}/{self._store.add(f'{self._prefix}/count', 0) + 1}"

    def tell(self, error: RemoteError) -> None:
        """Tell the others that this rank has failed."""

        def tell() -> None:
            about = {"rank": self._rank, "message": error.message, "subject": error.subject, "reason": error.reason}
            number = self._store.add(f"{self._prefix}/count", 1)
            self._store.set(f"{self._prefix}/{number}", json.dumps(about))

        self._ask(tell)

    def failure(self) -> RemoteError | None:
        """The failure of another rank in this run, if there is one. Looks once a second."""
        now = time.monotonic()
        if now < self._looked + _INTERVAL_S:
            return None
        self._looked = now
        found = self._ask(lambda: self._store.get(self._next) if self._store.check([self._next]) else None)
        if found is None:
            return None
        about = json.loads(found)
        hint = f"seen by rank {about['rank']}"
        return RemoteError(about["message"], subject=about["subject"], reason=about["reason"], hint=hint)

    def _ask(self, work: Any) -> Any:
        """The result of a request; None, and no further requests, if the store fails, such as at the end of rank 0."""
        if self._store is None:
            return None
        try:
            return work()
        except Exception:  # noqa: BLE001 - torch raises RuntimeError and its subclasses
            self._store = None
            return None


def _store(world_size: int) -> Any:
    """The store of the default process group, if that has this many ranks and was made in this process."""
    distributed: Any = sys.modules.get("torch.distributed")
    if world_size == 1 or distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    group = distributed.group.WORLD
    if distributed.get_world_size() != world_size or group is _inherited:
        return None
    try:
        return group.get_group_store()
    except (AttributeError, RuntimeError):  # an earlier torch, or a backend without a store
        return None


def _after_fork() -> None:
    global _inherited  # noqa: PLW0603 - one for the process
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        _inherited = distributed.group.WORLD


os.register_at_fork(after_in_child=_after_fork)
