"""Does a loader survive Ctrl-C at any moment, and other threads that close it or take batches?"""

from __future__ import annotations

import gc
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

import mx8shards as mx8
from tests.loader.leak_checks import ids_of, no_leaks, threads, time_limit, write

SAMPLES, BATCH = 48, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("interrupts") / "data", SAMPLES)


@contextmanager
def ctrl_c(after_s: float) -> Iterator[threading.Event]:
    """Send SIGINT to this thread after `delay`, unless the block has ended. Yields whether it was raised.

    A real signal, not an exception from a trace function: that could be raised where Python delivers no signal, such
    as while a `with` block releases its lock.
    """
    over, came, here = threading.Event(), threading.Event(), threading.get_ident()

    def send() -> None:
        if not over.wait(after_s):
            came.set()
            signal.pthread_kill(here, signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield came
    finally:
        over.set()
        sender.join()


@pytest.fixture(autouse=True)
def _interruptible(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the handler of SIGINT, which background jobs ignore.

    Python reports and drops a KeyboardInterrupt raised in a callback; the report must not keep objects alive.
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    before, interval = signal.signal(signal.SIGINT, signal.default_int_handler), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # otherwise the sending thread waits for the GIL until nothing is left to interrupt
    yield
    sys.setswitchinterval(interval)
    signal.signal(signal.SIGINT, before)


def begin(loader: mx8.Loader) -> None:
    """Take two batches and stop."""
    batches = iter(loader)
    next(batches)
    next(batches)


def train(loader: mx8.Loader) -> None:
    for batch in loader:
        ids_of(batch)


def warm_up(loader: mx8.Loader) -> None:
    loader.warm_up()


USES = pytest.mark.parametrize("use", [begin, train, warm_up])


@USES
@pytest.mark.parametrize("times", [150, pytest.param(10_000, marks=pytest.mark.hunt)])
def test_ctrl_c_at_any_moment_is_one_keyboard_interrupt_and_the_loader_stays_usable(
    data: Path, use: Callable[[mx8.Loader], None], times: int
) -> None:
    struck = 0
    random = Random(times)
    with no_leaks(data), mx8.Dataset(data) as dataset:
        loader = mx8.Loader(dataset, batch_size=BATCH, threads=1, memory="1mb", output="numpy")
        list(loader)  # kernels are compiled now
        begun = time.perf_counter()
        for _ in range(10):
            use(loader)
        most_s = (time.perf_counter() - begun) / 10
        for _ in range(times):
            error: BaseException | None = None
            try:
                with ctrl_c(random.uniform(0, most_s)) as came:
                    use(loader)
            except KeyboardInterrupt as caught:
                struck += 1
                error = caught
            while error is not None:
                assert not isinstance(error, queue.Empty | mx8.ShardsError)
                error = error.__cause__ or error.__context__
            loader.set_epoch(0)
            assert [i for batch in loader for i in ids_of(batch)] == list(range(SAMPLES))
            error = None
            gc.collect()
            found = loader.stats()
            assert (found["bytes_in_use"], found["bytes_reserved"], found["banks_in_use"]) == (0, 0, 0)
            while any("planner" in name for name in threads()):  # a thread whose start was interrupted ends soon
                time.sleep(0.001)
        assert struck > times // 10
        loader.close()
        del loader, dataset, came


def test_a_loader_dropped_after_ctrl_c_during_thread_start_leaves_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    with no_leaks(data):
        dataset = mx8.Dataset(data)
        pool = mx8.Pool(memory="4mb", threads=1)
        loader = mx8.Loader(dataset, batch_size=BATCH, pool=pool, output="numpy")
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                iter(loader)
        del loader
        gc.collect()
        with mx8.Loader(dataset, batch_size=BATCH, pool=pool, output="numpy") as other:
            assert [i for batch in other for i in ids_of(batch)] == list(range(SAMPLES))
        while any("planner" in name for name in threads()):
            time.sleep(0.01)
        assert pool.memory.promised_bytes == 0
        pool.close()
        dataset.close()
        del other, pool, dataset


def test_using_an_iteration_that_ctrl_c_ended_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, threads=1, output="numpy") as loader:
        batches = iter(loader)
        next(batches)
        with monkeypatch.context() as patched:
            patched.setattr(loader._progress.counters, "delivered", interrupt)
            with pytest.raises(KeyboardInterrupt):
                next(batches)
        for _ in range(2):
            with pytest.raises(mx8.LoaderError, match=r"this iteration has ended: .* it was interrupted"):
                next(batches)
        assert next(iter(loader)).epoch == 1


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


# other threads --------------------------------------------------------------------------------------------------------


def test_waiting_while_another_thread_closes_the_loader_is_an_error(data: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def transform(batch: Any) -> Any:
        begun.set()
        end.wait(30)
        return batch

    with time_limit(), mx8.Dataset(data) as dataset:
        loader = mx8.Loader(dataset, batch_size=BATCH, threads=1, transform=transform, output="numpy")

        def close() -> None:
            begun.wait(30)
            time.sleep(0.1)  # the other thread is probably waiting now; otherwise the test is weaker
            end.set()
            loader.close()

        closing = threading.Thread(target=close)
        closing.start()
        with pytest.raises(mx8.LoaderError, match=r"this iteration has ended: .* or the loader was closed"):
            list(loader)
        closing.join()


def test_concurrent_use_of_one_iteration_is_an_error_and_the_first_thread_continues(data: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def transform(batch: Any) -> Any:
        begun.set()
        end.wait(30)
        return batch

    options: dict[str, Any] = {"batch_size": BATCH, "threads": 1, "transform": transform, "output": "numpy"}
    with time_limit(), mx8.Dataset(data) as dataset, mx8.Loader(dataset, **options) as loader:
        batches, found = iter(loader), list[int]()
        first = threading.Thread(target=lambda: found.extend(i for batch in batches for i in ids_of(batch)))
        first.start()
        begun.wait(30)
        time.sleep(0.1)  # the first thread is waiting now
        with pytest.raises(mx8.LoaderError, match="another thread waits for the next batch of this iteration"):
            next(batches)
        end.set()
        first.join()
        assert found == list(range(SAMPLES))


def test_an_abandoned_iteration_does_not_move_the_newer_one(data: Path) -> None:
    begun, newer = threading.Event(), threading.Event()

    def transform(batch: Any) -> Any:
        if batch.epoch == 0 and 2 * BATCH in batch.sample_ids:
            begun.set()
            newer.wait(1)  # the newer iteration begins after this one ended
            raise OSError("too late")
        return batch

    options: dict[str, Any] = {"batch_size": BATCH, "threads": 1, "transform": transform, "output": "numpy"}
    with time_limit(), mx8.Dataset(data) as dataset, mx8.Loader(dataset, **options) as loader:
        batches, errors = iter(loader), list[str]()
        next(batches)
        next(batches)

        def wait() -> None:
            try:
                next(batches)
            except mx8.LoaderError as error:
                errors.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        begun.wait(30)
        time.sleep(0.1)  # it is waiting now
        found = next(iter(loader))
        newer.set()
        waiting.join()
        assert found.epoch == 1
        assert len(errors) == 1
        assert errors[0].startswith("this iteration has ended")
        assert loader._progress.upcoming == (2, 0)
