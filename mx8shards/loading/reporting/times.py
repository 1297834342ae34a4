"""How is time measured: a clock without compilation, the planner's times, and the threads' times by kind?"""

from __future__ import annotations

import time
from typing import NamedTuple

from mx8shards.kernels import compiling


def clock() -> float:
    """A clock that stops while the calling thread compiles kernels, or waits for another thread to compile them.

    Otherwise a stage would seem slow when its kernel is compiled on first use.
    """
    return time.perf_counter() - compiling.thread_seconds()


class ProducerTimes(NamedTuple):
    """Seconds in which the planner waited for memory or room, planned, opened files, and waited for shards."""

    waited_s: float = 0.0
    planned_s: float = 0.0
    opened_s: float = 0.0
    unpack_s: float = 0.0
    network_s: float = 0.0

    def plus(self, other: ProducerTimes) -> ProducerTimes:
        """The sums."""
        return ProducerTimes(*(mine + others for mine, others in zip(self, other, strict=True)))


class Times:
    """Seconds of work by kind. Threads may add concurrently: `list.append` is atomic under the GIL.

    blocks_at  when the blocks of shards read in parts had come, by time.perf_counter; 0.0 if none were awaited
    """

    def __init__(self) -> None:
        self.spent: list[tuple[str, float]] = []
        self.blocks_at = 0.0

    def add(self, kind: str, seconds: float) -> None:
        """Add seconds spent on this kind of work."""
        self.spent.append((kind, seconds))
