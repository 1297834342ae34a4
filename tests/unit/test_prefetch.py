"""Do runs end, begin and make room for one another without anybody waiting for ever?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.loading import pool as pools
from mx8shards.loading.execution import threads
from mx8shards.loading.execution.prefetch import Done, Ready, Recipe, Run, Shed
from mx8shards.loading.planning.assembly import assemble, order_of
from mx8shards.loading.planning.settings import Settings
from mx8shards.order.steps import Steps
from tests.batches import write
from tests.places import quick_place


@pytest.fixture(scope="module")
def dataset() -> Iterator[mx8.Dataset]:
    with quick_place() as place:
        yield write(place / "data", ({"a": bytes(100_000)} for _ in range(60)), {"a": "bytes"}, size_limit=1 << 20)


@pytest.fixture
def recipe(dataset: mx8.Dataset) -> Iterator[Recipe]:
    """Of batches of which not all fit into memory."""
    settings = Settings(batch_size=2, memory="2mb")
    order = order_of(dataset, settings)
    pool = mx8.Pool(memory="2mb", threads=1)
    yield assemble(dataset, settings, order, Steps(length=60, batch_size=2), 0, pool)
    pool.close()


def begun(*arguments: Any) -> Run:
    """A run that makes batches."""
    run = Run(*arguments)
    run.start()
    return run


def taken(run: Run) -> list[int]:
    """The positions of all batches to its end."""
    found = []
    while isinstance(result := run.take(), Ready):
        found.append(result.planned.position)
    assert isinstance(result, Done)
    return found


def filled(recipe: Recipe) -> None:
    """Return when memory is full, or should be."""
    deadline = time.monotonic() + 10
    while recipe.share.report()["bytes_in_use"] < 1 << 20 and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_run_that_ends_leaves_its_memory_to_one_that_waits_for_it(recipe: Recipe) -> None:
    """As after a `for` that was left: nobody waits for the end of the run before."""
    first = begun(recipe, 0, 0)
    filled(recipe)
    second = begun(recipe, 1, 0)
    time.sleep(0.3)  # now both wait for memory: if not, this proves less
    first.stop()
    first.join()
    assert taken(second) == list(range(0, 60, 2))
    second.join()
    assert recipe.share.report()["bytes_in_use"] == 0


@pytest.mark.parametrize("batches", [0, 1, 7, 30])
def test_a_run_can_be_stopped_at_any_batch_and_gives_all_memory_back(batches: int, recipe: Recipe) -> None:
    run = begun(recipe, 0, 0)
    for _ in range(batches):
        assert isinstance(run.take(), Ready)
    run.stop()
    run.stop()
    run.join()
    found = recipe.share.report()
    assert [found["bytes_in_use"], found["bytes_reserved"], found["banks_in_use"]] == [0, 0, 0]


def test_a_run_begins_at_any_position_of_an_epoch(recipe: Recipe) -> None:
    for position in (0, 6, 58, 60):
        run = begun(recipe, 0, position)
        assert taken(run) == list(range(position, 60, 2))
        run.stop()
        run.join()


@pytest.mark.parametrize("batches", [0, 3, 30, 31])
def test_a_run_that_sheds_says_so_whenever_it_is_asked_for_more_and_has_no_memory(batches: int, recipe: Recipe) -> None:
    run = begun(recipe, 0, 0)
    for _ in range(batches):
        run.take()
    recipe.share.shed()
    assert [type(run.take()) for _ in range(3)] == [Shed] * 3
    assert run.take_ready() is None
    found = recipe.share.report()
    assert [found["bytes_in_use"], found["bytes_reserved"], found["banks_in_use"]] == [0, 0, 0]


def test_a_run_can_shed_while_its_thread_is_started(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = threading.Thread.start
    shedding: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        shedding.append(threading.Thread(target=recipe.share.shed))
        begin(shedding[0])
        time.sleep(0.1)  # now it sheds: if not, this proves less
        begin(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        run = begun(recipe, 0, 0)
    shedding[0].join(10)
    assert not shedding[0].is_alive()
    assert isinstance(run.take(), Shed)
    assert recipe.share.report()["bytes_reserved"] == 0


def test_a_run_whose_thread_cannot_be_started_need_not_shed(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start") as caught:
            begun(recipe, 0, 0)
    assert caught.tb is not None  # it holds on to the run
    recipe.share.shed()
    assert taken(begun(recipe, 0, 0)) == list(range(0, 60, 2))


def test_whoever_waits_for_a_run_that_sheds_is_told(recipe: Recipe) -> None:
    stuck = threading.Event()
    run = begun(replace(recipe, transform=lambda batch: stuck.wait(10)), 0, 0)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(run.take)
        time.sleep(0.1)  # now it waits: if not, this proves less
        ending = threading.Thread(target=run.shed)
        ending.start()
        stuck.set()
        ending.join()
        assert isinstance(waiting.result(10), Shed | Ready)
    assert isinstance(run.take(), Shed)


def test_batches_that_are_there_can_be_taken_without_waiting(recipe: Recipe) -> None:
    run = begun(recipe, 0, 0)
    filled(recipe)
    ready = run.take_ready()
    assert ready is not None
    assert ready.planned.position == 0
    run.stop()
    run.join()
    assert run.take_ready() is None


def test_what_comes_first_is_done_before_all_that_waits() -> None:
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
        pool.submit(task(name), first=True)
    end.set()
    pool.close()  # when all is done
    assert order == ["first", "second", "a", "b", "c"]


def test_threads_that_were_told_to_end_take_nothing_more(dataset: mx8.Dataset) -> None:
    """As at the end of the interpreter: whoever still wants something is told, and does not wait."""
    pool = mx8.Pool(memory="2mb", threads=2)
    with mx8.Loader(dataset, batch_size=2, pool=pool) as loader:
        loader.warm_up()
        assert pool._crew is not None
        pool._crew.stop()
        pool._crew.stop()
        with pytest.raises(mx8.LoaderError, match="the pool is closed"):
            next(iter(loader))
    pool.close()


def test_where_not_all_threads_can_be_started_those_that_were_end(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_threads_that_are_told_to_end_while_the_others_are_started_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the interpreter ends just then."""
    before = set(threading.enumerate())
    shared = mx8.Pool(memory="2mb", threads=2)

    def start(owner: threads.Owner, *arguments: Any) -> threading.Thread:
        thread = threads.start_thread(owner, *arguments)
        owner.stop()
        monkeypatch.setattr(threads._known, "ending", True)
        return thread

    monkeypatch.setattr(pools, "start_thread", start)
    with pytest.raises(mx8.LoaderError, match="about to end"):
        shared.submit(lambda _: None)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
