"""Does a store honour the conditions of a put? Some ignore or refuse them, so a trial tells."""

from __future__ import annotations

import re

from mx8shards.errors import RemoteError
from mx8shards.remote.store import Store
from mx8shards.remote.trials import TrialStore, trial_object

_NO_CONDITIONS = re.compile("answered (400|405|501)")  # how stores refuse conditions that they do not know


def honours_conditions(store: TrialStore) -> bool:
    """Try whether conditional puts that must fail do so, with an object that is removed again."""
    try:
        with trial_object(store) as key:
            store.put(key, b"trial", new=True)
            return _refuses(store, key, new=True) and _refuses(store, key, if_match='"0"')
    except RemoteError as error:
        if _NO_CONDITIONS.search(error.message):
            return False
        raise


def _refuses(store: Store, key: str, *, if_match: str | None = None, new: bool = False) -> bool:
    try:
        store.put(key, b"other", if_match=if_match, new=new)
    except RemoteError as error:
        if error.reason == "changed":
            return True
        raise
    return False


def require_conditions(store: Store, *, single_writer: bool) -> bool:
    """Whether a store has conditional puts. RemoteError if not, unless no other process writes there."""
    conditional = store.can_put_conditionally
    if not (conditional or single_writer):
        hint = (
            "single_writer=True (--single-writer) writes without them: then another process that writes there at "
            "the same time would damage the dataset"
        )
        raise RemoteError("this store has no conditional puts", subject=store.url, hint=hint)
    return conditional
