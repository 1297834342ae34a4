"""What took how long?"""

from __future__ import annotations

from collections import defaultdict


class Times:
    """Seconds of threads' work, by kind. Several threads may add at once."""

    def __init__(self) -> None:
        self._all: list[tuple[str, float]] = []

    def add(self, kind: str, seconds: float) -> None:
        """So long was spent with this."""
        self._all.append((kind, seconds))

    def totals(self) -> dict[str, float]:
        """The sums by kind."""
        sums: defaultdict[str, float] = defaultdict(float)
        for kind, seconds in self._all:
            sums[kind] += seconds
        return dict(sums)
