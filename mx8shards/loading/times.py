"""What took how long?"""

from __future__ import annotations

from typing import NamedTuple


class ProducerTimes(NamedTuple):
    """How long the planner waited for memory, or for batches to be taken; how long it planned, and opened files."""

    waited_s: float = 0.0
    planned_s: float = 0.0
    opened_s: float = 0.0

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
