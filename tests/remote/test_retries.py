"""When is an operation on a store tried again, when does it end, and does Ctrl-C end it?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mx8shards.errors import RemoteError
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.open_store import open_store
from mx8shards.remote.retries import attempt_s, until_deadline, upload_s
from tests.remote.deadlines import in_time
from tests.remote.fault_server import FaultServer

NEVER = threading.Event()
SHARD = os.urandom(2 << 20)


def test_a_transient_fault_is_tried_again_until_it_succeeds() -> None:
    faults = [RemoteError("one"), RemoteError("two")]

    def work(left_s: float) -> str:
        if faults:
            raise faults.pop()
        return "done"

    assert until_deadline(work, 30, NEVER) == "done"


@pytest.mark.parametrize("reason", ["denied", "missing", "changed"])
def test_another_fault_is_not_tried_again(reason: Any) -> None:
    tried = []

    def work(left_s: float) -> None:
        tried.append(left_s)
        raise RemoteError("no", reason=reason)

    with pytest.raises(RemoteError, match=r"^no$"):
        until_deadline(work, 30, NEVER)
    assert len(tried) == 1


class Busy(threading.Event):
    """A machine that is so busy that each pause takes a second longer."""

    def wait(self, timeout: float | None = None) -> bool:
        time.sleep((timeout or 0) + 1)
        return False


def test_an_attempt_after_a_pause_that_took_too_long_has_a_time_limit_above_zero() -> None:
    limits = []

    def work(left_s: float) -> None:
        limits.append(left_s)
        raise RemoteError("no answer")

    with pytest.raises(RemoteError, match=r"2 attempts in 0\.5 s"):
        until_deadline(work, 0.5, Busy())
    assert min(limits) > 0


def test_at_the_deadline_the_error_tells_how_often_it_was_tried() -> None:
    limits = []

    def work(left_s: float) -> None:
        limits.append(left_s)
        raise RemoteError("no answer", subject="s3://b/k")

    with pytest.raises(RemoteError, match=r"^s3://b/k: \d+ attempts in 0\.5 s: no answer$"):
        until_deadline(work, 0.5, NEVER)
    assert len(limits) >= 2
    assert max(limits) <= 0.5


def test_an_attempt_gets_half_of_the_time_that_is_left() -> None:
    assert [attempt_s(left) for left in (300, 10, 1.5, 0.5)] == [150, 5, 1, 0.5]


def test_a_closed_store_makes_no_further_attempt() -> None:
    stopped = threading.Event()

    def work(left_s: float) -> None:
        stopped.set()
        raise RemoteError("no answer")

    with pytest.raises(RemoteError, match="its store was closed"):
        until_deadline(work, 300, stopped)


def test_bytes_that_come_renew_the_deadline() -> None:
    came = 0

    def work(left_s: float) -> str:
        nonlocal came
        if came == 5 << 20:
            return "done"
        time.sleep(0.2)
        came += 1 << 20
        raise RemoteError("the connection broke")

    assert until_deadline(work, 0.5, NEVER, lambda: came) == "done"
    came = 0
    with pytest.raises(RemoteError, match="attempts"):
        until_deadline(work, 0.5, NEVER, lambda: came // 100)


def test_an_upload_gets_the_time_that_it_needs_on_a_slow_connection() -> None:
    assert [upload_s(size) for size in (0, 1000, 1 << 20, 64 << 20, 65 << 20)] == [0, 0, 8, 512, 640]


def test_an_upload_that_fails_at_once_gets_no_more_time() -> None:
    limits = []

    def work(left_s: float) -> None:
        limits.append(left_s)
        raise RemoteError("no connection")

    with pytest.raises(RemoteError, match=r"attempts in 0\.3 s"):
        raise in_time(lambda: until_deadline(work, 0.3, NEVER, more_s=3600))
    assert min(limits) > 3600


@pytest.mark.parametrize("options", [{"new": True}, {}], ids=str)
def test_an_outage_ends_an_upload_at_the_deadline(
    fault_server: FaultServer, tmp_path: Path, options: dict[str, Any]
) -> None:
    (tmp_path / "shard").write_bytes(bytes(20 << 20))  # which gets minutes if it is being sent
    fault_server.down = True
    store = ObjectStore("s3", "data", "", deadline_s=0.5, parallel=4)
    found = in_time(lambda: store.put("shard", tmp_path / "shard", **options))
    assert isinstance(found, RemoteError)
    assert found.reason == "network"


def test_an_upload_that_breaks_later_than_the_deadline_is_tried_again() -> None:
    limits = []

    def work(left_s: float) -> str:
        limits.append(left_s)
        if len(limits) == 1:
            time.sleep(2.2)
            raise RemoteError("the connection broke")
        return "done"

    assert until_deadline(work, 2, NEVER, more_s=3) == "done"
    assert limits[0] == pytest.approx(1 + 3, abs=0.01)


@pytest.mark.parametrize("engine", ["our own", "obstore"])
def test_a_shard_that_comes_slowly_is_no_outage(
    fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    data = 3 * SHARD
    fault_server.put("shard", data)
    store = ObjectStore("s3", "data", "", deadline_s=4, parallel=4)
    if engine == "obstore":
        monkeypatch.setattr(store, "_connections", None)
    fault_server.bytes_per_s = 1.4e6  # for longer than the deadline
    store.fetch("shard", tmp_path / "shard", len(data))
    assert (tmp_path / "shard").read_bytes() == data
    if engine == "our own":  # the other one cuts and continues attempts, and loses what is on its way
        assert fault_server.sent_bytes() == len(data)
    store.close()


@pytest.mark.parametrize("options", [{"new": True}, {}], ids=str)
def test_an_upload_that_goes_slowly_is_no_outage(
    fault_server: FaultServer, tmp_path: Path, options: dict[str, Any]
) -> None:
    (tmp_path / "shard").write_bytes(SHARD)
    fault_server.bytes_per_s = 7e5  # for longer than the deadline
    store = ObjectStore("s3", "data", "", deadline_s=2, parallel=4)
    store.put("shard", tmp_path / "shard", **options)
    assert fault_server.data("shard") == SHARD
    assert fault_server.counts("put") == {"shard": 1}


def test_a_conditional_upload_of_a_file_does_not_read_it_into_memory(fault_server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(4 * SHARD)
    (tmp_path / "empty").write_bytes(b"")
    store = ObjectStore("s3", "data", "", deadline_s=20, parallel=4)
    store.put("small", b"1", new=True)
    tracemalloc.start()
    etag = store.put("shard", tmp_path / "shard", new=True)
    store.put("empty", tmp_path / "empty", new=True)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fault_server.data("shard") == 4 * SHARD
    assert fault_server.data("empty") == b""
    assert etag == fault_server.current("shard").etag  # type: ignore[union-attr]
    assert most < len(SHARD) + 4 * len(SHARD) * 2  # the server's own copies


INTERRUPTED = """
import sys, threading, os, signal, time
from mx8shards.remote.open_store import open_store
store = open_store(sys.argv[1])
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
print("started", flush=True)
store.read("slow", 99)
"""


def test_ctrl_c_ends_an_operation_that_waits_for_an_answer(
    s3_environment: None, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # accepts connections, and answers none
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    command = [sys.executable, "-c", INTERRUPTED, "s3://bucket"]
    begin = time.monotonic()
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=False)
    server.server_close()
    assert time.monotonic() - begin < 20  # an attempt without an answer lasts for 30 s
    assert process.returncode == -signal.SIGINT, process.stderr
    assert process.stderr.rstrip().endswith("KeyboardInterrupt")


def test_closing_a_store_ends_its_operations_in_all_threads(fault_server: FaultServer, tmp_path: Path) -> None:
    for key in ("small", "large"):
        fault_server.put(key, SHARD)
    hang = fault_server.fail("hang", "read", "put", times=None)
    store = ObjectStore("s3", "data", "", deadline_s=300, parallel=4)
    failures: list[RemoteError] = []

    def run(work: Any, *arguments: Any, **options: Any) -> None:
        with pytest.raises(RemoteError, match="its store was closed") as caught:
            work(*arguments, **options)
        failures.append(caught.value)

    calls: list[Any] = [
        threading.Thread(target=run, args=(store.read, "small", len(SHARD))),
        threading.Thread(target=run, args=(store.fetch, "large", tmp_path / "large", len(SHARD))),
        threading.Thread(target=run, args=(store.put, "new", b"1"), kwargs={"new": True}),
    ]
    for call in calls:
        call.start()
    while hang.met < len(calls):
        time.sleep(0.01)
    store.close()
    for call in calls:
        call.join(15)  # an attempt without an answer lasts for 30 s
    assert len(failures) == len(calls)
    assert not (tmp_path / "large").exists()
    with pytest.raises(RemoteError, match="its store was closed"):
        store.read("small", len(SHARD))


def test_an_outage_is_named_at_the_deadline(s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(RemoteError, match=r"^s3://bucket/x: \d+ attempts in 1 s: no connection$") as caught:
        open_store("s3://bucket", deadline_s=1).read("x", 1)
    assert caught.value.reason == "network"
