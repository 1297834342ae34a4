"""Does sync bring whole snapshots from a store to a directory and back, and nothing else?"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.open_store import open_store
from mx8shards.shards.snapshots import MIRROR
from tests.remote.conftest import S3Server
from tests.remote.fault_server import FaultServer
from tests.remote.killed_writer import KilledWriters
from tests.remote.objects import files, objects
from tests.strategies import NUMBERED, numbered_samples


def write(out: Any, count: int = 30, **options: Any) -> str:
    with mx8.Writer(out, **{"columns": NUMBERED, "size_limit": 700, **options}) as writer:
        for sample in numbered_samples(count):
            writer.write(sample)
    assert writer.snapshot is not None
    return writer.snapshot


def ids(link: Any, **options: Any) -> list[int]:
    return [sample["id"] for sample in mx8.Dataset(link, **options)]


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_snapshot_goes_up_and_down_again_unchanged(bucket: str, tmp_path: Path, compression: str | None) -> None:
    snapshot = write(tmp_path / "a", compression=compression)
    assert mx8.sync(tmp_path / "a", bucket) == snapshot
    assert objects(bucket) == files(tmp_path / "a")
    assert mx8.sync(bucket, tmp_path / "b") == snapshot
    assert files(tmp_path / "b") == files(tmp_path / "a")
    assert mx8.verify(tmp_path / "b", data=True).damage == ()
    assert write(tmp_path / "b", mode="append") == write(tmp_path / "a", mode="append")


def test_only_new_shards_are_sent_and_fetched(bucket: str, tmp_path: Path, s3_server: S3Server) -> None:
    write(tmp_path / "a")
    mx8.sync(tmp_path / "a", bucket)
    mx8.sync(bucket, tmp_path / "b")
    shards = len(list((tmp_path / "a").glob("*.mds")))
    snapshot = write(tmp_path / "a", 9, mode="append")
    more = len(list((tmp_path / "a").glob("*.mds"))) - shards
    before = s3_server.count("PUT", "shard."), s3_server.count("GET", "shard.")
    assert mx8.sync(tmp_path / "a", bucket) == snapshot
    assert mx8.sync(bucket, tmp_path / "b") == snapshot
    assert s3_server.count("PUT", "shard.") - before[0] == more
    assert s3_server.count("GET", "shard.") - before[1] == more
    assert objects(bucket) == files(tmp_path / "a") == files(tmp_path / "b")
    assert mx8.sync(tmp_path / "a", bucket) == mx8.sync(bucket, tmp_path / "b") == snapshot
    assert s3_server.count("PUT", "shard.") - before[0] == more


def test_a_pinned_snapshot_comes_alone_and_the_newer_one_afterwards(bucket: str, tmp_path: Path) -> None:
    first = write(bucket)
    second = write(bucket, 9, mode="append")
    assert mx8.sync(f"{bucket}@{first[:15]}", tmp_path / "b") == first
    assert ids(tmp_path / "b") == list(range(30))
    assert mx8.sync(bucket, tmp_path / "b") == second
    assert [entry.snapshot for entry in mx8.log(tmp_path / "b")] == [second, first]
    with pytest.raises(mx8.DatasetExistsError, match=f"got {second} as the current snapshot"):
        mx8.sync(f"{bucket}@{first}", tmp_path / "b")
    with pytest.raises(mx8.DatasetNotFoundError, match="expected a snapshot of this id, got none"):
        mx8.sync(f"{bucket}@sha256:{'0' * 64}", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_another_dataset_is_never_replaced(bucket: str, tmp_path: Path) -> None:
    write(bucket)
    write(tmp_path / "other", 20)
    remote, local = objects(bucket), files(tmp_path / "other")
    with pytest.raises(mx8.DatasetExistsError, match="was made from"):
        mx8.sync(tmp_path / "other", bucket)
    with pytest.raises(mx8.DatasetExistsError, match="was made from"):
        mx8.sync(bucket, tmp_path / "other")
    open_store(f"{bucket}-2").put("notes.txt", b"mine")
    with pytest.raises(mx8.DatasetExistsError, match=r"got 'notes\.txt' and no index\.json"):
        mx8.sync(tmp_path / "other", f"{bucket}-2")
    open_store(f"{bucket}-3").put("shard.00000.mds", bytes((tmp_path / "other" / "shard.00000.mds").stat().st_size))
    with pytest.raises(mx8.DatasetExistsError, match="another object has the name"):
        mx8.sync(tmp_path / "other", f"{bucket}-3")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "shard.00001.mds").write_bytes(b"mine")
    with pytest.raises(mx8.DatasetExistsError, match="move it away"):
        mx8.sync(bucket, tmp_path / "c")
    assert objects(bucket) == remote
    assert files(tmp_path / "other") == local
    assert (tmp_path / "c" / "shard.00001.mds").read_bytes() == b"mine"
    assert not (tmp_path / "c" / "index.json").exists()


def test_an_interrupted_upload_goes_on_where_it_stopped(bucket: str, tmp_path: Path, s3_server: S3Server) -> None:
    snapshot = write(tmp_path / "a")
    shards = sorted((tmp_path / "a").glob("*.mds"))
    last, before = shards[-1], s3_server.count("PUT", "shard.")
    good = last.read_bytes()
    last.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(mx8.IntegrityError, match=last.name):
        mx8.sync(tmp_path / "a", bucket)
    with pytest.raises(mx8.DatasetNotFoundError):
        mx8.Dataset(bucket, local=tmp_path / "cache")
    last.write_bytes(good)
    assert s3_server.count("PUT", "shard.") > before
    assert mx8.sync(tmp_path / "a", bucket) == snapshot
    assert s3_server.count("PUT", "shard.") - before == len(shards)
    assert objects(bucket) == files(tmp_path / "a")


def test_an_interrupted_upload_keeps_other_snapshots_away(bucket: str, tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", 20)
    last = max((tmp_path / "a").glob("*.mds"))
    good = last.read_bytes()
    last.unlink()
    with pytest.raises(mx8.DatasetNotFoundError):
        mx8.sync(tmp_path / "a", bucket)
    with pytest.raises(mx8.ShardsError, match="another"):
        mx8.sync(tmp_path / "b", bucket)
    last.write_bytes(good)
    mx8.sync(tmp_path / "a", bucket)
    assert objects(bucket) == files(tmp_path / "a")


def test_an_interrupted_download_goes_on_where_it_stopped(bucket: str, tmp_path: Path, s3_server: S3Server) -> None:
    snapshot = write(bucket)
    store = open_store(bucket)
    names = sorted(each.key for each in store.list() if each.key.startswith("shard"))
    data = store.read(names[-1], 1 << 20).data
    for wrong, error in ((None, mx8.DatasetNotFoundError), (data[:-1] + b"?", mx8.IntegrityError)):
        store.delete([names[-1]]) if wrong is None else store.put(names[-1], wrong)
        with pytest.raises(error, match=names[-1]):
            mx8.sync(bucket, tmp_path / "b")
        assert not (tmp_path / "b" / "index.json").exists()
        assert not (tmp_path / "b" / names[-1]).exists()
    store.put(names[-1], data)
    before = s3_server.count("GET", "shard.")
    assert mx8.sync(bucket, tmp_path / "b") == snapshot
    assert s3_server.count("GET", "shard.") - before == 1
    assert files(tmp_path / "b") == objects(bucket)


def test_damaged_local_files_are_fetched_again(bucket: str, tmp_path: Path) -> None:
    write(bucket)
    mx8.sync(bucket, tmp_path / "b")
    good = files(tmp_path / "b")
    (tmp_path / "b" / "shard.00001.mds").write_bytes(b"damaged")
    sidecar = next((tmp_path / "b" / ".mx8shards" / "sidecars").iterdir())
    sidecar.unlink()
    mx8.sync(bucket, tmp_path / "b")
    assert files(tmp_path / "b") == good


def test_a_mirror_is_filled(bucket: str, tmp_path: Path, s3_server: S3Server) -> None:
    write(bucket)
    assert mx8.Dataset(bucket, local=tmp_path / "m")[0]["id"] == 0
    second = write(bucket, 9, mode="append")
    assert mx8.sync(bucket, tmp_path / "m") == second
    assert (tmp_path / "m" / ".mx8shards" / MIRROR).exists()
    before = s3_server.count("GET")
    assert ids(bucket, local=tmp_path / "m") == [*range(30), *range(9)]
    assert s3_server.count("GET") == before


def test_a_sync_needs_a_url_and_a_directory(bucket: str, tmp_path: Path) -> None:
    for a, b in ((tmp_path, tmp_path / "b"), (bucket, f"{bucket}-2")):
        with pytest.raises(mx8.SettingError, match="expected a URL and a directory"):
            mx8.sync(a, b)
    with pytest.raises(mx8.DatasetNotFoundError, match="no dataset here"):
        mx8.sync(bucket, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("direction", ["down", "mirror", "up"])
def test_ctrl_c_ends_a_sync_with_a_store_that_does_not_answer(
    fault_server: FaultServer, tmp_path: Path, repository: Path, direction: str
) -> None:
    url, local = fault_server.url("set"), tmp_path / "b"
    write(tmp_path / "a")
    if direction != "up":
        mx8.sync(tmp_path / "a", url)
    if direction == "mirror":
        mx8.Dataset(url, local=local).close()
    source, target = (tmp_path / "a", url) if direction == "up" else (url, local)
    hang = fault_server.fail("hang", "read", "head", "put", key=".*mds", times=None)
    code = "import sys, mx8shards; mx8shards.sync(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(source), str(target)]
    with subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True) as process:
        while hang.met < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        try:
            error = process.communicate(timeout=25)[1]  # an attempt without an answer lasts for 30 s
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT, error
    fault_server.heal()
    assert mx8.sync(source, target) == mx8.Dataset(tmp_path / "a").snapshot


# kills ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed() -> Iterator[KilledWriters]:
    with KilledWriters() as found:
        yield found


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.hunt)])
def test_a_sync_killed_at_any_request_is_finished_by_the_next_one(
    bucket: str, tmp_path: Path, killed: KilledWriters, step: int
) -> None:
    write(tmp_path / "a", 20)
    up = down = -9
    for at in itertools.count(0, step):
        url, local = f"{bucket}-{at}", tmp_path / f"{at}"
        if up == -9:
            up = killed.sync(str(tmp_path / "a"), url, at)
            mx8.sync(tmp_path / "a", url)
            assert objects(url) == files(tmp_path / "a")
        if down == -9:
            down = killed.sync(f"{bucket}-0", str(local), at)
            assert not (local / "index.json").exists() or down == 0
            mx8.sync(f"{bucket}-0", local)
            assert files(local) == files(tmp_path / "a")
        if up == down == 0:
            break
    assert at > 15


def test_a_full_disk_is_named_with_what_helps_a_sync(
    fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fault_server.url("set")
    snapshot = write(url)
    fetch = ObjectStore.fetch

    def full(self: ObjectStore, key: str, target: Path, size_bytes: int, **options: Any) -> None:
        if key == "shard.00001.mds":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        fetch(self, key, target, size_bytes, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "fetch", full)
        with pytest.raises(
            mx8.DiskError, match=r"b: the disk is full: a file of \d+ bytes does not fit \(free"
        ) as caught:
            mx8.sync(url, tmp_path / "b")
    assert caught.value.errno == errno.ENOSPC
    assert "cache" not in str(caught.value)
    assert mx8.sync(url, tmp_path / "b") == snapshot
