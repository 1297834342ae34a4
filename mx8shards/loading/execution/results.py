"""What does a run hand to the consumer? A batch that is ready, an error in its place, or the end of the epoch."""

from __future__ import annotations

from typing import Any, NamedTuple

from mx8shards.loading.reporting.lost_samples import LostSample
from mx8shards.loading.reporting.times import Times


class Ready(NamedTuple):
    """A batch, and what it cost.

    `position` is where its step begins in the order of the epoch, `entries` are the samples it lost, and `times` is
    what threads spent on it: batches that were made together have all of it in the first one.
    """

    batch: Any
    epoch: int
    position: int
    samples: int
    size_bytes: int
    entries: tuple[LostSample, ...]
    times: Times


class Failed(NamedTuple):
    """No batch; `error` says why. Where the user's transform raised it, `transformed` names the batch it was given."""

    error: BaseException
    transformed: str = ""


class Done(NamedTuple):
    """The epoch is over."""


Result = Ready | Failed | Done
