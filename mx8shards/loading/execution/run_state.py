"""What do the threads of one run share: its planner, the pool's threads that fill its batches, and the consumer?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from typing import Any, NamedTuple

from mx8shards.loading.execution.device import Mover
from mx8shards.loading.execution.filling import Filler
from mx8shards.loading.execution.provisions import ProviderThreads, Provisions
from mx8shards.loading.execution.results import Result
from mx8shards.loading.memory.banks import Budget
from mx8shards.loading.planning.batch_plan import Plan
from mx8shards.loading.planning.groups import Group
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
    providing: ProviderThreads


class Restart(NamedTuple):
    """Batches whose substitutes have no room beside the batches after them: those are dropped and made again later.

    `number` is that of the first of these batches and `generation` that of their task. `entries` are the samples they
    lost so far; `tried` has for a row the sample that stood there first, its occurrence, and how often it was replaced.
    """

    number: int
    generation: int
    group: Group
    entries: tuple[LostSample, ...]
    tried: dict[int, tuple[int, int, int]]


class Cut(NamedTuple):
    """From batch `number` on, results of generations before `generation` are void."""

    number: int
    generation: int


class Message(NamedTuple):
    """Results of consecutive batches, the first of which is batch `number`."""

    number: int
    generation: int
    results: tuple[Result, ...]


class RunState:
    """The counters, flags and queues of one run.

    There is no lock: each field is written by one thread, or by several that only ever set it to one value. Reading and
    writing a field, and adding to or removing from a set or a queue, is one step under the GIL.

        started, generation, cuts         the planner
        provisions, provided_s            the planner
        taken, starving, seen_generation, told_of_wait    the consumer
        filling                           the planner adds, the thread that ends a task removes it
        stopped, stalled                  anybody, and they stay True
    """

    def __init__(self, assembly: Assembly, epoch: int, position: int) -> None:
        self.assembly = assembly
        self.epoch = epoch
        self.position = position
        self.results: SimpleQueue[Message | Cut | None] = SimpleQueue()  # None only wakes the consumer
        self.inbox: SimpleQueue[None] = SimpleQueue()  # wakes the planner
        self.filling: set[Any] = set()  # tasks that threads have, or will have
        self.started = 0  # batches
        self.taken = 0
        self.generation = 0
        self.seen_generation = 0  # the latest of which the consumer has seen the cut
        self.cuts: tuple[Cut, ...] = ()
        self.restarts: SimpleQueue[Restart] = SimpleQueue()
        self.starving = False  # the consumer waits
        self.told_of_wait = False
        self.stalled = False  # the consumer has waited long enough for a file system
        self.stopped = False
        self.provisions: Provisions | None = None
        self.provided_s: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)  # the planner waited so long for shards
        self.began, self.ended = Event(), Event()  # of the planner
        # What the planner waits for. It is woken for that and nothing else: a thread that wakes takes the GIL from the
        # consumer.
        self.waits_for_memory = False
        self.waits_for_room = False  # as many batches are ahead as may be
        self.waits_for_files = False  # so many files are open
        self.drains = False  # all batches are started; it waits for their end

    @property
    def ahead(self) -> int:
        """How many batches are started and not taken."""
        return self.started - self.taken

    def wake(self) -> None:
        """Wake the planner."""
        self.inbox.put(None)

    def is_void(self, number: int, generation: int) -> bool:
        """Whether nobody wants the result of this batch any more."""
        return self.stopped or any(number >= cut.number and generation < cut.generation for cut in self.cuts)
