"""Is a published snapshot whole, whatever another writer or gc does between any two requests of its writer?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.maintain import remote_gc
from mx8shards.remote import puts, reservations, upload_snapshot, writer_start
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.open_store import open_store
from mx8shards.remote.reservations import PREFIX, Process, Reservation
from mx8shards.shards.recovery import files_of
from tests.remote.deadlines import in_time
from tests.remote.fault_server import FaultServer
from tests.strategies import NUMBERED, numbered_samples


@pytest.fixture
def url(fault_server: FaultServer) -> str:
    return fault_server.url("set")


def begun(out: Any, count: int, mode: Any = "append") -> mx8.Writer:
    writer = mx8.Writer(out, columns=NUMBERED, size_limit=700, mode=mode)
    for sample in numbered_samples(count):
        writer.write(sample)
    return writer


def write(out: Any, count: int, mode: Any = "append") -> str:
    return begun(out, count, mode).finish()


def ids(url: str, local: Path) -> list[int]:
    with mx8.Dataset(f"{url}@refresh", local=local, deadline_s=5) as dataset:
        return [sample["id"] for sample in dataset]


def reserved(url: str) -> list[str]:
    return [each.key for each in open_store(url).list(PREFIX)]


def once_before_put(monkeypatch: pytest.MonkeyPatch, part: str, act: Callable[[], object]) -> None:
    """Call `act` before the next put of a key that contains `part`."""
    put, left = ObjectStore.put, [act]

    def putting(self: ObjectStore, key: str, source: Any, **options: Any) -> str:
        if part in key and left:
            left.pop()()
        return put(self, key, source, **options)

    monkeypatch.setattr(ObjectStore, "put", putting)


# who is dead ----------------------------------------------------------------------------------------------------------


def test_a_process_is_dead_only_if_the_kernel_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    running = replace(Process.this(), number=child.pid, started=reservations._started(child.pid))
    reused = replace(running, started="1")
    assert not running.has_ended
    assert reused.has_ended
    assert not replace(reused, machine="another").has_ended
    with monkeypatch.context() as hidden:
        hidden.setattr(reservations, "_started", lambda number: "")  # as /proc with hidepid=2 shows another user's
        assert not running.has_ended
        assert not replace(running, number=1).has_ended
    child.kill()
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert running.has_ended  # a zombie
    child.wait()
    assert running.has_ended


@pytest.mark.parametrize(
    "wrong", [{"sidecars": ["index.json"]}, {"directory": "../"}, {"process": {"machine": "", "number": 1 << 40}}]
)
def test_a_reservation_that_no_writer_made_is_refused(url: str, wrong: dict[str, Any]) -> None:
    write(url, 9, "create")
    values = json.loads(Reservation("", 0, None).to_bytes()) | wrong
    open_store(url).put(f"{PREFIX}root.json", json.dumps(values).encode())
    with pytest.raises(mx8.FormatError, match="not a writer's reservation"):
        write(url, 9)


@pytest.fixture
def all_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every writer takes the others for dead."""
    monkeypatch.setattr(Process, "has_ended", True)


@pytest.fixture
def long_dead(all_dead: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "LANDED_S", -1.0)


def test_a_writer_that_has_announced_its_snapshot_can_still_publish_it(
    url: str, tmp_path: Path, all_dead: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url, 20, "create")
    writer = begun(url, 9)
    once_before_put(monkeypatch, "index.json", lambda: begun(url, 3).abandon())
    writer.finish()
    assert ids(url, tmp_path) == [*range(20), *range(9)]
    write(url, 5)
    assert ids(url, tmp_path) == [*range(20), *range(9), *range(5)]
    assert reserved(url) == []


def test_leftovers_of_a_writer_that_can_no_longer_publish_are_removed_at_once(
    url: str, tmp_path: Path, all_dead: None, fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url, 20, "create")
    writer = begun(url, 9)
    once_before_put(monkeypatch, "index.json", lambda: write(url, 3))
    with pytest.raises(mx8.RemoteError, match="another writer was quicker"):
        writer.finish()
    write(url, 5)
    assert ids(url, tmp_path) == [*range(20), *range(3), *range(5)]
    named = {f"set/{name}" for name in files_of(mx8.Dataset(url, local=tmp_path).shards.snapshots[0].index)}
    assert {key for key in fault_server.objects if "/shard" in key} <= named
    assert mx8.verify(url, data=True).damage == ()
    assert reserved(url) == []


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ("writers/", "another process took this one for dead"),
        ("snapshots/", "nothing was published"),
        ("index.json", "was withdrawn"),
    ],
)
def test_a_writer_whose_shards_were_removed_does_not_publish_them(
    url: str, tmp_path: Path, long_dead: None, monkeypatch: pytest.MonkeyPatch, part: str, match: str
) -> None:
    write(url, 20, "create")
    writer = begun(url, 9)
    once_before_put(monkeypatch, part, lambda: begun(url, 3).abandon())
    with pytest.raises(mx8.RemoteError, match=match):
        writer.finish()
    assert ids(url, tmp_path) == list(range(20))
    last = write(url, 5)
    assert ids(url, tmp_path) == [*range(20), *range(5)]
    assert mx8.verify(f"{url}@{last}", data=True).damage == ()
    assert reserved(url) == []


def test_a_writer_that_was_taken_for_dead_removes_nothing_of_the_next_one(
    url: str, tmp_path: Path, all_dead: None
) -> None:
    write(url, 20, "create")
    writer = begun(url, 30)
    writer._publication._uploads.wait()  # type: ignore[union-attr]
    following = begun(url, 30)  # with the same names
    following._publication._uploads.wait()  # type: ignore[union-attr]
    with pytest.raises(mx8.RemoteError, match=r"writers/root.json: another process took this one for dead"):
        writer.finish()
    assert len(reserved(url)) == 1
    following.finish()
    assert ids(url, tmp_path) == [*range(20), *range(30)]
    assert reserved(url) == []


# a lost answer --------------------------------------------------------------------------------------------------------


def after_lost_answer(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """The answer to the next put of index.json is lost; `act` is called before another attempt."""
    send, left = puts.send, [act]

    def sending(client: Any, key: str, source: Any, mode: Any) -> str:
        found = send(client, key, source, mode)
        if key == "index.json" and left:
            left.pop()()
            raise OSError("the answer was lost")
        return found

    monkeypatch.setattr(puts, "send", sending)


def test_a_snapshot_whose_answer_was_lost_is_published_even_if_another_follows(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(url, 20, "create")
    writer = begun(url, 9)
    last: list[str] = []
    after_lost_answer(monkeypatch, lambda: last.extend([write(url, 3), write(url, 4)]))
    second = writer.finish()
    assert [entry.snapshot for entry in mx8.log(url)] == [*reversed(last), second, first]
    assert ids(url, tmp_path) == [*range(20), *range(9), *range(3), *range(4)]
    assert mx8.verify(url, data=True).damage == ()
    assert reserved(url) == []


def test_where_the_chain_of_snapshots_is_broken_nothing_is_removed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url, 20, "create")
    writer = begun(url, 9)

    def follow() -> None:
        kept = write(url, 3)
        write(url, 4)
        open_store(url).delete([f".mx8shards/snapshots/{kept.removeprefix('sha256:')}.json"])

    after_lost_answer(monkeypatch, follow)
    with pytest.raises(mx8.RemoteError, match="was published is unknown"):
        writer.finish()
    assert ids(url, tmp_path) == [*range(20), *range(9), *range(3), *range(4)]


# gc -------------------------------------------------------------------------------------------------------------------


def collect(url: str) -> Any:
    return mx8.gc(url, keep=1, older_than_days=0)


def with_leftovers(url: str, root: Path) -> str:
    """A local dataset, an earlier snapshot of it in the store, and the other shards, which no snapshot names."""
    write(root, 20, "create")
    mx8.sync(root, url)
    snapshot = write(root, 20)
    for path in root.glob("*.mds"):
        open_store(url).put(path.name, path)
    time.sleep(1.1)  # the store tells whole seconds
    return snapshot


def test_a_sync_that_begins_while_gc_runs_waits_for_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_start, "_GC_POLL_S", 0.02)
    snapshot = with_leftovers(url, tmp_path / "a")
    found: list[str] = []
    sync = threading.Thread(target=lambda: found.append(mx8.sync(tmp_path / "a", url)))
    history = remote_gc.remote_history

    def slow(*args: Any) -> Any:
        listed = history(*args)
        sync.start()
        sync.join(1)
        return listed

    monkeypatch.setattr(remote_gc, "remote_history", slow)
    assert len(collect(url).files) > 1
    in_time(sync.join)
    assert found == [snapshot]
    assert ids(url, tmp_path / "m") == [*range(20), *range(20)]
    assert reserved(url) == []


def test_a_sync_sends_again_what_gc_has_removed_since_it_looked(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_leftovers(url, tmp_path / "a")
    reserve = upload_snapshot._reserve

    def late(*args: Any) -> Any:
        monkeypatch.setattr(upload_snapshot, "_reserve", reserve)
        assert len(collect(url).files) > 1
        return reserve(*args)

    monkeypatch.setattr(upload_snapshot, "_reserve", late)
    mx8.sync(tmp_path / "a", url)
    assert ids(url, tmp_path / "m") == [*range(20), *range(20)]


def test_a_writer_that_begins_while_gc_runs_gives_up_after_a_time(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url, 20, "create")
    held = reservations.take(open_store(url), Reservation("gc/", 0, None, kind="gc"))
    assert held is not None
    monkeypatch.setattr(writer_start, "_GC_S", 0.0)
    for begin in (lambda: write(url, 3), lambda: collect(url)):
        with pytest.raises(mx8.RemoteError, match="gc"):
            begin()
    monkeypatch.setattr(reservations, "GC_LEASE_S", -1.0)  # it was killed
    write(url, 3)
    collect(url)
    assert ids(url, tmp_path) == [*range(20), *range(3)]
    assert reserved(url) == []


def test_gc_leaves_the_side_cars_that_a_writer_may_need(url: str, fault_server: FaultServer, tmp_path: Path) -> None:
    write(url, 20, "create")
    sidecar = f".mx8shards/sidecars/{'0' * 64}"
    open_store(url).put(sidecar, b"left")
    time.sleep(1.1)
    writer = begun(url, 3)
    assert collect(url).files == ()
    writer.finish()
    assert sidecar in collect(url).files
    assert ids(url, tmp_path) == [*range(20), *range(3)]
