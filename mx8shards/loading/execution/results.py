"""Which results does a run give to the consumer? Ready batches, an error, or the end of the epoch."""

from __future__ import annotations

from typing import Any, NamedTuple

from mx8shards.loading.reporting.lost_samples import LostSample
from mx8shards.loading.reporting.times import Times


class Ready(NamedTuple):
    """A batch and its costs.

    `position` is the order position of its step, `entries` are the samples that it lost, and `times` is the time that
    threads spent on it. The first batch of a group has the times of the whole group.
    """

    batch: Any
    epoch: int
    position: int
    samples: int
    size_bytes: int
    entries: tuple[LostSample, ...]
    times: Times


class Failed(NamedTuple):
    """The error of a batch. If the user's transform raised it, `transformed` describes the transform's input."""

    error: BaseException
    transformed: str = ""


class Done(NamedTuple):
    """The epoch is over."""


Result = Ready | Failed | Done
