"""Which samples could not be delivered, and what came in their place?"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mx8shards.errors import visible

OnError = Literal["raise", "skip", "substitute"]
ON_ERROR: tuple[OnError, ...] = ("raise", "skip", "substitute")

MOST_ATTEMPTS = 8

_KEPT = 1_000
_MOST_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class LostSample:
    """One sample that was left out (`substitute` is None), or replaced by another one."""

    epoch: int
    position: int  # where its step begins in the epoch's order
    sample_id: int
    reason: str
    substitute: int | None = None


def reason_of(error: BaseException) -> str:
    """What an entry keeps of an error. Only text: an error keeps the variables of all functions it passed through."""
    text = str(error) or type(error).__name__
    return text if len(text) <= _MOST_REASON else text[: _MOST_REASON - 1] + "…"


class LostSamples:
    """A count and a running hash of all entries, and the last thousand of them. Reasons are no part of the hash."""

    def __init__(self) -> None:
        self.count = 0
        self.digest = ""
        self.last: deque[LostSample] = deque(maxlen=_KEPT)

    def add(self, entries: Iterable[LostSample]) -> None:
        """Write down what a delivered batch has lost. The first sample that is lost is logged, too."""
        for entry in entries:
            if not self.last:
                told = "epoch %d: sample %d was lost: %s; stats()['lost'] counts all that follow"
                logging.getLogger("mx8shards").warning(told, entry.epoch, entry.sample_id, visible(entry.reason))
            fields = asdict(entry)
            del fields["reason"]
            text = json.dumps([self.digest, *fields.values()])
            self.digest = hashlib.sha256(text.encode()).hexdigest()
            self.count += 1
            self.last.append(entry)

    def to_json(self) -> dict[str, Any]:
        """What a state keeps of it."""
        return {"count": self.count, "digest": self.digest}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Continue from what a state kept."""
        self.count, self.digest = state["count"], state["digest"]
        self.last.clear()
