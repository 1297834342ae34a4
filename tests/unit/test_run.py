"""Do a loader's runs start, end and restart without deadlocks?"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.loading.budget.banks import Budget
from mx8shards.loading.execution import crew as crews
from mx8shards.loading.execution import threads
from mx8shards.loading.execution.following import Following
from mx8shards.loading.execution.other_ranks import OtherRanks
from mx8shards.loading.execution.provisions import Provisions
from mx8shards.loading.execution.results import Done, Failed, Ready
from mx8shards.loading.execution.run import Run
from mx8shards.loading.execution.run_state import Assembly, RunState
from mx8shards.loading.execution.watchdog import Watchdog
from mx8shards.loading.planning.assembly import assemble, order_of
from mx8shards.loading.planning.settings import Settings
from mx8shards.order.steps import Steps
from tests.batches import write
from tests.fast_directory import fast_directory
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def dataset() -> Iterator[mx8.Dataset]:
    with fast_directory() as place:
        yield write(place / "data", ({"a": bytes(100_000)} for _ in range(60)), {"a": "bytes"}, size_limit=1 << 20)


@pytest.fixture
def assembly(dataset: mx8.Dataset) -> Iterator[Assembly]:
    """An assembly whose batches do not all fit into memory."""
    settings = Settings(batch_size=2, memory="2mb")
    order = order_of(dataset, settings)
    pool = mx8.Pool(memory="2mb", threads=1)
    yield assemble(dataset, settings, order, Steps(length=60, batch_size=2), 0, pool, Budget(pool.memory))
    pool.close()


def start_run(*arguments: Any) -> Run:
    """A started run."""
    run = Run(*arguments)
    run.start()
    return run


def remaining_positions(run: Run) -> list[int]:
    """The positions of all remaining batches."""
    found = []
    while isinstance(result := run.take(), Ready):
        found.append(result.position)
    assert isinstance(result, Done)
    return found


def wait_until_full(assembly: Assembly) -> None:
    """Wait until memory is (probably) full."""
    deadline = time.monotonic() + 10
    while assembly.budget.report()["bytes_in_use"] < 1 << 20 and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_run_that_ends_frees_its_memory_for_a_waiting_run(assembly: Assembly) -> None:
    """As after a `break`: the next run starts before the previous one has ended."""
    first = start_run(assembly, 0, 0)
    wait_until_full(assembly)
    second = start_run(assembly, 1, 0)
    time.sleep(0.3)  # now both probably wait for memory; otherwise the test is weaker
    first.stop()
    first.join()
    assert remaining_positions(second) == list(range(0, 60, 2))
    second.join()
    assert assembly.budget.report()["bytes_in_use"] == 0


@pytest.mark.parametrize("batches", [0, 1, 7, 30])
def test_a_run_can_be_stopped_at_any_batch_and_gives_all_memory_back(batches: int, assembly: Assembly) -> None:
    run = start_run(assembly, 0, 0)
    for _ in range(batches):
        assert isinstance(run.take(), Ready)
    run.stop()
    run.stop()
    run.join()
    found = assembly.budget.report()
    assert [found["bytes_in_use"], found["bytes_reserved"], found["banks_in_use"]] == [0, 0, 0]


def test_a_run_begins_at_any_position_of_an_epoch(assembly: Assembly) -> None:
    for position in (0, 6, 58, 60):
        run = start_run(assembly, 0, position)
        assert remaining_positions(run) == list(range(position, 60, 2))
        run.stop()
        run.join()


def test_after_a_run_whose_thread_failed_to_start_another_can_begin(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start") as caught:
            start_run(assembly, 0, 0)
    assert caught.tb is not None  # the traceback refers to the run
    assert assembly.budget.iterating is None
    assert remaining_positions(start_run(assembly, 0, 0)) == list(range(0, 60, 2))


def test_a_planning_error_does_not_keep_its_run_alive(assembly: Assembly) -> None:
    gc.collect()
    gc.disable()  # a cycle would stay
    try:
        run = start_run(replace(assembly, plan=replace(assembly.plan, limit_bytes=lambda: 1)), 0, 0)
        result = run.take()
        assert isinstance(result, Failed)
        run.stop()
        run.join()
        state = weakref.ref(run._state)
        del run, result
        assert state() is None
    finally:
        gc.enable()


def test_the_watchdog_tolerates_a_planner_that_ends_during_its_check(assembly: Assembly) -> None:
    class Ending(RunState):
        """A state whose planner ends as soon as `provisions` is read."""

        @property
        def provisions(self) -> Any:
            return self.__dict__.pop("left", None)

        @provisions.setter
        def provisions(self, value: Any) -> None:
            self.__dict__["left"] = value

    state = Ending(assembly, 0, 0)
    following = Following(assembly.plan, 0, 0, list)
    state.provisions = Provisions(assembly.plan.shards, assembly.pool.submit, lambda: False, [], {}, following)
    Watchdog(state).look(None, planning=True)


def test_waiting_for_a_stopped_run_is_an_error(assembly: Assembly) -> None:
    stuck = threading.Event()
    run = start_run(replace(assembly, transform=lambda batch: stuck.wait(10)), 0, 0)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(run.take)
        time.sleep(0.1)  # it probably waits now; otherwise the test is weaker
        run.stop()
        with pytest.raises(mx8.LoaderError, match="the run was stopped"):
            waiting.result(10)
        stuck.set()
    run.join()
    assert assembly.budget.report()["bytes_in_use"] == 0


def test_ready_batches_can_be_taken_without_waiting(assembly: Assembly) -> None:
    run = start_run(assembly, 0, 0)
    wait_until_full(assembly)
    ready = run.take_ready()
    assert ready is not None
    assert ready.position == 0
    run.stop()
    run.join()
    assert run.take_ready() is None


def test_priority_tasks_run_before_queued_tasks() -> None:
    pool = mx8.Pool(memory="2mb", threads=1)
    begun, end, order = threading.Event(), threading.Event(), list[str]()

    def wait(_: object) -> None:
        begun.set()
        end.wait(10)

    def task(name: str) -> Callable[[object], None]:
        return lambda _: order.append(name)

    pool.submit(wait)
    assert begun.wait(10)
    for name in "abc":
        pool.submit(task(name))
    for name in ("first", "second"):
        pool.submit(task(name), "first")
    end.set()
    pool.close()  # when all is done
    assert order == ["first", "second", "a", "b", "c"]


def test_threads_take_no_task_after_a_shutdown_request(dataset: mx8.Dataset) -> None:
    """As at interpreter exit: new tasks get an error instead of waiting."""
    pool = mx8.Pool(memory="2mb", threads=2)
    with mx8.Loader(dataset, batch_size=2, pool=pool) as loader:
        loader.warm_up()
        assert pool._crew is not None
        pool._crew.stop()
        pool._crew.stop()
        with pytest.raises(mx8.LoaderError, match="the pool is closed"):
            next(iter(loader))
    pool.close()


def test_if_not_all_threads_can_be_started_the_started_ones_end(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    pool = mx8.Pool(memory="2mb", threads=3)
    starts = iter([threading.Thread.start, threading.Thread.start])

    def start(thread: threading.Thread) -> None:
        if (found := next(starts, None)) is None:
            raise RuntimeError("can't start new thread")
        found(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.submit(lambda _: None)
    done = threading.Event()
    pool.submit(lambda _: done.set())
    assert done.wait(10)
    pool.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


def test_a_shutdown_while_threads_are_being_started_ends_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the interpreter exits at that moment."""
    before = set(threading.enumerate())
    shared = mx8.Pool(memory="2mb", threads=2)

    def start(owner: threads.Owner, *arguments: Any) -> threading.Thread:
        thread = threads.start_thread(owner, *arguments)
        owner.stop()
        monkeypatch.setattr(threads._known, "ending", True)
        return thread

    monkeypatch.setattr(crews, "start_thread", start)
    with pytest.raises(mx8.LoaderError, match="about to end"):
        shared.submit(lambda _: None)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


def failed_in_another_rank(run: Run) -> Callable[[], None]:
    """Give a run another rank, which fails when the result is called."""
    store: Any = pytest.importorskip("torch.distributed").HashStore()
    run._others, other = (OtherRanks(store, "run", rank) for rank in range(2))
    run.start()
    other.start()

    def fail() -> None:
        other.tell(mx8.RemoteError("no connection"))
        other.stop()

    return fail


def test_the_end_of_an_epoch_is_the_failure_of_another_rank_if_there_was_one(assembly: Assembly) -> None:
    run = Run(assembly, 0, 0)
    fail = failed_in_another_rank(run)
    for _ in range(30):
        assert isinstance(run.take(), Ready)
    fail()
    result = run.take()
    assert isinstance(result, Failed)
    assert "seen by rank 1" in str(result.error)
    run.stop()
    run.join()


def test_a_batch_that_is_ready_is_not_taken_after_the_failure_of_another_rank(assembly: Assembly) -> None:
    """As with a GPU, which copies the next batch while one is in use."""
    run = Run(assembly, 0, 0)
    fail = failed_in_another_rank(run)
    assert isinstance(run.take(), Ready)
    wait_until(lambda: run.take_ready() is not None)
    fail()
    wait_until(lambda: run._others.failure is not None)
    wait_until(lambda: not run._state.results.empty())
    assert run.take_ready() is None
    assert isinstance(run.take(), Failed)
    run.stop()
    run.join()
