"""How are batches made ahead of the one who consumes them?

A run has one thread of its own, the planner, and uses a pool's threads. The planner plans the batches of an epoch one
after the other and starts each as soon as there is memory for it; threads fill them in any order; the consumer takes
them in order. A failure is a result like any other, and comes in its turn.

    planner  → pool       tasks
    threads  → consumer   results, by their number
    consumer → planner    that one was taken, or that it waits
    leases   → planner    that memory came back

Nothing here waits for something that may never come: not the planner once the run is stopped, not the consumer while
a read does not come back.
"""

from __future__ import annotations

import gc
import itertools
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

import numpy as np

from mx8shards.errors import LoaderError, without_locals
from mx8shards.format.randomness import occurrences_of
from mx8shards.kernels import compiling
from mx8shards.kernels.records import OK
from mx8shards.loading.execution.device import Mover
from mx8shards.loading.execution.filling import Filler, Range
from mx8shards.loading.execution.gather_stage import Work
from mx8shards.loading.execution.stalls import Stalls
from mx8shards.loading.execution.threads import JOIN_S, start_thread
from mx8shards.loading.memory.banks import Share, nobody_waits
from mx8shards.loading.planning.batch_plan import Plan, Planned
from mx8shards.loading.pool import Pool, Scratch
from mx8shards.loading.reporting.lost_samples import MOST_ATTEMPTS, Entry, OnError, reason_of
from mx8shards.loading.reporting.times import ProducerTimes, Times, clock

_NOBODY = -1  # not the number of any batch

_LOOK_S = 0.5  # the watchdog's interval while the consumer is blocked
_COPY_S = 0.001
_DEEP = 16  # so many small batches ahead are made in bursts, each of which costs one waking

Transform = Callable[[Any], Any]

_logger = logging.getLogger("mx8shards")


class Ready(NamedTuple):
    """A batch, and what it cost."""

    batch: Any
    planned: Planned
    samples: int
    size_bytes: int
    entries: tuple[Entry, ...]
    times: Times


class Failed(NamedTuple):
    """No batch; `error` says why. Where the user's transform raised it, `transformed` says what it was given."""

    error: BaseException
    transformed: str = ""


class Restart(NamedTuple):
    """There is no room for substitutes beside the batches that come later: give those up, and make them again.

    `tried` has, for a row, the sample that stood there first and its occurrence, and how many others stood there since.
    """

    planned: Planned
    entries: tuple[Entry, ...]
    tried: dict[int, tuple[int, int, int]]


class Shed(NamedTuple):
    """What was made ahead was given up, as another loader of the pool needs the room: make it again."""


class Done(NamedTuple):
    """The epoch is over."""


Result = Ready | Failed | Restart | Shed | Done


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What the runs of one loader have in common."""

    plan: Plan
    filler: Filler
    share: Share
    pool: Pool
    transform: Transform | None
    on_error: OnError
    depth: int
    read_timeout_s: float
    mover: Mover | None


@dataclass(eq=False)
class Task:
    """A planned batch that is being filled."""

    number: int
    planned: Planned
    held: list[object]
    entries: tuple[Entry, ...] = ()
    tried: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    times: Times = field(default_factory=Times)
    work: Work | None = None
    ranges: Iterator[Range] = field(default_factory=lambda: iter(()))
    count: int = 1
    ended: Iterator[int] = field(default_factory=itertools.count)
    error: BaseException | None = None


@dataclass(eq=False)
class _Waiting:
    """One wait of the consumer for a batch."""

    since: float = field(default_factory=time.monotonic)
    compiled_s: float = field(default_factory=compiling.seconds)
    stalls: Stalls = field(default_factory=Stalls)
    told: bool = False


class Run:
    """The batches of one epoch from a position on. `stop` it, or take it to its end."""

    def __init__(self, recipe: Recipe, epoch: int, position: int, first: Restart | None = None) -> None:
        self._recipe = recipe
        self._epoch = epoch
        self._position = position
        self._first = first
        self._inbox: SimpleQueue[None] = SimpleQueue()
        self._results: SimpleQueue[tuple[int, Result]] = SimpleQueue()
        self._arrived: dict[int, Result] = {}
        self._filling: set[int] = set()  # batches that threads have, or will have
        self._planning_since = 0.0  # by the planner's clock, which stands still while it compiles
        self._stopped = False
        self._shed = False  # what was made ahead is gone
        self._stalled = False  # somebody has waited long enough
        self._starving = False
        # The planner waits for memory, or for a batch to be taken. It is woken for what it waits for and nothing else:
        # a thread that is woken takes the GIL from the consumer.
        self._hungry = False
        self._full = False
        self._low = recipe.depth // 2 if recipe.depth >= _DEEP else recipe.depth - 1
        self._started = 0
        self._taken = 0
        self.waited_s = 0.0
        self.planned_s = 0.0
        self._opened_before_s = recipe.plan.reach.files_s
        self._planner: Thread | None = None
        self._starting = False
        self._planning = False
        recipe.share.wake = _waker(weakref.ref(self))
        recipe.share.shed = _shedder(weakref.ref(self))

    def start(self) -> None:
        """Begin to make batches. Whoever can stop this run must have it by then, as Ctrl-C may come at any moment."""
        try:
            self._starting = True  # until the thread runs: others may want to shed meanwhile
            self._planner = start_thread(self, "planner", self._plan)
        except BaseException:  # no thread, or Ctrl-C while one starts: that one ends as soon as it looks
            self._starting = False
            self.stop()
            self._recipe.share.wake = self._recipe.share.shed = nobody_waits
            raise

    @property
    def producer_s(self) -> ProducerTimes:
        """What the planner did with its time."""
        opened_s = self._recipe.plan.reach.files_s - self._opened_before_s
        return ProducerTimes(self.waited_s, max(0.0, self.planned_s - opened_s), opened_s)

    # the consumer -----------------------------------------------------------------------------------------------

    def take(self) -> Result:
        """The next result, in order. LoaderError if the run is stopped meanwhile, by another thread."""
        number = self._taken
        if number not in self._arrived:
            self._wait_for(number)
        result = self._arrived.pop(number, Shed())
        self._taken += 1
        if self._full and self._started - self._taken <= self._low:
            self._wake()
        return result

    def take_ready(self) -> Ready | None:
        """The next batch, if it is there already."""
        while (found := self._received()) is not None:
            self._arrived[found[0]] = found[1]
        if not isinstance(self._arrived.get(self._taken), Ready):
            return None
        result = self.take()
        return result if isinstance(result, Ready) else None

    def _received(self, timeout_s: float = 0.0) -> tuple[int, Result] | None:
        """A result and its number, if one comes in time."""
        try:
            return self._results.get(timeout_s > 0, timeout_s or None)
        except Empty:
            return None

    def _wait_for(self, number: int) -> None:
        waiting = _Waiting()
        while number not in self._arrived and not self._shed:
            found = self._received()
            if found is None and self._stopped and not self._shed:
                raise LoaderError("the run was stopped")
            found = found or self._received_starving()
            if found is None:
                self._look(waiting)
            else:
                self._arrived[found[0]] = found[1]

    def _received_starving(self) -> tuple[int, Result] | None:
        """As `_received` does, after a while; meanwhile the planner and the threads know that somebody waits."""
        self._starving = True
        try:
            if self._hungry or self._full:
                self._wake()
            return self._received(_LOOK_S)
        finally:
            self._starving = False

    def _look(self, waiting: _Waiting) -> None:
        """Is there still something to wait for? This is asked again and again while the consumer waits for a batch."""
        recipe = self._recipe
        threads = recipe.pool.working.now()
        stalled = waiting.stalls.look(threads)
        mine = [number for number, (_, owner) in threads.items() if owner is recipe or owner is None]
        waited_s = max((stalled[number] for number in mine), default=0.0)
        self._expect_answer(waited_s, "a read has not come back for {:.0f} s: the file system does not answer")
        planner = self._planner.native_id if self._planner is not None else None
        if self._filling and set(mine) <= {
            planner
        }:  # other loaders' batches, or those of a run before, have all threads
            waited_s = max(stalled.values(), default=0.0)
            self._expect_answer(waited_s, "no thread has become free for {:.0f} s: reads from before do not come back")
        if not self._is_planning and self._results.empty() and not self._filling:
            raise LoaderError("the prefetch threads are gone, perhaps because this process was forked")
        waited_s = time.monotonic() - waiting.since
        if waited_s > recipe.read_timeout_s and not waiting.told:
            waiting.told = True
            _logger.warning(
                "the next batch has taken %.1f s, %.1f of them to compile %s; no read stalls: something else is slow",
                waited_s,
                compiling.seconds() - waiting.compiled_s,
                compiling.current() or "kernels",
            )

    def _expect_answer(self, waited_s: float, complaint: str) -> None:
        limit_s = self._recipe.read_timeout_s
        if waited_s > limit_s:
            self._stalled = True
            message = complaint.format(waited_s)
            raise LoaderError(message, subject=f"epoch {self._epoch}", hint=f"read_timeout_s={limit_s:g}")

    @property
    def _is_planning(self) -> bool:
        planner = self._planner
        return self._starting or (self._planning and (planner is None or planner.is_alive()))

    def stop(self) -> None:
        """End it: what was made ahead is given up. Safe to call again, and from anywhere."""
        self._stopped = True
        self._wake()
        self._results.put((_NOBODY, Shed()))  # wakes whoever waits

    def shed(self) -> None:
        """Give up what was made ahead and not taken yet, while somebody may be waiting for it."""
        self._shed = True
        self.stop()
        self.join()
        self._results.put((_NOBODY, Shed()))  # `join` drops the one that `stop` put

    def join(self) -> None:
        """Wait until its thread has ended, and all that it started; not for ever, should a disk not answer."""
        deadline = time.monotonic() + (0.0 if self._stalled else JOIN_S)
        planner = self._planner
        if planner is not None:
            planner.join(max(0.0, deadline - time.monotonic()))
        while (self._is_planning or self._filling) and time.monotonic() < deadline:
            time.sleep(0.0005)
        if self._is_planning or self._filling:
            _logger.warning("what was begun does not end: it is left behind")
        self._drop_results()

    def _drop_results(self) -> None:
        self._arrived.clear()
        with suppress(Empty):
            while True:
                self._results.get_nowait()

    # the planner ------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._inbox.put(None)

    def _plan(self) -> None:
        recipe, position = self._recipe, self._position
        self._planning, self._starting = True, False
        recipe.pool.working.begin(recipe)
        self._planning_since = clock()
        try:
            if self._first is None:
                recipe.plan.reach.begin_epoch()  # here: it waits for a run before, whose planner may hang on a file
            elif not self._start(*self._first):
                return
            else:
                position = min(position + recipe.plan.steps.stride, recipe.plan.steps.length)
            for planned in recipe.plan.batches(self._epoch, position):
                if not self._start(planned):
                    break
            self._results.put((self._started, Done()))
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for the batch
            self._results.put((self._started, Failed(error)))
        finally:
            recipe.pool.working.end(None)
            self._planning = False
            if self._stopped:
                self._drop_results()

    def _start(
        self, planned: Planned, entries: tuple[Entry, ...] = (), tried: dict[int, tuple[int, int, int]] | None = None
    ) -> bool:
        """Start a batch when there is room for it; False if the run was stopped meanwhile."""
        recipe = self._recipe
        self.planned_s += clock() - self._planning_since
        if not self._admit(planned):
            return False
        self._planning_since = clock()
        try:
            held = recipe.filler.prepare(planned)
        except BaseException:
            recipe.share.cancel(planned.reserve_bytes)
            raise
        task = Task(self._started, planned, held, entries, tried or {})
        self._filling.add(task.number)
        self._started += 1
        try:
            recipe.pool.submit(partial(self._at_work, self._begin, task))
        except BaseException:  # a pool that was closed: nobody will have this batch
            self._started -= 1
            self._filling.discard(task.number)
            recipe.share.cancel(planned.reserve_bytes)
            raise
        return True

    def _admit(self, planned: Planned) -> bool:
        """Wait until fewer than `depth` batches are ahead and its memory is reserved."""
        recipe, share = self._recipe, self._recipe.share
        begun = time.perf_counter()
        try:
            while not self._stopped:
                self._full = True  # from here on whoever takes a batch wakes us
                ahead = self._started - self._taken
                if ahead < recipe.depth:
                    self._full = False
                    self._hungry = True  # and from here on whatever comes back
                    if share.reserve(planned.reserve_bytes):
                        return True
                if not ahead and self._starving and (recipe.mover is None or not recipe.mover.is_busy):
                    self._expect_room(planned)
                    return True
                if recipe.mover is None:
                    self._inbox.get()
                else:  # no one says when a copy is done
                    recipe.mover.release()
                    time.sleep(_COPY_S)
                self._hungry = False
                while not self._inbox.empty():
                    self._inbox.get_nowait()
        finally:
            self._hungry = self._full = False
            self.waited_s += time.perf_counter() - begun
        return False

    def _expect_room(self, planned: Planned) -> None:
        """Nothing is ahead, and the consumer waits: only batches that somebody holds can be in the way."""
        share = self._recipe.share
        gc.collect()  # some may be held by cycles that nobody can reach
        if share.reserve(planned.reserve_bytes):
            return
        found = f"{share.used_bytes} in use by {share.leases} batches that are still held"
        hint = "batch.copy() gives one that costs the loader nothing, and memory= sets the limit"
        if share.used_bytes + planned.reserve_bytes <= share.limit_bytes:
            found = f"more than their part in use by other loaders of the pool, beside {share.used_bytes} by this one"
            hint = "make all loaders of a pool before one of them is iterated"
        raise LoaderError(
            subject=f"epoch {planned.epoch}, position {planned.position}",
            expected=f"{planned.reserve_bytes} bytes of memory for the next batch, of {share.limit_bytes} in all",
            found=found,
            hint=hint,
        )

    # the threads ------------------------------------------------------------------------------------------------

    def _at_work(self, act: Callable[[Task, Scratch], None], task: Task, scratch: Scratch) -> None:
        """Work for this loader, so that whoever waits for it sees who is stalled."""
        working = self._recipe.pool.working
        before = working.begin(self._recipe)
        try:
            act(task, scratch)
        finally:
            working.end(before)

    def _begin(self, task: Task, scratch: Scratch) -> None:
        """Find the payloads, and share the copying of them with other threads if it is worth it."""
        recipe = self._recipe
        try:
            if self._stopped:
                recipe.share.cancel(task.planned.reserve_bytes)
                raise LoaderError("the run was stopped")
            task.work = recipe.filler.begin(task.planned, bool(task.held), task.times)
            starving = self._starving
            # one range costs least, but between ranges a run that was stopped is left
            shared = starving or recipe.filler.decodes
            ranges = recipe.filler.ranges(task.work) if shared else [(0, len(task.work.rows))]
        except BaseException as error:  # noqa: BLE001
            self._end(task, Failed(without_locals(error)))
            return
        task.ranges, task.count = iter(ranges), len(ranges)
        # While batches are ready, one thread is enough for the next: the consumer may need the other cores.
        helpers = min(len(ranges), recipe.pool.threads) - 1 if starving else 0
        with suppress(LoaderError):  # a pool that was closed meanwhile: then it is done here alone
            for _ in range(helpers):
                recipe.pool.submit(partial(self._at_work, self._fill, task), first=True)
        self._fill(task, scratch)

    def _fill(self, task: Task, scratch: Scratch) -> None:
        """Take ranges until there are none; whoever ends the last one finishes the batch."""
        for start, stop in task.ranges:
            try:
                if task.error is None and not self._stopped and task.work is not None:
                    self._recipe.filler.fill(task.work, start, stop, scratch, task.times)
            except BaseException as error:  # noqa: BLE001
                task.error = without_locals(error)  # all batches that are made ahead may fail, and hold on to payloads
            if next(task.ended) + 1 == task.count:
                self._end(task, self._finished(task, scratch))

    def _finished(self, task: Task, scratch: Scratch) -> Result:
        if task.error is not None or task.work is None or self._stopped:
            return Failed(task.error or LoaderError("the run was stopped"))
        try:
            if not task.work.conclude():
                return self._delivered(task, task.work)
            return self._mended(task, task.work, np.flatnonzero(task.work.rows["status"] != OK), scratch)
        except BaseException as error:  # noqa: BLE001
            return Failed(error, _described(task) if self._recipe.transform is not None else "")

    def _delivered(self, task: Task, work: Work) -> Ready:
        transform = self._recipe.transform
        batch = self._recipe.filler.finish(work)
        if transform is not None:
            task.held = []
            working = self._recipe.pool.working
            before = working.begin("transform")  # what it reads of its own is no matter of ours
            begun = clock()
            try:
                batch = transform(batch)
            finally:
                working.end(before)
            if batch is None:
                raise LoaderError("expected a batch from transform=, got None", hint="return the batch that it changed")
            task.times.add("transform", clock() - begun)
        return Ready(batch, task.planned, len(work.rows), work.layout.size_bytes, task.entries, task.times)

    def _mended(self, task: Task, work: Work, bad: Any, scratch: Scratch) -> Result:
        """The batch with its bad rows left out or replaced, if that is what the user wants."""
        recipe, planned = self._recipe, task.planned
        if recipe.on_error == "raise":
            return Failed(recipe.filler.why(work.rows[bad[0]]))
        why = [reason_of(recipe.filler.why(row)) for row in work.rows[bad]]
        lost = work.rows["sample_id"][bad].tolist()
        if recipe.on_error == "skip":
            task.entries += _entries(planned, lost, why, [None] * len(lost))
            recipe.filler.without(work, np.flatnonzero(work.rows["status"] == OK))
            return self._delivered(task, work)
        positions = [self._substitute(task, *each) for each in zip(bad.tolist(), lost, why, strict=True)]
        work.release()
        task.work = None
        again = recipe.plan.again(planned, bad, np.array(positions))
        task.entries += _entries(planned, lost, why, again.rows["sample_id"][bad].tolist())
        if not recipe.share.reserve(again.reserve_bytes):
            return Restart(again, task.entries, task.tried)
        task.planned = again
        try:
            task.held = recipe.filler.prepare(again)
        except BaseException:
            recipe.share.cancel(again.reserve_bytes)
            raise
        task.work = recipe.filler.begin(again, bool(task.held), task.times)
        recipe.filler.fill(task.work, 0, len(again.rows), scratch, task.times)
        return self._finished(task, scratch)

    def _substitute(self, task: Task, row: int, sample_id: int, why: str) -> int:
        """Another position, which follows from the sample that stood there first and how often another was tried."""
        plan, planned = self._recipe.plan, task.planned
        occurrences = occurrences_of(planned.extras)
        of_row = 0 if occurrences is None else int(occurrences[row])
        first, occurrence, attempts = task.tried.get(row, (sample_id, of_row, 0))
        if attempts == MOST_ATTEMPTS:
            raise LoaderError(
                f"{MOST_ATTEMPTS} substitutes in a row were no better; of the last one: {why}",
                subject=f"sample {first}",
            )
        task.tried[row] = first, occurrence, attempts + 1
        return plan.substitute(planned.epoch, first, occurrence, attempts)

    def _end(self, task: Task, result: Result) -> None:
        """Hand over a result. The memory of one that failed goes back before anyone hears of it."""
        if task.work is not None and not isinstance(result, Ready):
            task.work.release()  # a traceback may hold on to the rest
        task.work = None
        task.held = []
        if not self._stopped:  # else nobody takes it, and an error would hold on to this run, and this run to it
            self._results.put((task.number, result))
        self._filling.discard(task.number)


def _entries(
    planned: Planned, lost: Sequence[int], why: Sequence[str], instead: Sequence[int | None]
) -> tuple[Entry, ...]:
    """What is written down of the samples that a batch lost, and of those in their place."""
    return tuple(
        Entry(planned.epoch, planned.position, sample_id, reason, other)
        for sample_id, reason, other in zip(lost, why, instead, strict=True)
    )


def _waker(run: weakref.ref[Run]) -> Callable[[], None]:
    """Wakes a run's planner, and keeps nothing alive: the memory of a dropped loader must not wait for a gc."""

    def wake() -> None:
        found = run()
        if found is not None and found._hungry:
            found._wake()

    return wake


def _shedder(run: weakref.ref[Run]) -> Callable[[], None]:
    """Gives up what a run made ahead, and keeps nothing alive either."""

    def shed() -> None:
        found = run()
        if found is not None:
            found.shed()

    return shed


def _described(task: Task) -> str:
    """The step of a batch and the samples in it, in a few words."""
    step, ids = task.planned.position, task.planned.rows["sample_id"].tolist()
    some = ", ".join(map(str, ids[:8])) + (", …" if len(ids) > 8 else "")
    return f"transform of the batch at position {step}, sample_ids {some}"
