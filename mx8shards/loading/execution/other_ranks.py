"""How do all ranks learn that the store has failed one of them? Through the key-value store of torch.distributed.

A rank whose fetch failed cannot take part in the next step. So it says so, and the others raise its error within a
second or so, also if they have batches ahead or wait for shards that the store may still give them. Without
torch.distributed, each rank has its own deadline.

Only one thread of the run asks the key-value store. The process that serves it may be stopped or gone, and then a
request does not return for minutes, and not at Ctrl-C.

Runs that begin at one position have numbered attempts, each with a key that its first failure sets. A run is in the
first attempt that has not failed. So a rank that resumes at once does not hear the other ranks' errors of the attempt
before, which they may raise later than it has resumed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol

from mx8shards.errors import RemoteError, error_text
from mx8shards.loading.execution.threads import start_thread
from mx8shards.loading.planning.batch_plan import Plan

_INTERVAL_S = 1.0  # between two looks
_PATIENCE_S = 2.0  # the longest wait of the consumer for the key-value store
_POLL_S = 0.05

_inherited: Any = None  # the group of a parent process, whose connection a forked child must not use


class KeyValueStore(Protocol):
    """What is needed of a torch.distributed.Store."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all these keys have a value."""

    def get(self, key: str, /) -> bytes:
        """The value of a key that has one."""

    def set(self, key: str, value: str, /) -> None:
        """Set the value of a key."""


def connect(plan: Plan, epoch: int, position: int) -> OtherRanks:
    """The other ranks of a run that begins here, if it fetches shards, and if torch.distributed has all its ranks."""
    fetches = any(opened.provider.parallel is not None for opened in plan.shards.opened)
    store = _store(plan.steps.world_size) if fetches and plan.steps.turns == 1 else None
    snapshots = " ".join(snapshot.id for snapshot in plan.shards.snapshots)
    name = hashlib.sha256(f"{snapshots} {plan.order.description} {epoch} {position}".encode()).hexdigest()[:32]
    return OtherRanks(store, f"mx8shards/outages/{name}", plan.rank)


class OtherRanks:
    """The ranks that run through the same epoch. Used by the consumer's thread.

    Args:
        store: The key-value store that all ranks have. None: there are no others, or they are not known.
        prefix: Of the keys of all attempts at this run.
        rank: The rank of this process.

    Attributes:
        failure: The failure of another rank in this attempt, once it is known.
    """

    def __init__(self, store: KeyValueStore | None, prefix: str, rank: int) -> None:
        self.failure: RemoteError | None = None
        self._store = store
        self._prefix, self._rank = prefix, rank
        self._attempt = 0
        self._inbox: SimpleQueue[tuple[RemoteError | None, Event] | None] = SimpleQueue()  # None ends the thread
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread that asks the key-value store. The caller must call `stop`, also after an exception."""
        if self._store is not None:
            self._thread = start_thread(self, "other-ranks", self._watch, self._store)

    def stop(self) -> None:
        """End the thread, as soon as the key-value store answers it. Any thread may call this, and several times."""
        self._inbox.put(None)

    def look(self) -> RemoteError | None:
        """The failure of another rank, after asking for it now; but that does not take long."""
        self._await(None)
        return self.failure

    def tell(self, error: RemoteError) -> None:
        """Tell the others that this rank has failed. If that takes long, it goes on after this call."""
        self._await(error)

    def _await(self, own: RemoteError | None) -> None:
        """Have the thread tell of an error, or look for one, and wait for that a little."""
        done, end = Event(), time.monotonic() + _PATIENCE_S
        self._inbox.put((own, done))
        while self._thread is not None and self._thread.is_alive() and time.monotonic() < end:
            if done.wait(_POLL_S):
                return

    # the thread -------------------------------------------------------------------------------------------------

    def _watch(self, shared: KeyValueStore) -> None:
        try:
            store = _own_connection(shared)
            while store.check([self._key]):
                self._attempt += 1
            while (asked := self._next()) is not None:
                own, done = asked
                if own is not None:
                    self._tell(store, own)
                self._look(store)
                done.set()
        except Exception as error:  # noqa: BLE001 - torch raises RuntimeError and its subclasses
            message = "the store of torch.distributed does not answer: outages of other ranks are not heard (%s)"
            logging.getLogger("mx8shards").info(message, error_text(error))

    def _next(self) -> tuple[RemoteError | None, Event] | None:
        try:
            return self._inbox.get(timeout=_INTERVAL_S)
        except Empty:
            return None, Event()

    @property
    def _key(self) -> str:
        """The key of this attempt's failure."""
        return f"{self._prefix}/{self._attempt}"

    def _tell(self, store: KeyValueStore, error: RemoteError) -> None:
        about = {"rank": self._rank, "message": error.message, "subject": error.subject, "reason": error.reason}
        if not store.check([self._key]):
            store.set(self._key, json.dumps(about))

    def _look(self, store: KeyValueStore) -> None:
        while self.failure is None and store.check([self._key]):
            about = json.loads(store.get(self._key))
            if about["rank"] == self._rank:  # of an earlier run of this rank, whose failure came here late
                self._attempt += 1
                continue
            hint = f"seen by rank {about['rank']}"
            self.failure = RemoteError(about["message"], subject=about["subject"], reason=about["reason"], hint=hint)


def _own_connection(store: KeyValueStore) -> KeyValueStore:
    """A connection of one's own, which nobody else's long request blocks, if this torch and store have that."""
    try:
        return store.clone()  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, RuntimeError, NotImplementedError):
        return store


def _store(world_size: int) -> KeyValueStore | None:
    """The store of the default process group, if that has this many ranks and was made in this process."""
    distributed: Any = sys.modules.get("torch.distributed")
    if world_size == 1 or distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    group = distributed.group.WORLD
    if distributed.get_world_size() != world_size or group is _inherited:
        return None
    try:
        return group.get_group_store()  # type: ignore[no-any-return]
    except (AttributeError, RuntimeError):  # an earlier torch, or a backend without a store
        return None


def _after_fork() -> None:
    global _inherited  # noqa: PLW0603 - one for the process
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        _inherited = distributed.group.WORLD


os.register_at_fork(after_in_child=_after_fork)
