"""Do stores work in forked processes, where the client of the parent would wait for ever?"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mx8shards.errors import RemoteError
from mx8shards.remote import store_process, store_serving
from mx8shards.remote.fork_safe import ForkSafe
from mx8shards.remote.open_store import open_store
from tests.forked import in_fork
from tests.remote.deadlines import in_time
from tests.remote.fault_server import Fault, FaultServer
from tests.remote.helper_processes import helpers
from tests.waiting import has_ended, wait_until

MIB = 1 << 20


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
    store = ForkSafe(OddStore())  # type: ignore[arg-type]

    def work() -> list[Any]:
        keys = ("leaves", "arrives", "answer", "right")  # the helper goes on after each
        return [str(in_time(lambda key=key: store.read(key, 9))) for key in keys]

    failed = [f"the helper process failed: {name}" for name in ("NeverLeavesError", "NeverArrivesError", "TypeError")]
    assert in_fork(work) == [*failed, "right"]


def test_a_killed_helper_is_replaced(bucket: str) -> None:
    store = open_store(bucket)
    store.put("shard", b"12345")

    def work() -> Any:
        store.read("shard", 9)
        (helper,) = helpers()
        os.kill(helper, signal.SIGKILL)
        wait_until(lambda: has_ended(helper))
        return store.read("shard", 9).data, helpers() != [helper]

    assert in_fork(work) == (b"12345", True)


def test_forked_processes_share_one_helper_for_all_stores(bucket: str) -> None:
    stores = [open_store(f"{bucket}/{i}") for i in range(12)]
    for i, store in enumerate(stores):
        store.put("shard", b"%d" % i)

    def work() -> Any:
        with ThreadPoolExecutor(4) as threads:
            read = list(threads.map(lambda store: store.read("shard", 9).data, stores))
        return read, helpers()

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(in_fork, [work] * 2)
    assert first == second
    assert first[0] == [b"%d" % i for i in range(12)]
    assert len(first[1]) == 1


def test_a_closed_store_ends_the_wait_in_a_forked_process_for_no_other_store(fault_server: FaultServer) -> None:
    fault_server.put("slow/shard", b"12345")
    fault_server.put("quick/shard", b"12345")
    slow, quick = open_store(fault_server.url("slow")), open_store(fault_server.url("quick"))
    fault_server.faults.append(Fault("hang", ("read",), "slow/.*"))

    def work() -> Any:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(slow.read, "shard", 9)
            found = quick.read("shard", 9).data
            while not waiting.done():  # it may not have been asked yet
                slow.close()
                time.sleep(0.01)
            return found, waiting.exception(), quick.read("shard", 9).data

    found, error, again = in_fork(work)
    assert found == again == b"12345"
    assert isinstance(error, RemoteError)
    assert "closed" in str(error)


@pytest.mark.parametrize("way", ["returns", "is killed"])
def test_the_helper_ends_with_the_processes_that_share_it(bucket: str, way: str) -> None:
    store = open_store(bucket)
    store.put("shard", b"12345")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        store_process._here.meeting = None  # that of the tests, whose process goes on
        store.read("shard", 9)
        os.write(writing, str(helpers()[0]).encode())
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


_PR_SET_CHILD_SUBREAPER = 36


def test_a_helper_whose_parents_have_ended_is_reaped_by_the_process_that_inherits_it(bucket: str) -> None:
    """As process 1 of a container inherits it."""
    store = open_store(bucket)
    store.put("shard", b"12345")

    def inherit() -> bool:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        store_process._here.meeting = None  # that of the tests
        were_zombies = True
        for _ in range(2):
            reading, writing = os.pipe()
            worker = os.fork()
            if worker == 0:
                store.read("shard", 9)
                os.write(writing, str(helpers()[0]).encode())
                os._exit(0)
            helper = int(os.read(reading, 20))
            os.waitpid(worker, 0)
            os.kill(helper, signal.SIGKILL)
            place = Path(f"/proc/{helper}")
            wait_until(lambda helper=helper: has_ended(helper))
            were_zombies = were_zombies and place.exists()
            while place.exists():
                store_process.prepare()  # as before each fork
        return were_zombies

    assert in_fork(inherit) is True


def test_variables_that_no_store_reads_change_nothing_in_the_helper(
    fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        fault_server.put(f"shard-{number}", b"12345")
    store = open_store(fault_server.url())

    def work() -> None:
        store.fetch(f"shard-{os.environ['LOCAL_RANK']}", tmp_path / os.environ["LOCAL_RANK"], 5)

    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        in_fork(work)
    assert fault_server.connections == 1  # of one store
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    in_fork(work)
    assert fault_server.connections == 2
    assert [(tmp_path / str(number)).read_bytes() for number in range(3)] == [b"12345"] * 3


def test_a_helper_without_connections_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_serving, "_IDLE_S", 0.0)
    connections = store_serving._Connections()
    mine, theirs = socket.socketpair()
    with mine:
        connections.take(theirs.detach())
        assert mine.recv(1) == b"!"
        assert not connections.are_idle
    wait_until(lambda: connections.are_idle)
