"""Does an object that somebody waits for come in parallel ranges, all of one version of it?"""

from __future__ import annotations

import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.errors import RemoteError
from mx8shards.remote.open_store import open_store
from mx8shards.remote.parallel_ranges import MOST_RANGES, RANGE_BYTES, Part, fetch_in_ranges
from tests.remote.deadlines import in_time
from tests.remote.fault_server import FaultServer, Kind
from tests.waiting import wait_until

pytest.importorskip("obstore")

DATA = random.Random(17).randbytes(2 * RANGE_BYTES + 1000)
SPANS = ["bytes=0-8388607", "bytes=8388608-16777215", "bytes=16777216-16778215"]


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    fault_server.put("shard", DATA)
    return fault_server


def fetched(server: FaultServer, tmp_path: Path, deadline_s: float = 20.0) -> bytes:
    store = open_store(server.url(), deadline_s=deadline_s)
    store.fetch("shard", tmp_path / "shard", len(DATA), in_ranges=True)
    store.close()
    return (tmp_path / "shard").read_bytes()


def test_all_other_ranges_are_asked_for_when_the_first_answer_begins(server: FaultServer, tmp_path: Path) -> None:
    hang = server.fail("hang", "read", skip=1, times=None, place="first")
    first = server.fail("drip", "read", times=1, place="middle")
    found: list[bytes] = []
    fetch = threading.Thread(target=lambda: found.append(fetched(server, tmp_path)))
    fetch.start()
    wait_until(lambda: hang.met == 3)  # no answer has ended
    server.faults.clear()
    fetch.join()
    assert first.met > 0
    assert found == [DATA]
    assert [request.span for request in server.requests[:1]] == SPANS[:1]
    assert {request.span for request in server.requests} >= {*SPANS}
    etag = server.current("shard").etag  # type: ignore[union-attr]
    assert {request.if_match for request in server.requests[1:]} == {etag}


@pytest.mark.parametrize("kind", [503, "reset", "cut", "long"])
def test_a_broken_range_is_continued_or_the_whole_object_comes(kind: Kind, server: FaultServer, tmp_path: Path) -> None:
    fault = server.fail(kind, "read", skip=1, times=1)
    assert fetched(server, tmp_path) == DATA
    assert fault.met > 1


def test_a_range_that_waits_makes_progress_with_the_object(tmp_path: Path) -> None:
    """On a slow connection, ranges get little each: only an object that brings nothing is an outage."""
    arrived = []

    def read(part: Part) -> None:
        begin, end = part.missing
        part.answered("etag")
        part.write(memoryview(DATA)[begin:end])
        arrived.append(part.arrived)

    fetch_in_ranges(read, tmp_path / "shard", len(DATA))
    assert max(arrived) == len(DATA)


def test_ranges_of_two_versions_are_never_put_together(server: FaultServer, tmp_path: Path) -> None:
    server.fail("replaced", "read", times=1)
    found = in_time(lambda: fetched(server, tmp_path, deadline_s=60))
    assert found == bytes(byte ^ 255 for byte in DATA)


@pytest.mark.parametrize(("kind", "reason"), [(404, "missing"), (403, "denied"), ("reset", "network")])
def test_a_lasting_fault_is_one_error_and_leaves_no_file(
    kind: Kind, reason: str, server: FaultServer, tmp_path: Path
) -> None:
    server.fail(kind, "read", times=None)
    with pytest.raises(RemoteError) as caught:
        fetched(server, tmp_path, deadline_s=0.5)
    assert caught.value.reason == reason
    assert list(tmp_path.iterdir()) == []


def test_a_failed_range_ends_the_others_which_ask_for_nothing_more(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mx8shards")
    missing = server.fail(404, "read", skip=2)
    server.fail("hang", "read", skip=1, times=None, place="first")
    found: list[bytes] = []
    fetch = threading.Thread(target=lambda: found.append(fetched(server, tmp_path, deadline_s=4.0)))
    fetch.start()
    wait_until(lambda: missing.met == 4)  # the whole object is asked for
    server.faults.clear()
    fetch.join()
    wait_until(lambda: not ranges_under_way())
    assert found == [DATA]
    assert len([request for request in server.requests if request.span]) == 3
    assert "comes in one piece, as a range of it failed" in caplog.text


def ranges_under_way() -> int:
    """The number of threads that fetch ranges."""
    return sum(thread.name == "mx8shards-range" for thread in threading.enumerate())


def test_a_process_asks_for_a_bounded_number_of_ranges_of_all_its_objects(tmp_path: Path) -> None:
    go, lock = threading.Event(), threading.Lock()
    now = most = 0

    def read(part: Part) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        part.answered("etag")
        go.wait(60)
        with lock:
            now -= 1

    objects = [tmp_path / f"{number}" for number in range(MOST_RANGES)]
    with ThreadPoolExecutor(len(objects)) as threads:
        ended = [threads.submit(fetch_in_ranges, read, path, len(DATA)) for path in objects]
        wait_until(lambda: now == MOST_RANGES)
        assert ranges_under_way() == MOST_RANGES
        go.set()
        for each in ended:
            each.result()
    assert most == MOST_RANGES
    wait_until(lambda: not ranges_under_way())


def test_closing_the_store_ends_a_fetch_in_ranges(server: FaultServer, tmp_path: Path) -> None:
    hang = server.fail("hang", "read", times=None, place="first")
    store = open_store(server.url(), deadline_s=300.0)
    found: list[Any] = []
    fetch = threading.Thread(
        target=lambda: found.append(
            in_time(lambda: store.fetch("shard", tmp_path / "shard", len(DATA), in_ranges=True))
        )
    )
    fetch.start()
    wait_until(lambda: hang.met == 3)
    store.close()
    fetch.join()
    assert isinstance(found[0], RemoteError)
    wait_until(lambda: not ranges_under_way())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def url(fault_server: FaultServer, tmp_path: Path) -> str:
    """A dataset of three shards, each of two ranges."""
    blob = DATA[: 1 << 20]
    with mx8.Writer(tmp_path / "written", columns={"blob": "bytes"}, size_limit="10mb", hashes=("xxh128",)) as writer:
        for _ in range(27):
            writer.write({"blob": blob})
    for path in (*(tmp_path / "written").glob("*.mds"), tmp_path / "written/index.json"):
        fault_server.put(f"set/{path.name}", path.read_bytes())
    return fault_server.url("set")


def test_only_the_first_shards_of_a_job_come_in_ranges(url: str, fault_server: FaultServer, tmp_path: Path) -> None:
    with mx8.Dataset(url, local=tmp_path / "cache") as dataset:
        assert [len(sample["blob"]) for sample in dataset] == [1 << 20] * 27
    asked = [(request.key, bool(request.span)) for request in fault_server.requests]
    first, *others = (f"set/shard.0000{number}.mds" for number in range(3))
    assert asked == [("set/index.json", False), (first, True), (first, True), *((name, False) for name in others)]


def test_only_shards_that_the_first_batch_of_a_loader_needs_come_in_ranges(
    url: str, fault_server: FaultServer, tmp_path: Path
) -> None:
    fault_server.delay_s = 0.2  # the others are asked for before the first one is here
    with (
        mx8.Dataset(url, local=tmp_path / "cache") as dataset,
        mx8.Loader(dataset, batch_size=9, output="numpy", threads=1) as loader,
    ):
        assert sum(len(batch["blob"]) for batch in loader) == 27
    assert {request.key for request in fault_server.requests if request.span} == {"set/shard.00000.mds"}
    others = [request.key for request in fault_server.requests if "shard." not in request.key]
    assert others == ["set/index.json"]  # so three answers are waited for: the index, a first range, the other ranges
