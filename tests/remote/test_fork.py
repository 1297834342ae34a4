"""Do stores work in forked processes, where the client of the parent would wait for ever?"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mx8shards.errors import RemoteError
from mx8shards.remote.open_store import open_store
from mx8shards.remote.store_process import StoreProcess
from tests.remote.deadlines import in_time
from tests.waiting import has_ended, wait_until

MIB = 1 << 20


def in_fork(work: Callable[[], Any]) -> Any:
    """The result of a function in a forked process, or the exception that it raised."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def run() -> None:
        try:
            there.send(work())
        except Exception as error:  # noqa: BLE001 — the test looks at it
            there.send(error)

    process = context.Process(target=run, daemon=True)  # as DataLoader's workers are
    process.start()
    try:
        assert here.poll(60), "the forked process does not answer"
        return here.recv()
    finally:
        process.kill()
        process.join()


def test_a_forked_process_uses_the_store_of_its_parent(bucket: str, tmp_path: Path) -> None:
    store = open_store(bucket)
    data = os.urandom(2 * MIB)
    etag = store.put("shard", data)
    store.fetch("shard", tmp_path / "parent", len(data))

    def work() -> Any:
        store.fetch("shard", tmp_path / "child", len(data))
        store.put("other", b"x", new=True)
        spans = store.read_spans("shard", [(5, 9), (0, 2)], etag)
        listed = [found.key for found in store.list()]
        store.delete(["other"])
        return (
            spans,
            listed,
            store.head("other"),
            store.read("shard", len(data)).data == data,
            store.can_put_conditionally,
        )

    assert in_fork(work) == ([data[5:9], data[0:2]], ["other", "shard"], None, True, True)
    assert (tmp_path / "child").read_bytes() == data


def test_a_forked_process_opens_a_store_of_its_own(bucket: str) -> None:
    open_store(bucket).put("shard", b"12345")
    assert in_fork(lambda: open_store(bucket).read("shard", 9).data) == b"12345"


def test_errors_in_a_forked_process_are_those_of_the_store(bucket: str) -> None:
    store = open_store(bucket)
    store.put("shard", b"12345")
    error = in_fork(lambda: store.read("none", 9))
    assert isinstance(error, RemoteError)
    assert error.reason == "missing"
    assert "data/none: the store answered 404" in str(error)


class NeverLeavesError(Exception):
    """It cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("never")


class NeverArrivesError(Exception):
    """It can be pickled, but not loaded again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)


class OddStore:
    """A store whose errors and answers cannot be sent to another process."""

    url = address = "s3://odd"

    def read(self, key: str, most: int) -> Any:
        if key == "leaves":
            raise NeverLeavesError
        if key == "arrives":
            raise NeverArrivesError(1, 2)
        return threading.Lock() if key == "answer" else key


def test_what_cannot_be_sent_between_processes_is_an_error_and_not_a_hang() -> None:
    process = StoreProcess(OddStore())  # type: ignore[arg-type]
    for key, name in (("leaves", "NeverLeavesError"), ("arrives", "NeverArrivesError"), ("answer", "TypeError")):
        found = in_time(lambda key=key: process.read(key, 9))
        assert isinstance(found, RemoteError)
        assert str(found) == f"the helper process failed: {name}"
    assert in_time(lambda: process.read("right", 9)) == "right"  # the helper goes on
    process.close()


def helpers(of: int) -> list[int]:
    """The processes whose parent is `of` and which run store_process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == of and b"store_process" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_a_killed_helper_is_replaced(bucket: str) -> None:
    store = open_store(bucket)
    store.put("shard", b"12345")

    def work() -> Any:
        store.read("shard", 9)
        (helper,) = helpers(os.getpid())
        os.kill(helper, signal.SIGKILL)
        while helpers(os.getpid()) == [helper]:
            time.sleep(0.01)
        return store.read("shard", 9).data

    assert in_fork(work) == b"12345"


@pytest.mark.parametrize("way", ["returns", "is killed"])
def test_the_helper_ends_with_the_forked_process(bucket: str, way: str) -> None:
    store = open_store(bucket)
    store.put("shard", b"12345")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        store.read("shard", 9)
        os.write(writing, str(helpers(os.getpid())[0]).encode())
        if way == "is killed":
            time.sleep(60)
        os._exit(0)
    helper = int(os.read(reading, 20))
    os.close(reading)
    os.close(writing)
    if way == "is killed":
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_until(lambda: has_ended(helper))
