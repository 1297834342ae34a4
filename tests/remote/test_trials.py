"""Is the object of a trial of a store removed, whatever ends the trial?"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

import mx8shards as mx8
from mx8shards.errors import RemoteError
from mx8shards.remote.conditions import honours_conditions
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.trials import PREFIX
from tests.remote.deadlines import in_time
from tests.remote.fault_server import BUCKET, FaultServer, Operation
from tests.waiting import wait_until

pytest.importorskip("obstore")
pytest.importorskip("boto3")


def conditions(store: ObjectStore) -> object:
    return honours_conditions(store)


def parts(store: ObjectStore) -> object:
    in_parts = store._in_parts
    assert in_parts is not None

    def run(request: Callable[[], object], sent_bytes: int) -> object:
        return store._run("", lambda _: request(), upload_bytes=sent_bytes)

    return in_parts._tried(store, in_parts._client(), run)


def left(server: FaultServer) -> list[str]:
    return [key for key in server.objects if PREFIX in key]


@pytest.mark.parametrize(
    ("trial", "operation", "skip"), [(conditions, "put", 1), (conditions, "put", 2), (parts, "complete", 0)]
)
def test_a_trial_whose_store_is_closed_leaves_no_object(
    trial: Callable[[ObjectStore], object], operation: Operation, skip: int, fault_server: FaultServer
) -> None:
    """As after Ctrl-C: another thread closes the store."""
    hang = fault_server.fail("hang", operation, times=None, skip=skip)
    store = ObjectStore("s3", BUCKET, "set", deadline_s=600, parallel=4)
    with ThreadPoolExecutor(1) as threads:
        trying = threads.submit(trial, store)
        wait_until(lambda: hang.met > skip)
        assert left(fault_server) != []
        store.close()
        error = in_time(trying.result)
    assert isinstance(error, RemoteError)
    assert left(fault_server) == []


def test_a_trial_ends_although_its_object_cannot_be_removed(fault_server: FaultServer) -> None:
    hang = fault_server.fail("hang", "put", "delete", times=None, skip=1)
    store = ObjectStore("s3", BUCKET, "set", deadline_s=600, parallel=4)
    with ThreadPoolExecutor(1) as threads:
        trying = threads.submit(honours_conditions, store)
        wait_until(lambda: hang.met > 1)
        store.close()
        assert isinstance(in_time(trying.result), RemoteError)
    fault_server.heal()


def put_left(server: FaultServer) -> None:
    """Put what two trials left: one a moment ago, one two hours ago."""
    for name in ("old", "new"):
        server.put(f"set/{PREFIX}{name}", b"trial")
    old = server.objects[f"set/{PREFIX}old"]
    old[-1] = replace(old[-1], modified_s=old[-1].modified_s - 2 * 3600)


@pytest.mark.parametrize("by", ["a writer", "gc"])
def test_what_a_killed_trial_left_is_removed_when_it_is_old(by: str, fault_server: FaultServer) -> None:
    url = fault_server.url("set")
    with mx8.Writer(url, columns={"x": "int"}) as writer:
        writer.write({"x": 1})
    put_left(fault_server)
    if by == "gc":
        mx8.gc(url)
    else:
        with mx8.Writer(url, columns={"x": "int"}, mode="append"):
            pass
    assert left(fault_server) == [f"set/{PREFIX}new"]


def test_a_writer_starts_although_it_may_not_remove_what_a_killed_trial_left(fault_server: FaultServer) -> None:
    url = fault_server.url("set")
    put_left(fault_server)
    denied = fault_server.fail(403, "delete", times=None, skip=1)  # its own trial, which comes first, is removed
    with mx8.Writer(url, columns={"x": "int"}) as writer:
        assert denied.met > 1
        writer.write({"x": 1})
    assert left(fault_server) == [f"set/{PREFIX}old", f"set/{PREFIX}new"]
    assert "set/index.json" in fault_server.objects
