"""Are per-thread resources of a stage opened once and closed once: with the thread, the stage or the loader?"""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.loading.execution.thread_resources import Resource, ThreadResources
from mx8shards.stages import DecoderContext, Output, Stage, Work


class Opened:
    """A resource that records its thread and how often it was closed."""

    def __init__(self, log: list[Opened]) -> None:
        self.thread = get_ident()
        self.closed = 0
        log.append(self)

    def close(self) -> None:
        self.closed += 1


class Lengths(Stage):
    """A stage of payload lengths with a resource per thread."""

    opens_thread = True

    def __init__(self, context: DecoderContext, log: list[Opened]) -> None:
        self.columns = (context.column,)
        self.outputs = {context.column: Output(np.dtype(np.int64), ())}
        self._output = self.outputs[context.column]
        self._context = context
        self._log = log

    def open_thread(self) -> Opened:
        return Opened(self._log)

    def fill(self, work: Work, start: int, stop: int, resource: Opened) -> None:
        assert resource.thread == get_ident()
        assert not resource.closed
        lengths = work.array(self._context.column, self._output)
        lengths[start:stop] = work.spans["size"][start:stop, self._context.number]


class CountBytes:
    """A decoder with such a stage."""

    def __init__(self) -> None:
        self.opened: list[Opened] = []

    def stage(self, context: DecoderContext) -> Stage:
        return Lengths(context, self.opened)


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    with mx8.Writer(tmp_path / "data", columns={"text": "bytes"}) as writer:
        for i in range(64):
            writer.write({"text": b"a" * i})
    return mx8.Dataset(tmp_path / "data")


def load(dataset: Any, decoder: CountBytes, pool: Any = None) -> Any:
    loader = mx8.Loader(dataset, batch_size=8, decode={"text": decoder}, pool=pool, **({} if pool else {"threads": 3}))
    assert [n for batch in loader for n in batch["text"].tolist()] == list(range(64))
    return loader


def test_each_thread_opens_one_resource_and_closing_the_loader_closes_all(dataset: Any) -> None:
    decoder = CountBytes()
    loader = load(dataset, decoder)
    assert [n for batch in loader for n in batch["text"].tolist()] == list(range(64))
    assert 1 <= len(decoder.opened) == len({one.thread for one in decoder.opened}) <= 3
    assert not any(one.closed for one in decoder.opened)
    loader.close()
    assert all(one.closed == 1 for one in decoder.opened)


def test_in_a_shared_pool_closing_a_loader_closes_its_own_resources(dataset: Any) -> None:
    pool = mx8.Pool(threads=2, memory="64mb")
    first, second = CountBytes(), CountBytes()
    loaders = [load(dataset, decoder, pool) for decoder in (first, second)]
    loaders[0].close()
    assert all(one.closed == 1 for one in first.opened)
    assert not any(one.closed for one in second.opened)
    pool.close()
    assert all(one.closed == 1 for one in first.opened + second.opened)


def test_in_a_shared_pool_a_garbage_collected_loader_leaves_no_resource_open(dataset: Any) -> None:
    pool = mx8.Pool(threads=2, memory="64mb")
    decoder = CountBytes()
    loader = load(dataset, decoder, pool)
    del loader
    gc.collect()
    assert all(one.closed == 1 for one in decoder.opened)
    pool.close()
    assert all(one.closed == 1 for one in decoder.opened)


def test_a_resource_in_use_is_closed_after_its_use() -> None:
    resources, log = ThreadResources(), list[Opened]()
    used, go_on = Event(), Event()

    class Some(Stage):
        def open_thread(self) -> Opened:
            return Opened(log)

    stage = Some()

    def use() -> None:
        with resources.of(stage) as mine:
            used.set()
            go_on.wait(60)
            assert not mine.closed
        resources.end_thread()

    thread = Thread(target=use)
    thread.start()
    used.wait(60)
    resources.end_stages([stage])
    assert log[0].closed == 0
    go_on.set()
    thread.join()
    assert [one.closed for one in log] == [1]


def test_a_forked_child_does_not_wait_for_a_lock_that_a_thread_of_its_parent_holds() -> None:
    log = list[Opened]()
    resource = Resource(Opened(log))
    locked, go_on = Event(), Event()

    def use() -> None:
        with resource._lock:
            locked.set()
            go_on.wait(60)

    thread = Thread(target=use)
    thread.start()
    locked.wait(60)
    pid = os.fork()
    if not pid:
        resource.close()  # as closing its stage does
        os._exit(log[0].closed)
    deadline = time.monotonic() + 30
    while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    go_on.set()
    thread.join()
    assert ended == (pid, 0)
