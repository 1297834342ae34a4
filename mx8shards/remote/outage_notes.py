"""How do jobs on one mirror tell each other that the store does not answer, so that no other waits as long again?"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from mx8shards.disk.files import read_json
from mx8shards.errors import ShardsError
from mx8shards.remote.fetching import write_note
from mx8shards.shards.snapshots import STATE

_NAME = "outage.json"
_MOST_BYTES = 1 << 16
_ABOUT = 0.9  # the last attempt may end a little before the deadline


def note_outage(root: Path, draft: Path, address: str, lasted_s: float, message: str) -> None:
    """Note in a mirror, with a temporary file `draft`, that an endpoint did not answer for this long until now."""
    about = {"at": time.time(), "lasted_s": lasted_s, "address": address, "message": message}
    with suppress(ShardsError, OSError):
        write_note(draft, root / STATE / _NAME, json.dumps(about))


def outage_since(root: Path, begun: float, address: str, deadline_s: float) -> str | None:
    """The message of a job that gave up on the same endpoint after this time; None without one.

    It counts only if a job with this deadline would have given up, too.
    """
    fields = {"at": float, "lasted_s": float, "address": str, "message": str}
    with suppress(OSError, ShardsError):
        found = read_json(root / STATE / _NAME, _MOST_BYTES, **fields)
        is_long = begun <= found["at"] <= time.time() and found["lasted_s"] >= _ABOUT * deadline_s
        if is_long and found["address"] == address:
            return str(found["message"])
    return None
