"""Where is the object of a trial, which finds out what a store can do, and who removes it?

The trial itself removes it, also after an error or Ctrl-C. If the process is killed, or its put arrives later than it
waits, the next writer or gc removes the object, once it is too old to be needed by a trial.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Protocol

from mx8shards.errors import RemoteError
from mx8shards.remote.store import Listed, Store
from mx8shards.shards.snapshots import STATE

PREFIX = f"{STATE}/trial-"
_LONGEST_S = 3600.0  # of a trial, which is a few requests


class TrialStore(Store, Protocol):
    """A Store that can remove an object when it is closed already."""

    def delete_once(self, key: str) -> None:
        """Delete an object in one attempt of a few seconds, also if the store is closed."""


@contextlib.contextmanager
def trial_object(store: TrialStore) -> Iterator[str]:
    """The key of an object that the block may put. It is removed at the end of the block."""
    key = f"{PREFIX}{uuid.uuid4().hex}"
    try:
        yield key
    except BaseException:
        with contextlib.suppress(Exception):
            store.delete_once(key)
        raise
    store.delete([key])


def remove_left_trials(store: Store, listed: Iterable[Listed]) -> None:
    """Remove the objects of trials whose processes were killed, unless the store denies that."""
    latest = time.time() - _LONGEST_S
    if old := [each.key for each in listed if each.key.startswith(PREFIX) and each.modified_s < latest]:
        try:
            store.delete(old)
        except RemoteError as error:
            if error.reason != "denied":
                raise
