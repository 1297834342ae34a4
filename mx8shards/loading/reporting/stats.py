"""Which statistics does a loader count, and what is its bottleneck?"""

from __future__ import annotations

import resource
from collections import defaultdict, deque
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mx8shards.loading.budget.banks import Budget
from mx8shards.loading.execution.results import Ready
from mx8shards.loading.reporting.lost_samples import LostSamples
from mx8shards.loading.reporting.times import ProducerTimes

Bottleneck = Literal[
    "consumer", "storage", "gather", "decode", "transform", "plan", "unpack", "network", "compile", "nothing yet"
]

_OF_PLANNER: tuple[Bottleneck, ...] = ("plan", "unpack", "network")  # work of the planner, and its waits
_REMEMBERED = 1_000
_WAITS = 0.1  # a consumer that waits for less than this share of the time is the bottleneck
_NAMES: dict[str, Bottleneck] = {"read": "storage", "gather": "gather", "decode": "decode", "transform": "transform"}


class Counters:
    """Counts of delivered batches, and waiting times. Only the consumer's thread writes here."""

    def __init__(self) -> None:
        self.batches = 0
        self.samples = 0
        self.bytes = 0
        self.consumer_waited_s = 0.0
        self.consumer_worked_s = 0.0
        self.compiled_s = 0.0  # while the consumer waited
        self.network_s = 0.0  # while it waited for blocks of shards that are read in parts
        self.producer = ProducerTimes()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._sizes: deque[int] = deque(maxlen=_REMEMBERED)
        self._faults = _faults()

    def delivered(self, ready: Ready, waited_s: float, worked_s: float, compiled_s: float, network_s: float) -> None:
        """Count a batch, the consumer's wait for it and two parts of that, and its work on the previous batch."""
        self.network_s += network_s
        self.compiled_s += compiled_s
        self.consumer_waited_s += waited_s
        self.consumer_worked_s += worked_s
        self.batches += 1
        self.samples += ready.samples
        self.bytes += ready.size_bytes
        self._sizes.append(ready.size_bytes)
        for kind, seconds in ready.times.spent:
            self.seconds[kind] += seconds

    def produced(self, times: ProducerTimes) -> None:
        """Add the times of an iteration that is over."""
        self.producer = self.producer.plus(times)

    def report(self, budget: Budget, lost: LostSamples, under_way: ProducerTimes) -> dict[str, Any]:
        """All statistics by name, including the current iteration."""
        producer = self.producer.plus(under_way)
        minor, major = (now - then for now, then in zip(_faults(), self._faults, strict=True))
        p50, p95 = np.percentile(self._sizes, [50, 95]).tolist() if self._sizes else (0.0, 0.0)
        return {
            "batches": self.batches,
            "samples": self.samples,
            "bytes": self.bytes,
            "batch_bytes_p50": p50,
            "batch_bytes_p95": p95,
            "consumer_waited_s": self.consumer_waited_s,
            "consumer_worked_s": self.consumer_worked_s,
            "compile_s": self.compiled_s,
            "producer_waited_s": producer.waited_s,
            "plan_s": producer.planned_s,
            "unpack_s": producer.unpack_s,
            "network_s": max(producer.network_s, self.network_s),  # they wait at the same time
            **{f"{kind}_s": self.seconds[kind] for kind in _NAMES},
            "read_s": self.seconds["read"] + producer.opened_s,
            **budget.report(),
            "minor_faults": minor,
            "major_faults": major,
            "lost": lost.count,
            "lost_last": [asdict(entry) for entry in lost.last],
        }


def _faults() -> tuple[int, int]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_majflt


@dataclass(frozen=True)
class Explanation:
    """Which part limits the speed, and the evidence. `print` shows both."""

    bottleneck: Bottleneck
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"bottleneck: {self.bottleneck}", *(f"  {line}" for line in self.evidence)))


def explain(stats: dict[str, Any], threads: int) -> Explanation:
    """The bottleneck according to these stats, and the evidence."""
    waited, worked = stats["consumer_waited_s"], stats["consumer_worked_s"]
    whole = waited + worked
    if not stats["batches"] or not whole:
        return Explanation("nothing yet", ("no batch was delivered",))
    seconds = {name: stats[f"{kind}_s"] for kind, name in _NAMES.items()}
    busy = sum(seconds.values())
    evidence = (
        f"the consumer waited for batches for {waited:.2f} s of {whole:.2f} s ({waited / whole:.0%})",
        f"{threads} threads worked for {busy:.2f} s ({busy / (threads * whole):.0%} of their time): "
        + ", ".join(f"{name} {spent:.2f} s" for name, spent in seconds.items()),
        f"the planner worked for {stats['plan_s']:.2f} s: it computes the order and reserves memory",
        f"it or the consumer waited for shards: {stats['unpack_s']:.2f} s for unpacking, "
        f"{stats['network_s']:.2f} s for the network" + _traffic(stats),
        f"the planner waited for memory or for the consumer for {stats['producer_waited_s']:.2f} s",
        f"kernels were compiled for {stats['compile_s']:.2f} s while the consumer waited; they are cached on disk",
        f"{stats['major_faults']} page faults had to wait for the disk",
    )
    if waited < _WAITS * whole:
        return Explanation("consumer", evidence)
    if stats["compile_s"] > waited / 2:
        return Explanation("compile", evidence)
    slowest = max(_OF_PLANNER, key=lambda name: stats[f"{name}_s"])
    if stats[f"{slowest}_s"] > busy / threads:
        return Explanation(slowest, evidence)
    return Explanation(max(seconds, key=lambda name: seconds[name]), evidence)


def _traffic(stats: dict[str, Any]) -> str:
    """What came over the network and how fast, as text; "" for a local dataset."""
    if not stats.get("fetched_bytes"):
        return ""
    size, seconds = stats["fetched_bytes"], stats["fetching_s"]
    return f", from which {size / 1e6:.1f} MB came at {size / 1e6 / max(seconds, 1e-9):.1f} MB/s"
