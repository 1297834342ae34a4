"""What is a loader's position, and what has it delivered and lost so far?"""

from __future__ import annotations

from mx8shards.loading.execution.results import Ready
from mx8shards.loading.reporting.lost_samples import LostSamples
from mx8shards.loading.reporting.stats import Counters

At = tuple[int, int]  # an epoch, and the order position of a step


class Progress:
    """The position of a loader, which its iterations advance. Only the consumer's thread writes here.

    at         epoch and order position of the next step
    under_way  whether a `for` has yielded batches of this epoch without an error. Then the next `for` is the next epoch
    """

    def __init__(self) -> None:
        self.at: At = (0, 0)
        self.under_way = False
        self.counters = Counters()
        self.lost = LostSamples()

    @property
    def upcoming(self) -> At:
        """The position at which the next `for` begins."""
        return (self.at[0] + 1, 0) if self.under_way else self.at

    def go_to(self, at: At) -> None:
        """Let the next `for` begin here."""
        self.at, self.under_way = at, False

    def delivered(
        self, ready: Ready, following: At, waited_s: float, worked_s: float, compiled_s: float, network_s: float
    ) -> None:
        """Count a step whose batch the consumer got; the next step is `following`.

        `worked_s` is the consumer's time for the previous batch, `waited_s` its wait for this batch, and `compiled_s`
        and `network_s` the parts of the wait in which kernels were compiled and blocks of shards were fetched.
        """
        self.at, self.under_way = following, following[1] > 0
        self.lost.add(ready.entries)
        self.counters.delivered(ready, waited_s, worked_s, compiled_s, network_s)
