"""Do the commands say of a URL what they say of a directory with the same files?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.convert import into_store
from mx8shards.maintain import merge as merge_module
from mx8shards.remote import reservations
from mx8shards.remote.open_store import open_store
from tests.remote.objects import copied, files, named_files, objects
from tests.strategies import NUMBERED, numbered_samples
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MX8SHARDS_CACHE", str(tmp_path / "cache"))


def write(out: Any, count: int = 20, **options: Any) -> str:
    with mx8.Writer(out, **{"columns": NUMBERED, "size_limit": 700, **options}) as writer:
        for sample in numbered_samples(count):
            writer.write(sample)
    assert writer.snapshot is not None
    return writer.snapshot


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    return capsys.readouterr().out


@pytest.mark.parametrize("options", [pytest.param({}, marks=pytest.mark.hunt), {"compression": "zstd"}])
def test_commands_say_the_same_of_a_url_and_of_a_directory(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    snapshots = [write(bucket, **options), write(bucket, 9, mode="append", **options)]
    local = copied(bucket, tmp_path / "data")
    for arguments in (
        ("info",),
        ("ls",),
        ("cat", "--sample", "-1"),
        ("cat", "--sample", "3", "--column", "id"),
        ("summary",),
        ("log",),
        ("verify",),
        ("verify", "--data"),
    ):
        for pin in ("", f"@{snapshots[0]}", f"@{snapshots[0][:20]}"):
            command, *rest = arguments
            theirs = json.loads(run(capsys, command, f"{bucket}{pin}", "--json", *rest))
            ours = json.loads(run(capsys, command, f"{local}{pin}", "--json", *rest))
            for each in (theirs, ours):
                for part in each if isinstance(each, list) else [each]:
                    part.pop("published", None)
                    part.pop("root", None)
            assert theirs == ours
            run(capsys, command, f"{bucket}{pin}", *rest)
    first, second = (f"{bucket}@{snapshot}" for snapshot in snapshots)
    assert json.loads(run(capsys, "diff", first, second, "--json")) == json.loads(
        run(capsys, "diff", f"{local}@{snapshots[0]}", local, "--json")
    )
    assert json.loads(run(capsys, "diff", bucket, local, "--json"))["same"]


def test_commands_see_the_current_snapshot_and_not_that_of_the_mirror(
    bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(bucket)
    assert len(mx8.Dataset(bucket)) == 20
    write(bucket, 9, mode="append")
    assert json.loads(run(capsys, "info", bucket, "--json"))["samples"] == 29
    assert json.loads(run(capsys, "cat", bucket, "--sample", "28", "--json"))["sample"] == 28
    assert len(mx8.Dataset(bucket)) == 20


@pytest.mark.parametrize("command", ["info", "ls", "cat", "log", "verify", "summary", "gc", "diff", "sync", "dataset"])
def test_a_bucket_that_is_missing_is_named(
    command: str, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "s3://no-such-bucket/data"
    others = {"diff": [bucket], "sync": [tmp_path / "copy"]}
    if command == "dataset":
        with pytest.raises(mx8.DatasetNotFoundError) as caught:
            mx8.Dataset(url)
        assert isinstance(caught.value.__cause__, mx8.RemoteError)
        said = str(caught.value)
    else:
        assert main([command, url, *map(str, others.get(command, []))]) == 1
        said = capsys.readouterr().err
    assert "404 Not Found, NoSuchBucket" in said
    assert "check bucket and endpoint" in said


def test_sync_is_a_command(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = write(tmp_path / "a")
    assert run(capsys, "sync", tmp_path / "a", bucket) == f"{snapshot}\n"
    assert json.loads(run(capsys, "sync", bucket, tmp_path / "b", "--json")) == {"snapshot": snapshot}
    assert files(tmp_path / "b") == files(tmp_path / "a")
    run(capsys, "sync", tmp_path / "a", tmp_path / "b", code=1)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_verify_finds_the_damage_of_objects(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], compression: str | None
) -> None:
    write(bucket, 30, compression=compression)
    store = open_store(bucket)
    names = sorted(each.key for each in store.list() if each.key.startswith("shard"))
    flipped, resized, missing = names[1:4]
    data = store.read(flipped, 1 << 20).data
    store.put(flipped, data[:-1] + bytes([data[-1] ^ 1]))
    store.put(resized, store.read(resized, 1 << 20).data[:-1])
    store.delete([missing])
    sidecar = next(each.key for each in store.list(".mx8shards/sidecars"))
    store.delete([sidecar])
    local = copied(bucket, tmp_path / "data")
    for depth in ((), ("--data",)):
        theirs = json.loads(run(capsys, "verify", bucket, "--json", *depth, code=3))
        ours = json.loads(run(capsys, "verify", local, "--json", *depth, code=3))
        for each in (theirs, ours):
            for damage in each["damage"]:
                damage["error"] = ""
        assert theirs == ours
        found = {damage["file"] for damage in theirs["damage"]}
        assert found == {resized, missing, sidecar, *((flipped,) if depth else ())}
    with pytest.raises(mx8.SettingError, match=r"^seal: expected False for a URL"):
        mx8.verify(bucket, seal=True)


# gc -------------------------------------------------------------------------------------------------------------------


def collect(url: str, **options: Any) -> Any:
    return mx8.gc(url, **{"keep": 1, "older_than_days": 0, **options})


def test_gc_leaves_the_snapshots_that_are_kept(bucket: str, tmp_path: Path) -> None:
    snapshots = [write(bucket), *(write(bucket, 9, mode=mode) for mode in ("append", "overwrite", "append"))]
    before = objects(bucket)
    assert collect(bucket, older_than_days=None).snapshots == ()
    assert objects(bucket) == before
    removed = collect(bucket, keep=2)
    assert set(removed.snapshots) == set(snapshots[:2])
    assert removed.kept == tuple(reversed(snapshots[2:]))
    copy = copied(bucket, tmp_path / "copy")
    assert (
        set(objects(bucket))
        == named_files(copy)
        == set(before)
        - set(removed.files)
        - {f".mx8shards/snapshots/{name.removeprefix('sha256:')}.json" for name in removed.snapshots}
    )
    assert mx8.verify(copy, data=True).damage == ()
    assert removed.freed_bytes == sum(map(len, before.values())) - sum(map(len, objects(bucket).values()))
    assert collect(bucket, keep=2).files == ()


def test_gc_removes_what_writers_left_and_nothing_else(bucket: str) -> None:
    write(bucket)
    store = open_store(bucket)
    before = objects(bucket)
    store.put("shard.00099.mds", b"left")
    store.put("g0007/shard.00000.mds.zstd", b"left")
    store.put(f".mx8shards/sidecars/{'0' * 64}", b"left")
    store.put("notes.txt", b"mine")
    store.put("model.pt", b"mine")
    removed = collect(bucket)
    assert len(removed.files) == 3
    assert objects(bucket) == {**before, "notes.txt": b"mine", "model.pt": b"mine"}


def test_gc_touches_nothing_of_a_writer_at_work(bucket: str, tmp_path: Path) -> None:
    write(bucket)
    before = objects(bucket)
    writer = mx8.Writer(bucket, columns=NUMBERED, size_limit=700, mode="append")
    for sample in numbered_samples(20):
        writer.write(sample)
    wait_until(lambda: len(objects(bucket)) > len(before) + 2)  # its reservation, and two shards
    assert collect(bucket).files == ()
    writer.finish()
    assert mx8.verify(copied(bucket, tmp_path / "copy"), data=True).damage == ()


def test_gc_cleans_up_after_a_writer_that_was_killed_long_ago_elsewhere(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(bucket)
    before = objects(bucket)
    held = reservations.take(
        open_store(bucket), reservations.Reservation("", 50, None, process=reservations.Process("elsewhere", 1, "1"))
    )
    assert held is not None
    open_store(bucket).put("shard.00050.mds", b"left")
    collect(bucket)
    assert len(objects(bucket)) == len(before) + 2
    monkeypatch.setattr(reservations, "ABANDONED_S", -1.0)
    collect(bucket)
    assert objects(bucket) == before


def test_gc_aborts_incomplete_uploads(bucket: str) -> None:
    write(bucket)
    name, prefix = bucket.removeprefix("s3://").split("/")
    s3 = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"])
    for key in (f"{prefix}/shard.00000.mds", f"{prefix}-2/x"):
        s3.create_multipart_upload(Bucket=name, Key=key)
    collect(bucket)
    (left,) = s3.list_multipart_uploads(Bucket=name)["Uploads"]
    assert left["Key"] == f"{prefix}-2/x"


def test_gc_of_a_url_has_a_command(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(bucket)
    write(bucket, 9, mode="overwrite")
    assert json.loads(run(capsys, "gc", bucket, "--keep", "0", "--json"))["files"] == []
    assert json.loads(run(capsys, "gc", bucket, "--keep", "0", "--older-than", "0", "--json"))["files"] != []
    write(tmp_path / "a")
    with pytest.raises(mx8.SettingError, match="older_than_days"):
        mx8.gc(tmp_path / "a", older_than_days=3)


# merge ----------------------------------------------------------------------------------------------------------------


def test_merges_with_urls_are_merges_of_directories(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write(a)
    write(f"{bucket}/a")
    write(b, 9, compression="zstd")
    write(f"{bucket}/b", 9, compression="zstd")
    ours = run(capsys, "merge", a, b, tmp_path / "all")
    for i, parts in enumerate([(a, b), (f"{bucket}/a", b), (f"{bucket}/a", f"{bucket}/b")]):
        for out in (f"{bucket}/out{i}", tmp_path / f"out{i}"):
            assert run(capsys, "merge", *parts, out) == ours
        assert objects(f"{bucket}/out{i}") == files(tmp_path / f"out{i}") == files(tmp_path / "all")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != "c") == [
        *("a", "all", "b", "out0", "out1", "out2")
    ]
    run(capsys, "merge", a, f"{bucket}/out0", code=1)
    run(capsys, "merge", "--how", "move", a, f"{bucket}/new", code=1)
    both = run(capsys, "merge", "--append", a, tmp_path / "all")
    assert run(capsys, "merge", "--append", f"{bucket}/a", f"{bucket}/out0") == both
    assert objects(f"{bucket}/out0") == files(tmp_path / "all")


def test_a_merge_that_loses_leaves_no_objects(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    write(bucket)
    index_bytes = merge_module.index_bytes

    def slow_index(*args: Any, **options: Any) -> bytes:
        write(bucket, 9, mode="append")
        return index_bytes(*args, **options)

    monkeypatch.setattr(merge_module, "index_bytes", slow_index)
    with pytest.raises(mx8.RemoteError, match="another writer was quicker"):
        mx8.merge([tmp_path / "a"], bucket, mode="append")
    copy = copied(bucket, tmp_path / "copy")
    assert set(objects(bucket)) == named_files(copy)
    assert len(mx8.Dataset(copy)) == 29


# convert --------------------------------------------------------------------------------------------------------------


def test_a_conversion_into_a_url_is_a_conversion_into_a_directory(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(9):
        folder = tmp_path / "photos" / f"class{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (i, 0, 0)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"broken")
    ours = json.loads(run(capsys, "convert", "imagefolder", tmp_path / "photos", tmp_path / "d", "--json", code=4))

    def broken(*_: Any, **__: Any) -> str:
        raise mx8.RemoteError("an outage")

    with monkeypatch.context() as patch:
        patch.setattr(into_store, "sync", broken)
        with pytest.raises(mx8.RemoteError, match="an outage"):
            mx8.convert_from("imagefolder", tmp_path / "photos", bucket)
    reported = into_store._reported

    def late(*args: Any) -> Any:
        patch.undo()
        with pytest.raises(mx8.DiskError, match="lock"):  # until the work directory is removed
            mx8.convert_from("imagefolder", tmp_path / "photos", bucket)
        return reported(*args)

    with monkeypatch.context() as patch:
        patch.setattr(into_store, "_reported", late)
        theirs = json.loads(run(capsys, "convert", "imagefolder", tmp_path / "photos", bucket, "--json", code=4))
    assert (theirs["snapshot"], theirs["rejects"], theirs["known"]) == (ours["snapshot"], ours["rejects"], 9)
    arguments = ("convert", "imagefolder", tmp_path / "photos", f"{bucket}/again", "--json")
    assert json.loads(run(capsys, *arguments, code=4)) == ours
    open_store(bucket).delete([key for key in objects(bucket) if key.startswith("again/")])
    local = files(tmp_path / "d")
    found = objects(bucket)
    assert {key for key in found if "rejects" in key} == {key for key in local if "rejects" in key}
    assert set(found) <= set(local)
    copy = copied(bucket, tmp_path / "copy")
    assert mx8.verify(copy, data=True).damage == ()
    assert mx8.Dataset(copy).snapshot == ours["snapshot"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == []
    assert run(capsys, "convert", "imagefolder", tmp_path / "photos", bucket, code=1) == ""
    with pytest.raises(mx8.SettingError, match="append: expected False where OUT is a URL"):
        mx8.convert_from("imagefolder", tmp_path / "photos", bucket, append=True)
    report = mx8.convert_from("imagefolder", tmp_path / "photos", f"{bucket}/s", split="train=0.5,val=0.5")
    for name, split in report.splits.items():
        assert split.out == f"{bucket}/s/{name}"
        assert mx8.Dataset(f"{bucket}/s/{name}").snapshot == split.snapshot
