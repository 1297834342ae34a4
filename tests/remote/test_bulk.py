"""Are large objects fetched by one s5cmd child, and does nothing of it stay behind?"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mx8shards.errors import RemoteError
from mx8shards.remote.bulk import find_s5cmd
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.open_store import open_store
from mx8shards.remote.store import Store
from tests.remote.conftest import SECRET, S3Server
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(find_s5cmd() is None, reason="s5cmd is not installed"),
    pytest.mark.usefixtures("with_s5cmd"),
]

MIB = 1 << 20


@pytest.fixture
def store(bucket: str) -> Iterator[ObjectStore]:
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    store = ObjectStore("s3", name, prefix, deadline_s=20, parallel=8)
    yield store
    store.close()


def children() -> list[int]:
    """The process ids of the running s5cmd children of this process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            command = (path.parent / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if int(parent) == os.getpid() and state != "Z" and b"s5cmd" in command:
            found.append(int(path.parent.name))
    return found


def test_many_large_objects_are_fetched_by_one_child(store: ObjectStore, s3_server: S3Server, tmp_path: Path) -> None:
    keys = [f"shard {number}*'\"$(x)%41+é#.mds" for number in range(12)]
    datas = {key: os.urandom(MIB + number) for number, key in enumerate(keys)}
    for key in keys:
        store.put(key, datas[key])
    before = s3_server.count("GET")
    threads = [threading.Thread(target=store.fetch, args=(key, tmp_path / key, len(datas[key]))) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == datas
    assert s3_server.count("GET") - before == len(keys)
    assert len(children()) == 1
    store.close()
    assert children() == []


def test_the_umask_decides_the_mode_of_what_is_fetched(store: ObjectStore, tmp_path: Path) -> None:
    store.put("shard", bytes(MIB))
    before = os.umask(0o027)
    try:
        store.fetch("shard", tmp_path / "shard", MIB)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shard").stat().st_mode) == 0o640


def test_what_the_child_cannot_fetch_leaves_no_file_and_is_named(store: ObjectStore, tmp_path: Path) -> None:
    store.put("shard", bytes(MIB + 1))
    for key, size in (("none", MIB), ("shard", MIB)):
        with pytest.raises(RemoteError, match=f"data/{key}: ") as caught:
            store.fetch(key, tmp_path / "file", size)
        assert caught.value.reason == {"none": "missing", "shard": "changed"}[key]
        assert list(tmp_path.iterdir()) == []


def test_what_fails_only_in_s5cmd_pauses_it_and_is_told_at_length(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bulk = store._bulk
    assert bulk is not None
    store.put("shard", bytes(MIB))
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "_program", Path("/no/such/program"))
        for number in range(10):
            assert not bulk.is_paused
            store.fetch("shard", tmp_path / f"{number}", MIB)
            assert bulk.is_paused
            bulk._paused_until = 0
    assert "s5cmd fails repeatedly" in caplog.text
    with pytest.raises(RemoteError):
        store.fetch("none", tmp_path / "none", MIB)
    assert not bulk.is_paused


def test_waiting_for_other_transfers_is_no_failure_of_the_child(bucket: str, tmp_path: Path) -> None:
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    store = ObjectStore("s3", name, prefix, deadline_s=2, parallel=1)
    bulk = store._bulk
    assert bulk is not None
    store.put("shard", bytes(MIB))
    with bulk._room:  # as if another transfer took all the time
        store.fetch("shard", tmp_path / "shard", MIB)
    assert (tmp_path / "shard").read_bytes() == bytes(MIB)
    assert not bulk.is_paused
    store.close()


def test_a_killed_child_is_replaced(store: ObjectStore, tmp_path: Path) -> None:
    store.put("shard", bytes(MIB))
    store.fetch("shard", tmp_path / "1", MIB)
    (first,) = children()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: children() == [])
    store.fetch("shard", tmp_path / "2", MIB)
    wait_until(lambda: store.fetch("shard", tmp_path / f"{time.monotonic()}", MIB) or children())
    assert first not in children()


def test_new_credentials_mean_a_new_child(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("shard", bytes(MIB))
    store.fetch("shard", tmp_path / "1", MIB)
    (first,) = children()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert store._access is not None
    assert store._access.renew(store._access.keys())
    store.fetch("shard", tmp_path / "2", MIB)
    (second,) = children()
    assert second != first
    assert b"AWS_SECRET_ACCESS_KEY=another\0" in Path(f"/proc/{second}/environ").read_bytes()


def test_the_command_line_shows_no_secret_and_the_child_sees_only_our_settings(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "some-profile")
    store.put("shard", bytes(MIB))
    store.fetch("shard", tmp_path / "1", MIB)
    (child,) = children()
    assert SECRET.encode() not in Path(f"/proc/{child}/cmdline").read_bytes()
    assert b"some-profile" not in Path(f"/proc/{child}/environ").read_bytes()


def test_the_child_ends_with_a_store_that_is_dropped(bucket: str, tmp_path: Path) -> None:
    store: Store | None = open_store(bucket)
    assert store is not None
    store.put("shard", bytes(MIB))
    store.fetch("shard", tmp_path / "1", MIB)
    assert len(children()) == 1
    del store
    assert children() == []


SCRIPT = """
import os, sys, time
from pathlib import Path
from mx8shards.remote import object_store
from mx8shards.remote.open_store import open_store
object_store._is_for_s5cmd = lambda access: True
store = open_store(sys.argv[1])
store.fetch("shard", Path(sys.argv[2]), 1 << 20)
child, = [p.name for p in Path("/proc").glob("[0-9]*")
          if (p / "cmdline").exists() and b"s5cmd" in (p / "cmdline").read_bytes()
          and (p / "stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())]
if sys.argv[3] == "fork" and os.fork() == 0:
    time.sleep(60)  # holds the pipe to s5cmd open
print(child, flush=True)
if sys.argv[3] != "exit":
    time.sleep(60)
"""


@pytest.mark.parametrize("end", ["exit", "kill", "fork"])
def test_the_child_ends_with_its_parent(store: ObjectStore, tmp_path: Path, repository: Path, end: str) -> None:
    store.put("shard", bytes(MIB))
    command = [sys.executable, "-c", SCRIPT, store.url, str(tmp_path / "file"), end]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if end != "exit":
            parent.kill()
        try:
            wait_until(
                lambda: not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes()
            )
        finally:
            if end == "fork":
                os.killpg(parent.pid, signal.SIGKILL)
