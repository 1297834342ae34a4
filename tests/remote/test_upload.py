"""Does a Writer that publishes into a store put the bytes there that it puts into a directory, or nothing?"""

from __future__ import annotations

import gc
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.convert import into_store
from mx8shards.remote import reservations, upload
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.open_store import open_store
from mx8shards.remote.reservations import PREFIX
from mx8shards.shards.snapshots import snapshot_id
from tests.remote.deadlines import in_time
from tests.remote.fault_server import FaultServer
from tests.remote.killed_writer import KilledWriters
from tests.remote.objects import copied, files, named_files, objects
from tests.strategies import NUMBERED, numbered_samples
from tests.waiting import wait_until


def write(out: Any, samples: Iterable[dict[str, Any]] | None = None, **options: Any) -> str:
    with mx8.Writer(out, **{"columns": NUMBERED, "size_limit": 700, **options}) as writer:
        for sample in numbered_samples(30) if samples is None else samples:
            writer.write(sample)
    assert writer.snapshot is not None
    return writer.snapshot


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"match_streaming": True}, {"size_limit": None}])
def test_a_bucket_gets_the_files_that_a_directory_gets(bucket: str, tmp_path: Path, options: dict[str, Any]) -> None:
    for mode in ("create", "append", "overwrite", "append"):
        assert write(bucket, mode=mode, **options) == write(tmp_path / "d", mode=mode, **options)
        assert objects(bucket) == files(tmp_path / "d")


def test_a_writer_without_samples_leaves_a_dataset_without_samples(bucket: str, tmp_path: Path) -> None:
    assert write(bucket, []) == write(tmp_path / "d", [])
    assert objects(bucket) == files(tmp_path / "d")


def test_metadata_alone_are_a_new_snapshot(bucket: str, tmp_path: Path) -> None:
    for out in (bucket, tmp_path / "d"):
        write(out)
        write(out, [], mode="append", metadata={"a": 1})
        write(out, [], mode="append")  # nothing new
    assert objects(bucket) == files(tmp_path / "d")


def test_create_refuses_a_bucket_that_has_a_dataset_or_other_objects(bucket: str) -> None:
    write(f"{bucket}/a")
    before = objects(bucket)
    with pytest.raises(mx8.DatasetExistsError, match='mode="append" adds to it'):
        write(f"{bucket}/a")
    open_store(bucket).put("b/notes.txt", b"mine")
    with pytest.raises(mx8.DatasetExistsError, match=r"notes\.txt"):
        write(f"{bucket}/b")
    assert objects(bucket) == {**before, "b/notes.txt": b"mine"}


def test_other_columns_are_refused_by_the_name_of_the_url(bucket: str) -> None:
    write(bucket)
    before = objects(bucket)
    with pytest.raises(mx8.SchemaError, match=f"^{bucket}: expected the columns"):
        write(bucket, [], columns={"x": "int"}, mode="append")
    assert objects(bucket) == before


@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
def test_a_writer_whose_block_raises_leaves_the_bucket_as_it_was(bucket: str, mode: str) -> None:
    if mode != "create":
        write(bucket)
    before = objects(bucket)

    def broken() -> Iterator[dict[str, Any]]:
        yield from numbered_samples(30)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(bucket, broken(), mode=mode)
    assert objects(bucket) == before


def test_a_writer_that_is_never_closed_says_so_and_publishes_nothing(bucket: str) -> None:
    def write_and_forget() -> None:
        writer = mx8.Writer(bucket, columns=NUMBERED)
        for sample in numbered_samples(3):
            writer.write(sample)
        del writer
        gc.collect()  # errors inside the store's client may form cycles

    with pytest.warns(ResourceWarning, match="nothing was published"):
        write_and_forget()
    assert [key for key in objects(bucket) if not key.startswith(PREFIX)] == []


@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.hunt)])
def test_of_writers_at_the_same_time_exactly_one_publishes(bucket: str, tmp_path: Path, mode: Any, count: int) -> None:
    if mode != "create":
        write(bucket)
    before = objects(bucket)
    writers = [mx8.Writer(bucket, columns=NUMBERED, size_limit=700, mode=mode) for _ in range(count)]
    results: list[Any] = [None] * count
    together = threading.Barrier(count)

    def run(i: int) -> None:
        for sample in numbered_samples(20 + 3 * i):
            writers[i].write(sample)
        together.wait()
        try:
            results[i] = writers[i].finish()
        except mx8.RemoteError as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [result for result in results if isinstance(result, str)]
    lost = [result for result in results if not isinstance(result, str)]
    assert len(won) == 1
    assert all(error.reason == "changed" and "another writer was quicker" in str(error) for error in lost)
    after = objects(bucket)
    assert {key: data for key, data in after.items() if key in before and key != "index.json"} == {
        key: data for key, data in before.items() if key != "index.json"
    }
    copy = copied(bucket, tmp_path / "copy")
    assert mx8.verify(copy, data=True).damage == ()
    assert mx8.Dataset(copy).snapshot == won[0]
    assert set(after) == named_files(copy)


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}])
def test_a_pair_gets_equal_datasets(bucket: str, tmp_path: Path, options: dict[str, Any]) -> None:
    pair = (tmp_path / "d", bucket)
    for mode in ("create", "append", "overwrite", "append"):
        assert write(pair, mode=mode, **options) == write(tmp_path / "alone", mode=mode, **options)
        assert objects(bucket) == files(tmp_path / "d") == files(tmp_path / "alone")


def test_a_pair_that_differs_is_refused(bucket: str, tmp_path: Path) -> None:
    write(bucket)
    before = objects(bucket)
    with pytest.raises(mx8.DatasetExistsError, match="mx8shards sync makes them equal"):
        write((tmp_path / "d", bucket), mode="append")
    assert not (tmp_path / "d").exists()
    for out in ((bucket, tmp_path / "d"), (tmp_path / "d",), (tmp_path / "d", tmp_path / "e")):
        with pytest.raises(mx8.SettingError, match=r"^out: "):
            mx8.Writer(out, columns=NUMBERED)
    assert objects(bucket) == before


def test_a_pair_of_which_the_bucket_was_taken_leaves_both_as_they_were(bucket: str, tmp_path: Path) -> None:
    writer = mx8.Writer((tmp_path / "d", bucket), columns=NUMBERED)
    write(bucket, mode="append" if objects(bucket).get("index.json") else "create")
    before = objects(bucket)
    with pytest.raises(mx8.RemoteError, match="another writer was quicker"):
        writer.finish()
    assert not (tmp_path / "d").exists()
    assert {key: data for key, data in objects(bucket).items() if not key.startswith(PREFIX)} == {
        key: data for key, data in before.items() if not key.startswith(PREFIX)
    }


def test_ranks_need_a_directory(bucket: str) -> None:
    with pytest.raises(mx8.SettingError, match="sync it to the URL"):
        mx8.Writer(bucket, columns=NUMBERED, rank=0, world_size=2)
    with pytest.raises(mx8.SettingError, match="got a link to a snapshot"):
        mx8.Writer(f"{bucket}@sha256:{'0' * 64}", columns=NUMBERED)


def test_a_store_without_conditional_puts_needs_a_single_writer(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ObjectStore, "can_put_conditionally", False)
    with pytest.raises(mx8.RemoteError, match="--single-writer"):
        write(bucket)
    for mode in ("create", "append", "overwrite"):
        assert write(bucket, mode=mode, single_writer=True) == write(tmp_path / "d", mode=mode)
        assert objects(bucket) == files(tmp_path / "d")


def test_a_conversion_into_a_store_without_conditional_puts_is_refused_before_it_begins(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MX8SHARDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ObjectStore, "can_put_conditionally", False)
    monkeypatch.setattr(into_store, "convert", None)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(mx8.RemoteError, match="--single-writer"):
        mx8.convert_from("imagefolder", tmp_path / "photos", bucket)


def test_a_forked_process_can_neither_publish_nor_remove(bucket: str, tmp_path: Path) -> None:
    writer = mx8.Writer(bucket, columns=NUMBERED, size_limit=700)
    for sample in numbered_samples(9):
        writer.write(sample)
    pid = os.fork()
    if not pid:
        try:
            writer.finish()
        except mx8.DiskError:
            writer.abandon()
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    writer.finish()
    assert len(mx8.Dataset(bucket, local=tmp_path)) == 9


# kills ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed() -> Iterator[KilledWriters]:
    with KilledWriters() as found, pytest.MonkeyPatch.context() as patched:
        patched.setattr(reservations, "LANDED_S", -1.0)  # their last requests have been answered
        yield found


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.hunt)])
@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
def test_a_writer_killed_at_any_request_leaves_a_dataset_and_the_next_one_cleans_up(
    bucket: str, tmp_path: Path, killed: KilledWriters, mode: Any, step: int
) -> None:
    local = tmp_path / "local"
    if mode != "create":
        write(local, numbered_samples(9))
        write(bucket, numbered_samples(9))
    before = objects(bucket)
    after = write(local, numbered_samples(20), mode=mode)
    begin = {"create": 0, "append": 1, "overwrite": 2}[mode] if step > 1 else 0
    for at in itertools.count(begin, step):
        url = f"{bucket}-{at}"
        for key, data in before.items():
            open_store(url).put(key, data)
        status = killed.write(url, mode, 20, at)
        assert status in (0, -9)
        if "index.json" in (found := objects(url)) and snapshot_id(found["index.json"]) == after:
            assert write(url, [], mode="append") == after  # the next writer cleans up
        else:
            assert {key: found.get(key) for key in before} == before
            assert write(url, numbered_samples(20), mode=mode) == after
        assert objects(url) == files(local)
        if status == 0:
            break
    assert at > 15


def test_ctrl_c_in_an_outage_ends_a_writer_whatever_the_deadline_is(
    fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_CLOSING_S", 0.5)
    hang = fault_server.fail("hang", "put", key=r"set/.*\.mds", times=None)

    def write() -> None:
        with mx8.Writer(fault_server.url("set"), columns={"x": "bytes"}, size_limit="10kb", deadline_s=600) as writer:
            for _ in range(4):
                writer.write({"x": bytes(8_000)})
            wait_until(lambda: hang.met)
            raise UserGaveUpError

    assert isinstance(in_time(write), UserGaveUpError)


class UserGaveUpError(Exception):
    """Instead of KeyboardInterrupt, which a thread cannot get."""
