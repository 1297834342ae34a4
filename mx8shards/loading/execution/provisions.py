"""How are shards unpacked or fetched before batches need them? Waiting batches first, then a few shards ahead."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from typing import NamedTuple

from mx8shards.errors import LoaderError, without_traceback
from mx8shards.loading.execution.calls import Calls, Errors
from mx8shards.loading.execution.crew import Crew, Lane, ResourceOf, Task
from mx8shards.loading.execution.following import Following
from mx8shards.loading.planning.partial_shards import Fetch, Provided
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.providers import Cause, NoRoomYetError

_LOOKED_AT = 64  # upcoming shards to check per batch: with a warm cache, most are already local
_AHEAD = 8  # the number of shards that are provided, or queued, before a batch needs them
_POLL_S = 0.1  # interval at which a planner waiting for a shard checks whether the run was stopped


class Wait(NamedTuple):
    """A shard that the planner or a batch waits for, why, and since when."""

    shard: str
    cause: Cause
    since: float


class Provisions:
    """Makes shards local for one run. Only its planner uses this; any thread may read `wait`.

    Args:
        shards: the shards of the loader's dataset, of which some may be read in parts.
        submit: queues a task for the threads that unpack or fetch.
        is_interrupted: whether the run was stopped or must restart.
        upcoming: the shards that the run will need, in the order of first need.
        waited_s: the planner's waiting time by cause. This class adds to it.
        following: tells caches with a limit how far the run has come.
    """

    def __init__(
        self,
        shards: Provided,
        submit: Callable[[int, Task, Lane], None],
        is_interrupted: Callable[[], bool],
        upcoming: Iterable[int],
        waited_s: dict[Cause, float],
        following: Following,
    ) -> None:
        self._shards = shards
        self._all_here = shards.all_here
        self._submit = submit
        self._is_interrupted = is_interrupted
        self._upcoming: Iterator[int] = iter(() if self._all_here else upcoming)
        self._known: set[int] = set()  # shards that were needed or begun ahead
        self._queued: dict[int, None] = {}  # tasks that no thread has taken; `pop` is atomic under the GIL
        self._under_way: dict[int, Cause] = {}
        self._ahead: set[int] = set()  # shards begun ahead that no batch has needed yet
        self._failures: dict[int, Exception] = {}
        self._done: SimpleQueue[tuple[int, Exception | None]] = SimpleQueue()
        self._wait: Wait | None = None  # of the planner
        self._launched: tuple[Calls, ...] = ()  # for batches that wait for blocks; replaced, never changed
        self.fetch: Fetch | None = None  # of blocks; it needs this object
        self._waited_s = waited_s
        self._following = following
        self._is_full = False  # a cache has no room for shards ahead, until the next batch is planned

    @property
    def wait(self) -> Wait | None:
        """What the planner waits for, or the batch whose blocks were asked for first, whichever has waited longer."""
        under_way = (calls for calls in self._launched if not calls.ended.is_set())
        waits = [Wait(self._shards.name(calls.shard), "network", calls.since) for calls in under_way]
        own = self._wait
        return min(waits if own is None else [*waits, own], key=lambda wait: wait.since, default=None)

    def at(self, begin: int, end: int) -> None:
        """The planner plans the step between these order positions."""
        self._is_full = False
        self._known.difference_update(self._following.at(begin, end))

    def are_here(self, numbers: Iterable[int]) -> bool:
        """Whether all these shards are local."""
        return self._all_here or all(self._shards.awaits(i) is None for i in numbers)

    def need(self, numbers: Iterable[int]) -> dict[int, Exception]:
        """Wait until these shards are local; the errors of those that cannot be, by shard number.

        LoaderError if the run is interrupted meanwhile.
        """
        if self._all_here:
            return {}
        numbers = list(numbers)
        missing = [i for i in numbers if i in self._under_way or self._shards.awaits(i) is not None]
        self._known.update(numbers)
        self._ahead.difference_update(numbers)  # also those that are local by now, so that later ones can begin
        for i in missing:
            if i not in self._failures:
                self._begin(i, "first")
        for i in missing:
            self._await(i)
            if i not in self._failures and self._shards.awaits(i) is not None:  # it was refused room while it was ahead
                self._begin(i, "first")
                self._await(i)
        self._work_ahead()
        return {i: self._failures.pop(i) for i in missing if i in self._failures}

    def launch(self, tasks: Mapping[int, Callable[[], object]], then: Callable[[Errors], object]) -> Calls:
        """Let the threads that fetch shards call these functions, and then `then` with their errors: see Calls."""
        calls = Calls(next(iter(tasks)), len(tasks), then)
        self._launched = (*(each for each in self._launched if not each.ended.is_set()), calls)
        for i, task in tasks.items():
            self._submit(i, partial(_call, i, task, calls), "first")
        return calls

    def wait_for(self, calls: Calls) -> None:
        """Wait until these calls have ended. LoaderError if the run is interrupted meanwhile."""
        since = time.monotonic()
        self._wait = Wait(self._shards.name(calls.shard), "network", since)
        try:
            while not calls.ended.wait(_POLL_S):
                if self._is_interrupted():
                    raise LoaderError("the run was stopped")
                self._work_ahead()
        finally:
            self._wait = None
            self._waited_s["network"] += time.monotonic() - since

    def end(self) -> None:
        """Cancel the tasks that no thread has taken yet, when the planner ends or restarts."""
        self._queued.clear()
        self._launched = ()
        self.fetch = None  # it refers to this object
        self._following.close()

    def _await(self, i: int) -> None:
        if i not in self._under_way:
            return
        cause, since = self._under_way[i], time.monotonic()
        self._wait = Wait(self._shards.name(i), cause, since)
        try:
            while i in self._under_way:
                if self._is_interrupted():
                    raise LoaderError("the run was stopped")
                self._following.look()
                self._work_ahead()
                if i in self._under_way:
                    self._collect(_POLL_S)
        finally:
            self._wait = None
            self._waited_s[cause] += time.monotonic() - since

    def _collect(self, timeout_s: float) -> None:
        with suppress(Empty):
            i, error = self._done.get(timeout=timeout_s)
            del self._under_way[i]
            if isinstance(error, NoRoomYetError):
                self._is_full = True
                self._known.discard(i)
                if i in self._ahead:
                    self._ahead.discard(i)
                    self._upcoming = chain([i], self._upcoming)
            elif error is not None:
                self._failures[i] = error

    def _work_ahead(self) -> None:
        """Begin the next shards while fewer than `_AHEAD` are ahead. An error is reported when the shard is needed."""
        while not self._done.empty():
            self._collect(_POLL_S)
        for i in self._next_shards():
            if i not in self._known and self._shards.awaits(i) is not None:
                self._known.add(i)
                self._ahead.add(i)
                self._begin(i, "later")

    def _next_shards(self) -> Iterator[int]:
        """The next shards that the run will need, until enough are ahead. At most a few, as each check takes time."""
        for _ in range(_LOOKED_AT):
            if len(self._ahead) >= _AHEAD or self._is_full or not self._following.looks_ahead:
                return
            try:
                i = next(self._upcoming, None)
            except Exception:  # noqa: BLE001 - from an order or a view: the batch that needs it reports it
                i = None
            if i is None:
                self._upcoming = iter(())
                return
            yield i

    def _begin(self, i: int, lane: Lane) -> None:
        """Queue a task for shard i. If a task is queued already, queue a second one, in case this lane is faster."""
        if i not in self._under_way:
            self._under_way[i] = self._shards.awaits(i) or "unpack"
            self._queued[i] = None
        elif i not in self._queued:
            return  # a thread runs its task
        ahead = lane == "later"
        self._submit(i, partial(_provide, i, self._shards, self._queued, self._done, ahead), lane)


def _provide(
    i: int,
    shards: Provided,
    queued: dict[int, None],
    done: SimpleQueue[tuple[int, Exception | None]],
    ahead: bool,
    _: ResourceOf,
) -> None:
    """Provide shard i, unless another task has taken it or it was cancelled."""
    if queued.pop(i, i) is not None:
        return
    try:
        shards.provide(i, ahead=ahead)
    except Exception as error:  # noqa: BLE001 - raised when the shard is needed
        done.put((i, without_traceback(error)))
    except BaseException as error:  # noqa: BLE001
        done.put((i, LoaderError(f"{type(error).__name__} while a shard was provided")))
    else:
        done.put((i, None))


def _call(i: int, task: Callable[[], object], calls: Calls, _: ResourceOf) -> None:
    """Call a function for shard i, and report its end."""
    error: Exception | None = None
    try:
        task()
    except Exception as found:  # noqa: BLE001 - the planner raises it
        error = without_traceback(found)
    except BaseException as found:  # noqa: BLE001
        error = LoaderError(f"{type(found).__name__} while a shard was read")
    calls.one_ended(i, error)


class ProviderThreads:
    """The threads of providers: separate ones for each provider that waits (network), the pool's for unpacking."""

    def __init__(self, shards: Shards, submit: Callable[[Task, Lane], None]) -> None:
        self._shards = shards
        self._submit = submit
        self._crews: dict[int, Crew] = {}  # by the identity of the provider

    def submit(self, i: int, task: Task, lane: Lane) -> None:
        """Queue a task that provides shard `i`. Only one planner at a time calls this."""
        provider = self._shards.provider_of(i)
        if provider.parallel is None:
            self._submit(task, lane)
            return
        crew = self._crews.get(id(provider))
        if crew is None or not crew.is_of_this_process:
            crew = self._crews[id(provider)] = Crew(provider.parallel, "provider-")
            weakref.finalize(self, Crew.stop, crew)
        crew.put(task, lane)

    def close(self) -> None:
        """End the separate threads, if there are any. The wait is bounded, as a provider may not answer."""
        crews, self._crews = self._crews, {}
        for crew in crews.values():
            crew.stop()
        for crew in crews.values():
            crew.join()
