"""Does the Writer publish all samples or nothing?"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards import writer as writer_module
from mx8shards.disk import files as disk_files
from mx8shards.disk import lock, operations, publish
from mx8shards.errors import SettingError, ShardsError
from mx8shards.format.hashing import HASHES, hash_hex
from mx8shards.shards import new_shards, publication, recovery
from tests import reference
from tests.strategies import COMPRESSIONS, NUMBERED, numbered_samples, same, samples_as_read

ONE = {"x": "int"}
INTERRUPTED = {
    module.__file__ for module in (writer_module, publication, recovery, lock, publish, operations, disk_files)
}


def write(root: Path, samples: Any = None, **options: Any) -> str:
    options = {"columns": NUMBERED, "size_limit": 700, **options}
    with mx8.Writer(root, **options) as writer:
        for sample in numbered_samples(50) if samples is None else samples:
            writer.write(sample)
    assert writer.snapshot is not None
    return writer.snapshot


def ids(link: Any) -> list[int]:
    return [sample["id"] for sample in mx8.Dataset(link)]


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def entries(root: Path) -> list[dict[str, Any]]:
    return reference.read_index(root)["shards"]  # type: ignore[no-any-return]


# published files ------------------------------------------------------------------------------------------------------


def test_the_directory_has_shards_index_kept_copy_and_side_cars(tmp_path: Path) -> None:
    snapshot = write(tmp_path / "data", size_limit="64mb")
    found = files(tmp_path / "data")
    kept = f".mx8shards/snapshots/{snapshot[7:]}.json"
    sidecars = [
        f".mx8shards/sidecars/{car['blake3']}" for car in json.loads(found["index.json"])["mx8shards"]["sidecars"]
    ]
    assert sorted(found) == sorted(["index.json", "shard.00000.mds", kept, *sidecars])
    assert found[kept] == found["index.json"]
    assert snapshot == f"sha256:{hashlib.sha256(found['index.json']).hexdigest()}"
    assert len(sidecars) == 2


def test_the_index_is_canonical_and_matches_the_files(tmp_path: Path) -> None:
    write(tmp_path / "data", compression="zstd", hashes=["md5", "blake3"], metadata={"b": [1, None], "a": "ü"})
    data = (tmp_path / "data" / "index.json").read_bytes()
    index = json.loads(data)
    assert data == json.dumps(index, sort_keys=True).encode("ascii")
    assert index["mx8shards"]["metadata"] == {"a": "ü", "b": [1, None]}
    assert sorted(index["mx8shards"]) == ["metadata", "sidecars", "spec"]
    for entry in index["shards"]:
        stored = (tmp_path / "data" / entry["zip_data"]["basename"]).read_bytes()
        raw = reference.decompress("zstd", stored)
        assert entry["hashes"] == ["blake3", "md5"]
        for info, bytes_ in ((entry["raw_data"], raw), (entry["zip_data"], stored)):
            assert info["bytes"] == len(bytes_)
            assert info["hashes"] == {name: hash_hex(name, bytes_) for name in ("blake3", "md5")}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_reference_reader_finds_the_written_payloads(compression: str | None, tmp_path: Path) -> None:
    write(tmp_path / "data", compression=compression)
    wanted = [
        {
            "data": sample["data"],
            "id": sample["id"].to_bytes(8, "little"),
            "name": sample["name"].encode(),
            "x": np.float32(sample["x"]).tobytes(),
        }
        for sample in numbered_samples(50)
    ]
    assert reference.read_dataset(tmp_path / "data") == wanted


@pytest.mark.parametrize("name", HASHES)
def test_every_hash_can_be_requested_and_blake3_is_always_written(name: str, tmp_path: Path) -> None:
    write(tmp_path / "data", hashes=[name], size_limit=None)
    (entry,) = entries(tmp_path / "data")
    data = (tmp_path / "data" / "shard.00000.mds").read_bytes()
    assert entry["hashes"] == [name]
    assert entry["raw_data"]["hashes"] == {found: hash_hex(found, data) for found in {name, "blake3"}}
    assert f'"hashes": ["{name}"]'.encode() in data


def test_samples_fill_shards_up_to_the_size_limit(tmp_path: Path) -> None:
    write(tmp_path / "data", size_limit=700)
    sizes = [path.stat().st_size for path in (tmp_path / "data").glob("*.mds")]
    assert max(sizes) <= 700
    assert len(sizes) > 5
    assert sum(entry["samples"] for entry in entries(tmp_path / "data")) == 50


@pytest.mark.parametrize(("match_streaming", "shards"), [(False, [1, 2, 1]), (True, [0, 1, 2, 1])])
def test_a_sample_beyond_the_limit_gets_its_own_shard(match_streaming: bool, shards: list[int], tmp_path: Path) -> None:
    samples = [{"x": bytes(5000)}, {"x": b"a"}, {"x": b"b"}, {"x": bytes(6000)}]
    write(tmp_path / "data", samples, columns={"x": "bytes"}, size_limit=1000, match_streaming=match_streaming)
    assert [entry["samples"] for entry in entries(tmp_path / "data")] == shards
    assert list(mx8.Dataset(tmp_path / "data")) == samples


def test_a_writer_without_samples_makes_an_empty_dataset(tmp_path: Path) -> None:
    write(tmp_path / "data", [], metadata={"why": "none matched"})
    assert [entry["samples"] for entry in reference.read_index(tmp_path / "data")["shards"]] == [0]
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert len(dataset) == 0
        assert dataset.metadata == {"why": "none matched"}
        assert dataset.columns == NUMBERED  # from a shard without samples


def test_a_writer_without_samples_makes_no_shard_with_match_streaming(tmp_path: Path) -> None:
    write(tmp_path / "data", [], match_streaming=True)
    index = reference.read_index(tmp_path / "data")
    assert index["shards"] == index["mx8shards"]["sidecars"] == []
    assert len(mx8.Dataset(tmp_path / "data")) == 0


def test_files_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "data", compression="gz")
        list(mx8.Dataset(tmp_path / "data"))
    finally:
        os.umask(before)
    for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
        wanted = 0o750 if path.is_dir() else 0o640
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_missing_directories_are_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "b" / "c")
    monkeypatch.chdir(tmp_path)
    write(Path("relative"))
    assert ids("relative") == ids(tmp_path / "a" / "b" / "c") == list(range(50))


def test_paths_may_be_strings(tmp_path: Path) -> None:
    with mx8.Writer(str(tmp_path / "data"), columns=ONE) as writer:
        writer.write({"x": 1})
    assert mx8.Dataset(str(tmp_path / "data"))[0] == {"x": 1}


# reproducible snapshots -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zstd", "gz"])
def test_any_number_of_threads_gives_the_same_bytes(compression: str | None, tmp_path: Path) -> None:
    made = [write(tmp_path / f"{n}", compression=compression, threads=n) for n in (1, 2, 5)]
    assert len(set(made)) == 1
    assert files(tmp_path / "1") == files(tmp_path / "2") == files(tmp_path / "5")


def test_the_id_depends_only_on_samples_options_and_metadata(tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"samples": numbered_samples(49)},
        {"samples": numbered_samples(50)[::-1]},
        {"size_limit": 701},
        {"compression": "zstd"},
        {"compression": "zstd:3"},
        {"hashes": ["sha1"]},
        {"metadata": {"a": 1}},
        {"metadata": {"a": 2}},
    ]
    made = [write(tmp_path / f"{i}", **given) for i, given in enumerate(options)]
    assert len(set(made)) == len(options)
    assert write(tmp_path / "again" / "elsewhere") == made[0]
    assert write(tmp_path / "reordered", columns=dict(reversed(NUMBERED.items())), metadata={}) == made[0]
    assert write(tmp_path / "sorted", hashes=["xxh128", "blake3"]) == made[0]


def test_moving_and_copying_a_dataset_keeps_its_id(tmp_path: Path) -> None:
    snapshot = write(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    (tmp_path / "data").rename(tmp_path / "moved")
    for root in (tmp_path / "copy", tmp_path / "moved"):
        with mx8.Dataset(root) as dataset:
            assert dataset.snapshot == snapshot
            assert same(list(dataset), samples_as_read(NUMBERED, numbered_samples(50)))


def test_a_copy_without_hidden_files_is_still_the_dataset(tmp_path: Path) -> None:
    snapshot = write(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
    assert ids(tmp_path / "copy") == list(range(50))
    assert mx8.Dataset(tmp_path / "copy").snapshot == snapshot


# modes ----------------------------------------------------------------------------------------------------------------


def test_append_adds_samples_and_the_old_snapshot_stays_readable(tmp_path: Path) -> None:
    root = tmp_path / "data"
    first = write(root, numbered_samples(30), metadata={"a": 1})
    before = files(root)
    second = write(root, numbered_samples(50)[30:], mode="append")
    third = write(root, numbered_samples(5), mode="append", metadata={"b": 2})
    assert ids(root) == [*range(50), *range(5)]
    assert ids(f"{root}@{first}") == list(range(30))
    assert ids(f"{root}@{second[:15]}") == list(range(50))
    assert mx8.Dataset(f"{root}@{second}").metadata == {"a": 1}
    assert mx8.Dataset(root).metadata == {"b": 2}
    assert mx8.Dataset(root).column("id").tolist() == ids(root)
    assert reference.read_index(root)["mx8shards"]["parent"] == second
    assert {name: data for name, data in files(root).items() if name in before and name != "index.json"} == {
        name: data for name, data in before.items() if name != "index.json"
    }
    names = [entry["raw_data"]["basename"] for entry in entries(root)]
    assert names == [f"shard.{i:05}.mds" for i in range(len(names))]
    assert third == mx8.Dataset(root).snapshot


def test_overwrite_replaces_samples_and_the_old_snapshot_stays_readable(tmp_path: Path) -> None:
    root = tmp_path / "data"
    first = write(root, numbered_samples(30), metadata={"a": 1})
    second = write(root, [{"y": "new"}], mode="overwrite", columns={"y": "str"})
    third = write(root, numbered_samples(3), mode="overwrite")
    assert ids(root) == [0, 1, 2]
    assert list(mx8.Dataset(f"{root}@{second}")) == [{"y": "new"}]
    assert mx8.Dataset(f"{root}@{second}").metadata == mx8.Dataset(root).metadata == {}
    assert ids(f"{root}@{first}") == list(range(30))
    assert sorted(path.parent.name for path in root.glob("g*/*.mds")) == ["g0001", "g0002"]
    assert reference.read_index(root)["mx8shards"]["parent"] == second
    assert third == mx8.Dataset(root).snapshot


def test_appending_after_overwriting_continues_the_numbers(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, numbered_samples(30))
    write(root, numbered_samples(3), mode="overwrite")
    write(root, numbered_samples(5)[3:], mode="append")
    write(root, numbered_samples(9)[5:], mode="append")
    assert ids(root) == list(range(9))
    assert len({entry["raw_data"]["basename"] for entry in entries(root)}) == 3


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_append_and_overwrite_without_a_dataset_create_one(mode: str, tmp_path: Path) -> None:
    assert write(tmp_path / mode, mode=mode) == write(tmp_path / "create")


@pytest.mark.parametrize("metadata", [None, {"a": 1}])
def test_appending_nothing_publishes_nothing(metadata: Any, tmp_path: Path) -> None:
    first = write(tmp_path / "data", metadata={"a": 1})
    before = files(tmp_path / "data")
    assert write(tmp_path / "data", [], mode="append", metadata=metadata) == first
    assert files(tmp_path / "data") == before


def test_appending_only_new_metadata_is_a_new_snapshot(tmp_path: Path) -> None:
    first = write(tmp_path / "data", metadata={"a": 1})
    assert write(tmp_path / "data", [], mode="append", metadata={"a": 2}) != first
    assert mx8.Dataset(tmp_path / "data").metadata == {"a": 2}
    assert ids(tmp_path / "data") == list(range(50))


def test_appending_may_use_another_compression_hash_and_limit(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, numbered_samples(50)[:20], hashes=["md5"])
    write(root, numbered_samples(50)[20:40], compression="zstd", mode="append")
    write(root, numbered_samples(50)[40:], compression="br:1", hashes=[], size_limit=None, mode="append")
    assert ids(root) == list(range(50))
    assert mx8.Dataset(root).sealed


def test_a_foreign_dataset_can_be_appended_to_and_its_previous_state_stays_readable(tmp_path: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "int"}, [[{"x": bytes(8)}], []])
    before = mx8.Dataset(root).snapshot
    with mx8.Writer(root, columns=ONE, mode="append") as writer:
        writer.write({"x": 7})
    assert list(mx8.Dataset(root)) == [{"x": 0}, {"x": 7}]
    assert list(mx8.Dataset(f"{root}@{before}")) == [{"x": 0}]
    assert not mx8.Dataset(root).sealed
    assert mx8.Dataset(root).column("x").tolist() == [0, 7]


def test_append_keeps_foreign_keys_at_the_top_level_of_the_index(tmp_path: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "int"}, [[{"x": bytes(8)}]])
    reference.write_index(root, {**reference.read_index(root), "theirs": {"a": [1.5]}})
    with mx8.Writer(root, columns=ONE, mode="append") as writer:
        writer.write({"x": 7})
    assert reference.read_index(root)["theirs"] == {"a": [1.5]}


def test_create_refuses_an_existing_dataset(tmp_path: Path) -> None:
    first = write(tmp_path / "data")
    with pytest.raises(
        mx8.DatasetExistsError, match=r'data: the directory already contains a dataset \(mode="append" adds'
    ):
        write(tmp_path / "data")
    assert mx8.Dataset(tmp_path / "data").snapshot == first


@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
def test_a_directory_with_other_files_is_left_unchanged(mode: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(mx8.DatasetExistsError, match=r"expected an empty directory, or a dataset, got 'thesis\.tex'"):
        write(tmp_path, mode=mode)
    assert (tmp_path / "thesis.tex").read_text() == "…"


@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
def test_a_file_in_place_of_the_directory_is_a_disk_error(mode: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    for root in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(mx8.ShardsError) as caught:
            write(root, mode=mode)
        assert isinstance(caught.value, OSError)
    assert (tmp_path / "data").read_text() == "a file"


def test_append_refuses_different_columns_and_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "data")
    before = files(tmp_path / "data")
    with pytest.raises(mx8.SchemaError, match=r"expected the columns of the dataset: \{.*\}, got \{'id': 'int'\}"):
        write(tmp_path / "data", columns={"id": "int"}, mode="append")
    assert files(tmp_path / "data") == before


def test_a_manually_changed_index_is_not_appended_to(tmp_path: Path) -> None:
    write(tmp_path / "data")
    index = reference.read_index(tmp_path / "data")
    reference.write_index(tmp_path / "data", {**index, "edited": True})
    for mode in ("append", "overwrite"):
        with pytest.raises(mx8.IntegrityError, match="changed outside mx8shards"):
            write(tmp_path / "data", mode=mode)


@pytest.mark.parametrize("mode", ["w", "", None, "Append"])
def test_an_unknown_mode_is_refused_before_anything_is_created(mode: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mode: expected one of 'create', 'append', 'overwrite', got "):
        write(tmp_path / "data", mode=mode)
    assert not (tmp_path / "data").exists()


# leaving the with block -----------------------------------------------------------------------------------------------


def write_and_raise(error: BaseException, root: Path, **options: Any) -> None:
    with mx8.Writer(root, columns=NUMBERED, size_limit=700, **options) as writer:
        for sample in numbered_samples(50):
            writer.write(sample)
        raise error


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_leaving_the_with_block_by_an_exception_publishes_nothing(mode: str, tmp_path: Path) -> None:
    write(tmp_path / "data", numbered_samples(9))
    before = files(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(KeyboardInterrupt(), tmp_path / "data", mode=mode)
    assert files(tmp_path / "data") == before


def everything(root: Path) -> set[str]:
    """The names of all files and directories below `root`."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def abandon(root: Path, **options: Any) -> None:
    writer = mx8.Writer(root, **{"columns": ONE, "size_limit": 200, **options})
    for i in range(100):
        writer.write({"x": i})
    writer.abandon()


@pytest.mark.parametrize("options", [{}, {"rank": 1, "world_size": 2}, {"mode": "append"}, {"mode": "overwrite"}])
@pytest.mark.parametrize("end", [KeyboardInterrupt, ZeroDivisionError, None])
def test_an_unpublished_writer_leaves_no_files_in_a_new_directory(
    end: type[BaseException] | None, options: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "in" / "new" / "directories", tmp_path / "empty"):
        if end is None:
            abandon(out, **options)
        else:
            with pytest.raises(end):
                write_and_raise(end(), out, **options)
    assert everything(tmp_path) == {"empty"}
    write(tmp_path / "empty")
    assert ids(tmp_path / "empty") == list(range(50))


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_an_unpublished_writer_leaves_a_foreign_dataset_unchanged(mode: Any, tmp_path: Path) -> None:
    write(tmp_path)
    shutil.rmtree(tmp_path / ".mx8shards")
    before = everything(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(KeyboardInterrupt(), tmp_path, mode=mode)
    assert everything(tmp_path) == before


def test_a_writer_that_fails_to_open_leaves_no_files(tmp_path: Path) -> None:
    write(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / ".mx8shards")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").touch()
    before = everything(tmp_path)
    for name, options, error in (
        ("data", {"mode": "create"}, mx8.DatasetExistsError),
        ("data", {"mode": "append", "columns": {"y": "int"}}, mx8.SchemaError),
        ("data", {"mode": "append", "columns": {"y": "int"}, "rank": 0, "world_size": 1}, mx8.SchemaError),
        ("other", {}, mx8.DatasetExistsError),
        ("other/notes", {}, mx8.DiskError),
        ("other/notes/data", {}, mx8.DiskError),
        ("new/data", {"threads": 0}, ValueError),
    ):
        with pytest.raises(error):
            mx8.Writer(tmp_path / name, **{"columns": ONE, **options})
        assert everything(tmp_path) == before, name


@pytest.mark.filterwarnings("ignore:.*never closed", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_line_while_a_writer_opens_or_closes_leaves_no_lock_held(place: Path) -> None:
    for at in range(1, 10_000):
        left = at

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in INTERRUPTED:
                return None
            left -= event == "line"
            if event == "line" and left == 0:
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            mx8.Writer(place / "in" / "data", columns={"x": "bytes"}).abandon()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        mx8.Writer(place / "in" / "data", columns=ONE).abandon()  # its lock is free
        if left > 0:
            break
    assert at > 50


def test_abandoned_writers_do_not_disturb_writers_that_start_meanwhile(place: Path) -> None:
    def begin(rank: int) -> None:
        for _ in range(100):
            mx8.Writer(place / "a" / "b", columns=ONE, rank=rank, world_size=4, threads=1).abandon()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(4)))
    assert everything(place / "a") <= {"b"}


def test_an_index_beyond_the_readers_limit_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(tmp_path / "data")
    monkeypatch.setattr("mx8shards.format.index.MAX_INDEX_BYTES", 20_000)
    with pytest.raises(mx8.FormatError, match=r"^index\.json: expected at most 20000 bytes, got \d+ \(no reader would"):
        write(tmp_path / "data", mode="append", metadata={"names": "x" * 20_000})
    assert mx8.Dataset(tmp_path / "data").snapshot == before
    assert mx8.verify(tmp_path / "data", data=True).ok


@pytest.mark.parametrize("metadata", [{1: 2}, {"a": {None: 1}}, {"a": [{True: 1}]}])
def test_metadata_with_keys_that_are_not_strings_are_refused(tmp_path: Path, metadata: Any) -> None:
    with pytest.raises(SettingError, match=r"^metadata.*: expected keys of type str, got "):
        mx8.Writer(tmp_path / "data", columns=ONE, metadata=metadata)
    assert not (tmp_path / "data").exists()


def test_a_closed_writer_refuses_samples(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns=ONE) as writer:
        writer.write({"x": 1})
        assert writer.finish() == writer.snapshot
    for again in (writer.finish, lambda: writer.write({"x": 1}), lambda: writer.set_metadata({"a": 1})):
        with pytest.raises(ValueError, match="the Writer is closed") as caught:
            again()
        assert isinstance(caught.value, ShardsError)
    assert len(mx8.Dataset(tmp_path / "data")) == 1


@pytest.mark.parametrize("call", ["write", "finish"])
def test_a_concurrent_second_thread_is_refused_and_the_first_continues(tmp_path: Path, call: str) -> None:
    inside, done = threading.Event(), threading.Event()

    class Slow(dict[str, Any]):
        """A sample whose value another thread waits for."""

        def __getitem__(self, key: str) -> Any:
            inside.set()
            assert done.wait(60)
            return super().__getitem__(key)

    with mx8.Writer(tmp_path / "data", columns=ONE) as writer, ThreadPoolExecutor(1) as pool:
        first = pool.submit(writer.write, Slow(x=1))
        assert inside.wait(60)
        try:
            with pytest.raises(ShardsError, match="two threads at once"):
                writer.write({"x": 2}) if call == "write" else writer.finish()
        finally:
            done.set()
        first.result()
        writer.write({"x": 3})
    assert [sample["x"] for sample in mx8.Dataset(tmp_path / "data")] == [1, 3]


def test_a_writer_that_is_never_finished_logs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = mx8.Writer(tmp_path / "data", columns=ONE)
    writer.write({"x": 1})
    with pytest.warns(ResourceWarning, match="nothing was published; use `with Writer"):
        del writer
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "data") in message
    assert "finish()" in message


def test_a_writer_can_be_abandoned(tmp_path: Path) -> None:
    writer = mx8.Writer(tmp_path / "data", columns=ONE)
    writer.write({"x": 1})
    writer.abandon()
    writer.abandon()
    with pytest.raises(ValueError, match="the Writer is closed"):
        writer.finish()
    assert files(tmp_path / "data") == {}


def test_a_concurrent_second_writer_is_refused_and_the_first_continues(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns=ONE) as writer:
        writer.write({"x": 1})
        for mode in ("create", "append", "overwrite"):
            with pytest.raises(mx8.DiskError, match=rf"another Writer, .* is changing .*\(process {os.getpid()}\)"):
                mx8.Writer(tmp_path / "data", columns=ONE, mode=mode)  # type: ignore[arg-type]
    assert list(mx8.Dataset(tmp_path / "data")) == [{"x": 1}]


def test_a_second_writer_in_another_process_is_refused(tmp_path: Path, repository: Path) -> None:
    code = f"""
import mx8shards as mx8
try:
    mx8.Writer({str(tmp_path / "data")!r}, columns={{"x": "int"}})
except mx8.DiskError as error:
    print(error)
"""
    with mx8.Writer(tmp_path / "data", columns=ONE):
        done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert f"(process {os.getpid()})" in done.stdout


def test_readers_see_the_old_snapshot_until_the_new_one_is_complete(tmp_path: Path) -> None:
    write(tmp_path / "data", numbered_samples(9))
    with mx8.Writer(tmp_path / "data", columns=NUMBERED, size_limit=700, mode="append") as writer:
        for sample in numbered_samples(50)[9:]:
            writer.write(sample)
            assert len(mx8.Dataset(tmp_path / "data")) == 9
    assert ids(tmp_path / "data") == list(range(50))


def test_an_open_dataset_keeps_its_snapshot(tmp_path: Path) -> None:
    write(tmp_path / "data", numbered_samples(9))
    with mx8.Dataset(tmp_path / "data") as dataset:
        write(tmp_path / "data", numbered_samples(3), mode="overwrite")
        assert [sample["id"] for sample in dataset] == list(range(9))


@pytest.mark.parametrize("swallow", [False, True])
def test_a_shard_that_cannot_be_stored_fails_the_writer_permanently(
    swallow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards are stored in the background: a caller that suppresses the error must not publish the other shards."""
    root = tmp_path / "data"
    write(root, numbered_samples(3))
    before = files(root)

    def no_room(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "create" and "shard.00002" in str(arguments[0]):
            raise mx8.DiskError("no room", subject="shard.00002")

    monkeypatch.setattr(operations, "before", no_room)
    writer = mx8.Writer(root, columns=NUMBERED, size_limit=700, mode="append", threads=2)
    raised = 0
    for sample in numbered_samples(200):
        try:
            writer.write(sample)
        except (mx8.DiskError, ValueError):
            raised += 1
            if not swallow:
                break
    assert raised
    with pytest.raises((mx8.DiskError, ValueError)):
        writer.finish()
    monkeypatch.undo()
    assert files(root) == before
    write(root, numbered_samples(1), mode="append")
    assert ids(root) == [0, 1, 2, 0]


def test_at_most_one_shard_more_than_threads_is_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, most, lock = 0, 0, threading.Lock()
    store, flush = new_shards.ShardMaker.store, writer_module.Writer._flush

    def counted_flush(self: Any) -> None:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        flush(self)

    def counted_store(self: Any, *arguments: Any) -> Any:
        nonlocal waiting
        try:
            return store(self, *arguments)
        finally:
            with lock:
                waiting -= 1

    monkeypatch.setattr(writer_module.Writer, "_flush", counted_flush)
    monkeypatch.setattr(new_shards.ShardMaker, "store", counted_store)
    write(tmp_path / "data", numbered_samples(300), threads=2)
    assert 1 <= most <= 2 + 2


# invalid arguments ----------------------------------------------------------------------------------------------------


BAD_COLUMNS: dict[str, tuple[Any, str]] = {
    "none": ({}, "columns: expected at least one column, got none"),
    "no name": ({"": "int"}, "columns: expected a name, got an empty one"),
    "unknown": (
        {"x": "integer"},
        r"column 'x': expected a known encoding, got 'integer' \(did you mean 'int'",
    ),
    "bools": ({"x": "ndarray:bool"}, "column 'x': expected a known encoding, got 'ndarray:bool'"),
    "zero": ({"x": "ndarray:uint8:0"}, "column 'x': expected a known encoding"),
    "no encoding": ({"x": None}, "column 'x': expected the name of an encoding, got NoneType"),
    "pickle": ({"x": "pkl"}, r"column 'x': .*runs code.*allow_pickle=True"),
    "number": ({3: "int", "x": "int"}, "columns: expected names of type str, got int"),
    "lone surrogate": ({"a\ud800": "int"}, "columns: expected names without lone surrogates.*got 'a.ud800'"),
    "long name": ({"x" * 1025: "int"}, "columns: expected names of at most 1024 characters, got 1025"),
    "long encoding": ({"x": "ndarray:uint8:1" + " " * 1010}, "column 'x': expected at most 1024 characters, got 1025"),
    "many": ({f"{i}": "int" for i in range(4097)}, "columns: expected at most 4096, got 4097"),
    "large": (
        {f"{i}": "ndarray:uint8:1073741824" for i in range(4)},
        "columns: expected at most 4294967295 bytes of fixed size, got 4294967296",
    ),
    "a list": (["x"], "columns: expected names with their encodings, got list"),
}


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_invalid_columns_are_refused_before_anything_is_created(columns: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises((mx8.SettingError, mx8.SchemaError), match=message):
        mx8.Writer(tmp_path / "data", columns=columns)
    assert not (tmp_path / "data").exists()


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"compression": "lzma"}, "compression: expected one of br, bz2, gz, snappy, zstd, got 'lzma'"),
    ({"compression": "zstd:23"}, "compression: expected zstd or zstd:1 to zstd:22, got 'zstd:23'"),
    ({"compression": "snappy:1"}, "compression: expected snappy"),
    ({"compression": 3}, "compression: expected"),
    ({"compression": ""}, "compression: expected"),
    ({"hashes": ["crc32"]}, "hashes: expected some of .*, got 'crc32'"),
    ({"hashes": ["md5", "md5"]}, "hashes: expected every name once, got md5, md5"),
    ({"hashes": "md5"}, "hashes: expected a list of some of .*, got 'md5'"),
    ({"hashes": None}, "hashes: expected a list of some of .*, got None"),
    ({"hashes": [["md5"]]}, "hashes: expected some of"),
    ({"size_limit": -1}, "size_limit: expected 0 to 4294967295 bytes"),
    ({"size_limit": "4gb"}, "size_limit: expected"),
    ({"size_limit": 1.5}, "size_limit: expected"),
    ({"size_limit": True}, "size_limit: expected"),
    ({"metadata": {"x": object()}}, "metadata: not JSON"),
    ({"metadata": {"x": float("nan")}}, "metadata: not JSON"),
    ({"metadata": [1]}, "metadata: not JSON"),
    ({"metadata": {1: 2, "1": 3}}, "metadata: not JSON"),
    ({"threads": 0}, "threads: expected an int from 1 to 4096, got 0"),
    ({"threads": "4"}, "threads: expected an int from 1 to 4096, got '4'"),
    ({"threads": 1.5}, "threads: expected an int from 1 to 4096, got 1.5"),
    ({"rank": 0}, "rank and world_size: expected both, or neither, got rank=0, world_size=None"),
    ({"rank": 2, "world_size": 2}, "rank: expected an int from 0 to 1, got 2"),
    ({"rank": -1, "world_size": 2}, "rank: expected an int from 0 to 1, got -1"),
    ({"rank": "0", "world_size": 2}, "rank: expected an int from 0 to 1, got '0'"),
]


@pytest.mark.parametrize(("options", "error"), BAD_OPTIONS, ids=str)
def test_invalid_options_are_refused_before_anything_is_created(
    options: dict[str, Any], error: str, tmp_path: Path
) -> None:
    with pytest.raises(mx8.SettingError, match=error):
        mx8.Writer(tmp_path / "data", columns=ONE, **options)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("world", ["0", "-1", "two", ""])
def test_an_invalid_local_world_size_is_an_error_that_names_the_variable(
    world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", world)
    wanted = f"^environment variable LOCAL_WORLD_SIZE: expected an int from 1, got '{world}'$"
    with pytest.raises(mx8.SettingError, match=wanted):
        mx8.Writer(tmp_path / "data", columns=ONE)
    assert not (tmp_path / "data").exists()


def test_datasets_are_written_and_verified_on_systems_without_cpu_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    write(tmp_path / "data")
    assert mx8.verify(tmp_path / "data", data=True).ok


@pytest.mark.parametrize(("given", "kind"), [([1], "list"), (None, "NoneType"), ("x", "str"), (7, "int")])
def test_a_sample_that_is_not_a_mapping_is_an_error_with_its_number(given: Any, kind: str, tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns=ONE) as writer:
        writer.write({"x": 1})
        with pytest.raises(mx8.SchemaError, match=f"^sample 1: expected values by column name, got {kind}$"):
            writer.write(given)


BAD_SAMPLES: list[tuple[Any, Any, str]] = [
    ("int", "7", "expected int from .*, got str"),
    ("int", 1 << 63, "expected int from -2\\*\\*63 to 2\\*\\*63 - 1, got int 9223372036854775808"),
    ("int", np.bool_(True), r"got .*True.* \(use int\(value\)\)"),
    ("int", 1.0, "got float 1.0"),
    ("int", None, "got None"),
    ("uint8", 256, "expected a number that fits uint8, got int 256"),
    ("str", b"x".decode, "expected str"),
    ("str", "\ud800", "expected str, got str"),
    ("bytes", "text", "encode text as str"),
    ("ndarray", [1, 2], r"numpy\.asarray"),
    ("ndarray:uint8:2", np.zeros(3, "uint8"), r"expected uint8 array of shape \(2,\), got uint8 array of shape \(3,\)"),
    ("ndarray:uint8:2", b"123", "expected 2 bytes, got 3"),
    ("int", b"123", "expected 8 bytes, got 3"),
    ("json", {1, 2}, "expected a JSON value, got set"),
    ("png", b"x".decode, "expected PIL image"),
]


@pytest.mark.parametrize(("encoding", "value", "message"), BAD_SAMPLES, ids=str)
def test_an_invalid_value_is_an_error_that_names_sample_and_column_and_writing_can_continue(
    encoding: str, value: Any, message: str, tmp_path: Path
) -> None:
    with mx8.Writer(tmp_path / "data", columns={"a": encoding, "n": "int"}) as writer:
        good = {"int": 1, "uint8": 1, "str": "s", "bytes": b"", "json": [], "ndarray": np.ones(2), "png": b"passes"}
        fine = {"a": good.get(encoding, np.ones(2, "uint8")), "n": 5}
        writer.write(fine)
        with pytest.raises(mx8.SchemaError, match=f"^sample 1, column 'a': .*{message}"):
            writer.write({"a": value, "n": 6})
        writer.write(fine)
    with mx8.Dataset(tmp_path / "data", columns=["n"]) as dataset:
        assert dataset.column("n").tolist() == [5, 5]


def test_a_missing_column_is_an_error_and_other_values_a_warning(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"a": "int", "b": "int"}) as writer:
        with pytest.raises(mx8.SchemaError, match=r"^sample 0, column 'b': expected a value, got none; .* 'a', 'c'"):
            writer.write({"a": 1, "c": 2})
        with pytest.warns(UserWarning, match="^samples have 'c', 'd', which are not written: columns= does not name"):
            writer.write({"a": 1, "b": 2, "d": 4, "c": 3})
        writer.write({"a": 5, "b": 6, "c": 7})  # one warning is enough
    assert list(mx8.Dataset(tmp_path / "data")) == [{"a": 1, "b": 2}, {"a": 5, "b": 6}]


def test_a_warning_that_is_an_error_leaves_the_writer_as_it_was(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns=ONE) as writer:
        with pytest.raises(UserWarning, match="'y'"):
            writer.write({"x": 1, "y": 2})
        writer.write({"x": 3})
    assert list(mx8.Dataset(tmp_path / "data")) == [{"x": 3}]


@pytest.mark.parametrize("value", [7, True, np.int8(7), np.uint64(7), np.int64(-7)])
def test_int_accepts_python_and_numpy_integers(value: Any, tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns=ONE) as writer:
        writer.write({"x": value})
    (sample,) = mx8.Dataset(tmp_path / "data")
    assert sample == {"x": int(value)}
    assert type(sample["x"]) is int


def test_a_shard_of_four_gibibytes_is_refused_and_the_writer_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_BYTES", 5000)
    with mx8.Writer(tmp_path / "data", columns={"x": "bytes"}, size_limit=None) as writer:
        writer.write({"x": bytes(3000)})
        with pytest.raises(
            mx8.SchemaError, match=r"^sample 1: expected a shard of at most 5000 bytes, got \d+ .*size_limit"
        ):
            writer.write({"x": bytes(3000)})
        writer.write({"x": b"fits"})
    assert [len(sample["x"]) for sample in mx8.Dataset(tmp_path / "data")] == [3000, 4]


def test_a_sample_is_copied_when_it_is_written(tmp_path: Path) -> None:
    array, buffer, sample = np.zeros(3), bytearray(b"abc"), {"a": 0}
    with mx8.Writer(tmp_path / "data", columns={"a": "ndarray", "b": "bytes", "j": "json"}, size_limit=None) as writer:
        writer.write({"a": array, "b": buffer, "j": sample})
        array += 1
        buffer[0] = 0
        sample["a"] = 1
    (found,) = mx8.Dataset(tmp_path / "data")
    assert same(found, {"a": np.zeros(3), "b": b"abc", "j": {"a": 0}})


# ranks ----------------------------------------------------------------------------------------------------------------


def test_each_rank_writes_a_part_that_is_a_dataset(tmp_path: Path) -> None:
    writers = [mx8.Writer(tmp_path / "data", columns=ONE, rank=rank, world_size=3) for rank in range(3)]
    for i in range(9):
        writers[i % 3].write({"x": i})
    for writer in writers:
        writer.finish()
    parts = sorted((tmp_path / "data" / ".mx8shards" / "parts").iterdir())
    assert [part.name for part in parts] == [f"rank-{rank:05}-of-00003" for rank in range(3)]
    assert [[sample["x"] for sample in mx8.Dataset(part)] for part in parts] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    with pytest.raises(mx8.DatasetNotFoundError):
        mx8.Dataset(tmp_path / "data")


def test_merge_publishes_the_parts_of_all_ranks_in_order(tmp_path: Path) -> None:
    for rank in range(3):
        some = numbered_samples(30)[rank * 10 : rank * 10 + 10]
        write(tmp_path / "data", some, rank=rank, world_size=3)
    mx8.merge([tmp_path / "data"], tmp_path / "data")
    assert ids(tmp_path / "data") == list(range(30))


def test_ranks_cannot_create_or_overwrite_an_existing_dataset(tmp_path: Path) -> None:
    write(tmp_path)
    before = everything(tmp_path)
    ranked: dict[str, Any] = {"columns": NUMBERED, "rank": 0, "world_size": 2}
    with pytest.raises(mx8.DatasetExistsError, match='mode="append" writes parts'):
        mx8.Writer(tmp_path, **ranked)
    with pytest.raises(mx8.SettingError, match=r"mode: expected 'append', as ranks add to .*, got 'overwrite'"):
        mx8.Writer(tmp_path, mode="overwrite", **ranked)
    assert everything(tmp_path) == before


def test_a_rank_appends_one_part_to_a_snapshot(tmp_path: Path) -> None:
    snapshot = write(tmp_path)
    ranked: dict[str, Any] = {"columns": NUMBERED, "rank": 0, "world_size": 1, "mode": "append"}
    for _ in range(2):
        with mx8.Writer(tmp_path, **ranked) as writer:
            writer.write(numbered_samples(60)[50])
        with pytest.raises(mx8.DatasetExistsError, match=r"rank 0 has written its part already .*remove .*anew"):
            mx8.Writer(tmp_path, **ranked)
        mx8.merge([tmp_path], tmp_path, mode="append")
    assert ids(tmp_path) == [*range(50), 50, 50]
    assert ids(Path(f"{tmp_path}@{snapshot}")) == list(range(50))


def test_a_rank_may_rewrite_its_part_before_the_merge(tmp_path: Path) -> None:
    for mode in ("create", "overwrite"):
        write(tmp_path, numbered_samples(10), rank=0, world_size=1, mode=mode)
    mx8.merge([tmp_path], tmp_path)
    assert ids(tmp_path) == list(range(10))


@pytest.mark.parametrize(
    "function",
    [
        *(mx8.Writer, mx8.Writer.write, mx8.Writer.set_metadata, mx8.merge, mx8.gc, mx8.verify),
        *(mx8.log, mx8.diff, mx8.summary),
    ],
    ids=lambda function: function.__name__,
)
def test_help_explains_every_argument(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert name == "self" or f"\n    {name}: " in text, name


def test_type_checkers_know_the_allowed_values() -> None:
    assert get_args(get_type_hints(mx8.Writer.__init__)["mode"]) == ("create", "append", "overwrite")
    assert get_args(get_type_hints(mx8.merge)["how"]) == ("link", "copy", "move")
    assert get_args(get_type_hints(mx8.merge)["mode"]) == ("create", "append")
