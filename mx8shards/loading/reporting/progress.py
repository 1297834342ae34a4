"""Where does a loader stand, and what has it delivered and lost so far?"""

from __future__ import annotations

from mx8shards.loading.execution.results import Ready
from mx8shards.loading.reporting.lost_samples import LostSamples
from mx8shards.loading.reporting.stats import Counters

At = tuple[int, int]  # an epoch, and the position in its order at which a step begins


class Progress:
    """The position of a loader, which its iterations move. Only the consumer's thread writes here.

    at         of the next step
    under_way  whether a `for` has given batches of this epoch, and not failed: then the next `for` is the next epoch
    """

    def __init__(self) -> None:
        self.at: At = (0, 0)
        self.under_way = False
        self.counters = Counters()
        self.lost = LostSamples()

    @property
    def upcoming(self) -> At:
        """Where the next `for` begins."""
        return (self.at[0] + 1, 0) if self.under_way else self.at

    def go_to(self, at: At) -> None:
        """The next `for` begins here."""
        self.at, self.under_way = at, False

    def delivered(self, ready: Ready, following: At, waited_s: float, worked_s: float, compiled_s: float) -> None:
        """A step is done when its batch was handed over; the next one is `following`.

        The consumer waited for the batch and, before that, worked with the one before. While it waited, kernels were
        compiled for `compiled_s`.
        """
        self.at, self.under_way = following, following[1] > 0
        self.lost.add(ready.entries)
        self.counters.delivered(ready, waited_s, worked_s, compiled_s)
