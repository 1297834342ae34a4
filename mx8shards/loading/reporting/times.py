"""What took how long?"""

from __future__ import annotations

import time
from typing import NamedTuple

from mx8shards.kernels import compiling


def clock() -> float:
    """Seconds that pass, but for those in which the calling thread compiles, or waits for another one to do so.

    So a kernel that is compiled when a stage first needs it is not taken for a slow stage.
    """
    return time.perf_counter() - compiling.thread_seconds()


class ProducerTimes(NamedTuple):
    """How long the planner waited for memory, or for batches to be taken; planned; opened files; waited for shards."""

    waited_s: float = 0.0
    planned_s: float = 0.0
    opened_s: float = 0.0
    unpack_s: float = 0.0
    network_s: float = 0.0

    def plus(self, other: ProducerTimes) -> ProducerTimes:
        """The sums."""
        return ProducerTimes(*(mine + others for mine, others in zip(self, other, strict=True)))


class Times:
    """Seconds of threads' work, by kind. Several threads may add at once."""

    def __init__(self) -> None:
        self.spent: list[tuple[str, float]] = []

    def add(self, kind: str, seconds: float) -> None:
        """So long was spent with this."""
        self.spent.append((kind, seconds))
