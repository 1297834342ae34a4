"""Which samples were lost, and which substitutes replaced them?"""

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

MAX_ATTEMPTS = 8

_REMEMBERED = 1_000
_MAX_REASON_LENGTH = 500  # characters


@dataclass(frozen=True, slots=True)
class LostSample:
    """One sample that was left out (`substitute` is None), or replaced by another one."""

    epoch: int
    position: int  # the order position of its step
    sample_id: int
    reason: str
    substitute: int | None = None


def reason_of(error: BaseException) -> str:
    """The text of an error. The error itself would keep the variables of all functions in its traceback alive."""
    text = str(error) or type(error).__name__
    return text if len(text) <= _MAX_REASON_LENGTH else text[: _MAX_REASON_LENGTH - 1] + "…"


class LostSamples:
    """The count and a running hash of all entries, and the last thousand entries. The hash excludes the reasons."""

    def __init__(self) -> None:
        self.count = 0
        self.digest = ""
        self.last: deque[LostSample] = deque(maxlen=_REMEMBERED)

    def add(self, entries: Iterable[LostSample]) -> None:
        """Record the losses of a delivered batch. The first loss is also logged as a warning."""
        for entry in entries:
            if not self.last:
                message = "epoch %d: sample %d was lost: %s; stats()['lost'] counts all lost samples"
                logging.getLogger("mx8shards").warning(message, entry.epoch, entry.sample_id, visible(entry.reason))
            fields = asdict(entry)
            del fields["reason"]
            text = json.dumps([self.digest, *fields.values()])
            self.digest = hashlib.sha256(text.encode()).hexdigest()
            self.count += 1
            self.last.append(entry)

    def to_json(self) -> dict[str, Any]:
        """The count and the hash, for a state."""
        return {"count": self.count, "digest": self.digest}

    def resume_from(self, state: Mapping[str, Any]) -> None:
        """Continue from the count and the hash of a state."""
        self.count, self.digest = state["count"], state["digest"]
        self.last.clear()
