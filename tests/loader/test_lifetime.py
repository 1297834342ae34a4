"""Does a loader release everything when it is closed, dropped, interrupted, forked, or still open at exit?"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.loading.execution import threads as ending
from tests.anonymous_memory import anonymous_bytes
from tests.loader.child_process import ChildProcess
from tests.loader.faults import ChecksumDecoder, Fault, OnCommandError, raising
from tests.loader.leak_checks import descriptors, ids_of, no_leaks, threads, time_limit, write

SAMPLES, BATCH = 240, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lifetime") / "data", SAMPLES)


def all_of(loader: mx8.Loader) -> list[int]:
    return [i for batch in loader for i in ids_of(batch)]


def by_del(batches: Iterator[Any]) -> None:
    next(batches)
    del batches


def by_break(batches: Iterator[Any]) -> None:
    for _ in batches:
        break


def by_an_error(batches: Iterator[Any]) -> None:
    with suppress(OnCommandError):
        for _ in batches:
            raise OnCommandError


def by_a_generator(batches: Iterator[Any]) -> None:
    generator = (ids_of(batch) for batch in batches)
    next(generator)
    del generator


def by_a_cycle(batches: Iterator[Any]) -> None:
    cycle: list[Any] = [batches, next(batches)]
    cycle.append(cycle)


@pytest.mark.parametrize("leave", [by_del, by_break, by_an_error, by_a_generator, by_a_cycle])
def test_a_break_ends_the_work_of_an_iteration_and_the_next_one_is_complete(
    data: Path, leave: Callable[[Iterator[Any]], None]
) -> None:
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        loader = mx8.Loader(dataset, batch_size=BATCH, threads=2, shuffle=True, output="numpy")
        for epoch in range(3):
            leave(iter(loader))
            gc.collect()
            assert loader.state_dict()["epoch"] == 2 * epoch
            assert loader.state_dict()["position"] == BATCH
            expected = [i for k in range(len(loader)) for i in loader.ids(epoch=2 * epoch + 1, step=k).tolist()]
            assert all_of(loader) == expected
            assert "mx8shards-planner" not in threads()
        loader.close()
        dataset.close()
        del loader, dataset


def test_using_an_iteration_that_another_one_replaced_is_an_error(data: Path) -> None:
    with no_leaks(data), mx8.Dataset(data) as dataset:
        with mx8.Loader(dataset, batch_size=BATCH, threads=2, output="numpy") as loader:
            first = iter(loader)
            next(first)
            second = iter(loader)
            with pytest.raises(mx8.LoaderError, match="newer one has begun"):
                next(first)
            assert len(list(second)) == len(loader)
            with pytest.raises(StopIteration):
                next(second)
        del loader, first, second, dataset


def test_closing_during_an_iteration_ends_it_and_held_batches_stay_valid(data: Path) -> None:
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        loader = mx8.Loader(dataset, batch_size=BATCH, threads=2, output="numpy")
        batches = iter(loader)
        held = [next(batches) for _ in range(4)]
        loader.close()
        for use in (loader.warm_up, loader.__iter__, batches.__next__):
            with pytest.raises(mx8.LoaderError, match="closed"):
                use()
        loader.close()
        dataset.close()
        del loader, dataset
        assert [i for other in held for i in ids_of(other)] == list(range(4 * BATCH))
        assert all(batch["number"].flags.writeable for batch in held)
        del held, batches, use


def test_garbage_collected_loaders_leave_no_threads_files_or_memory(data: Path) -> None:
    def use(how: int) -> None:
        dataset = mx8.Dataset(data)
        loader = mx8.Loader(dataset, batch_size=BATCH, threads=2, memory="32mb", output="numpy")
        batches = iter(loader)
        ids_of(next(batches))
        if how % 3 == 0:
            loader.close()
        elif how % 3 == 1:
            list(batches)

    with time_limit():
        for how in range(3):
            use(how)
        gc.collect()
        files, memory = descriptors(), anonymous_bytes()
        for how in range(60):
            use(how)
        gc.collect()
        while threads():  # their last batches may still be in progress
            time.sleep(0.01)
    assert set(descriptors().values()) <= set(files.values())
    assert anonymous_bytes() - memory < 32 << 20


def test_a_loader_frees_its_threads_and_memory_without_the_cycle_collector(data: Path) -> None:
    with no_leaks(data):
        gc.disable()
        try:
            for _ in range(20):
                loader = mx8.Loader(mx8.Dataset(data), batch_size=BATCH, threads=2, output="numpy")
                batches = iter(loader)
                next(batches)
                del loader, batches
            while threads():
                time.sleep(0.01)
            assert not [path for path in descriptors().values() if path.startswith(str(data))]
        finally:
            gc.enable()


def test_several_loaders_may_open_the_shards_of_a_dataset_at_once(data: Path) -> None:
    with no_leaks(data):
        for _ in range(20):
            dataset = mx8.Dataset(data)
            loaders = [mx8.Loader(dataset, batch_size=BATCH, threads=1, output="numpy", io="mmap") for _ in range(3)]
            found: list[list[int]] = []
            users = [threading.Thread(target=lambda one=one, found=found: found.append(all_of(one))) for one in loaders]
            for user in users:
                user.start()
            for user in users:
                user.join()
            assert found == [list(range(SAMPLES))] * 3
            for loader in loaders:
                loader.close()
        dataset.close()
        del dataset, loaders, loader, users, user


def test_faults_in_one_loader_of_a_pool_do_not_affect_the_other(data: Path) -> None:
    with no_leaks(data):
        pool = mx8.Pool(memory="64mb", threads=2)
        dataset = mx8.Dataset(data)
        error = OnCommandError("on command")
        fault = Fault("fill", raising(error), frozenset([100]))
        faulty = mx8.Loader(
            dataset, batch_size=BATCH, decode={"blob": ChecksumDecoder(fault)}, pool=pool, output="numpy"
        )
        fine = mx8.Loader(dataset, batch_size=BATCH, pool=pool, output="numpy")
        for epoch in range(3):
            found = []
            faulty.set_epoch(epoch)  # otherwise it would repeat the failed step
            broken = iter(faulty)
            for good in fine:
                try:
                    assert ids_of(next(broken)) == ids_of(good)
                except mx8.LoaderError:
                    break
                found.append(ids_of(good))
            assert len(found) == 100 // BATCH
            assert all_of(fine) == list(range(SAMPLES))
        faulty.close()
        assert all_of(fine) == list(range(SAMPLES))
        fine.close()
        error.__traceback__ = error.__context__ = None
        pool.close()
        with pytest.raises(mx8.LoaderError, match="pool is closed"):
            next(iter(mx8.Loader(dataset, batch_size=BATCH, pool=pool, output="numpy")))
        dataset.close()
        del dataset, faulty, fine, pool, broken, good, fault, error


@pytest.mark.parametrize("where", ["next", "warm_up", "body"])
def test_ctrl_c_is_raised_at_once_and_the_loader_can_continue_or_end(
    child_process: ChildProcess, data: Path, where: str
) -> None:
    with time_limit():
        child_process.start("interrupted", data=str(data), where=where)
        assert child_process.read_line() == "transform"
        os.kill(child_process.pid, signal.SIGINT)
        said, status = child_process.read_rest()
    assert [line for line in said if line != "transform"] == ["interrupted", f"further {3 * BATCH}"]
    assert (status, child_process.errors) == (0, "")


@pytest.mark.parametrize(
    ("how", "status"), [("begun", 0), ("idly", 0), ("transform", 0), ("torch", 0), ("exit", 7), ("error", 1)]
)
def test_the_interpreter_exits_cleanly_with_an_open_loader(
    child_process: ChildProcess, data: Path, how: str, status: int
) -> None:
    with time_limit():
        child_process.start("left_open", data=str(data), how=how)
        assert child_process.read_rest() == ([], status)
    assert child_process.errors.strip().endswith("RuntimeError: on command" if how == "error" else "")
    assert how == "error" or not child_process.errors


class HardOfHearing:
    """The owner of a thread that misses the first request to end."""

    def __init__(self) -> None:
        self.asked, self.ended = 0, threading.Event()

    def stop(self) -> None:
        self.asked += 1
        if self.asked > 1:
            self.ended.set()


def test_a_thread_that_misses_a_request_to_end_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ending, "_known", ending._Known())
    owner = HardOfHearing()
    thread = ending.start_thread(owner, "waiting", owner.ended.wait)
    ending._end_all()
    assert not thread.is_alive()
    assert not caplog.messages


def test_children_forked_during_an_epoch_can_iterate_and_the_parent_continues(
    child_process: ChildProcess, data: Path
) -> None:
    with time_limit():
        child_process.start("forked", data=str(data), times=10)
        said, status = child_process.read_rest()
    assert said == ["forked 0"] * 10 + ["whole True"]
    assert (status, child_process.errors) == (0, "")


@pytest.mark.hunt
def test_children_forked_at_any_moment_can_iterate_and_the_parent_continues(
    child_process: ChildProcess, data: Path
) -> None:
    for _ in range(40):
        test_children_forked_during_an_epoch_can_iterate_and_the_parent_continues(child_process, data)
