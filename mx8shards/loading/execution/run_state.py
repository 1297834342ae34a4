"""What do the threads of one run share: its planner, the pool's threads that fill its batches, and the consumer?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from typing import Any, NamedTuple

from mx8shards.loading.budget.banks import Budget
from mx8shards.loading.execution.device import Mover
from mx8shards.loading.execution.filling import Filler
from mx8shards.loading.execution.provisions import ProviderThreads, Provisions
from mx8shards.loading.execution.results import Result
from mx8shards.loading.planning.batch_plan import Plan
from mx8shards.loading.planning.groups import Group, Ids
from mx8shards.loading.pool import Pool
from mx8shards.loading.reporting.lost_samples import LostSample, OnError
from mx8shards.shards.providers import CAUSES, Cause

Transform = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """The parts of a loader that all its runs use."""

    plan: Plan
    filler: Filler
    budget: Budget
    pool: Pool
    transform: Transform | None
    on_error: OnError
    depth: int
    read_timeout_s: float
    mover: Mover | None
    provider_threads: ProviderThreads


class Restart(NamedTuple):
    """A request to make a group again, because its substitutes lack memory or lie in shards that are not local yet.

    The planner drops all later batches, waits for shards and memory, makes the group, and then the later batches again.
    `number` is that of the group's first batch, and `generation` that of its task. The rows `bad` of `group` get the
    samples at the view positions `positions`. `entries` are the samples lost so far. `tried` maps a row to its first
    sample, that sample's occurrence, and the number of substitutes tried.
    """

    number: int
    generation: int
    group: Group
    bad: Ids
    positions: Ids
    entries: tuple[LostSample, ...]
    tried: dict[int, tuple[int, int, int]]


class Cut(NamedTuple):
    """Results of generations before `generation` are void from batch `number` on: the run restarted there."""

    number: int
    generation: int


class Message(NamedTuple):
    """Results of consecutive batches, the first of which is batch `number`."""

    number: int
    generation: int
    results: tuple[Result, ...]


class RunState:
    """The counters, flags and queues of one run.

    There is no lock. Each field has one writing thread, or all threads set it to the same value. This relies on the
    GIL: reading or writing a field is atomic, and so is adding to or removing from a set or a queue.

        started, generation, cuts         the planner
        provisions, provided_s            the planner
        taken, starving, seen_generation  the consumer
        wait_reported                     the consumer
        filling                           the planner adds a task, the thread that ends the task removes it
        stopped, stalled                  any thread, and they stay True
    """

    def __init__(self, assembly: Assembly, epoch: int, position: int) -> None:
        self.assembly = assembly
        self.epoch = epoch
        self.position = position
        self.results: SimpleQueue[Message | Cut | None] = SimpleQueue()  # None only wakes the consumer
        self.inbox: SimpleQueue[None] = SimpleQueue()  # wakes the planner
        self.filling: set[Any] = set()  # tasks that are queued or running
        self.started = 0  # batches
        self.taken = 0
        self.generation = 0
        self.seen_generation = 0  # of the last cut that the consumer has processed
        self.cuts: tuple[Cut, ...] = ()
        self.restarts: SimpleQueue[Restart] = SimpleQueue()
        self.starving = False  # the consumer waits
        self.wait_reported = False  # a long wait for a shard has been logged
        self.stalled = False  # a file system did not answer for `read_timeout_s`
        self.stopped = False
        self.provisions: Provisions | None = None
        self.provided_s: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)  # how long the planner waited for shards
        self.began, self.ended = Event(), Event()  # of the planner
        # What the planner waits for. Other events do not wake it, as each wake-up takes the GIL from the consumer.
        self.waits_for_memory = False
        self.waits_for_room = False  # the prefetch depth is reached
        self.waits_for_files = False  # too many files are open
        self.draining = False  # all batches are started, and it waits for their tasks to end

    @property
    def ahead(self) -> int:
        """The number of batches that are started and not taken yet."""
        return self.started - self.taken

    def wake(self) -> None:
        """Wake the planner."""
        self.inbox.put(None)

    def is_void(self, number: int, generation: int) -> bool:
        """Whether to drop the result of this batch: the run was stopped, or restarted at or before this batch."""
        return self.stopped or any(number >= cut.number and generation < cut.generation for cut in self.cuts)
