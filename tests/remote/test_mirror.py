"""Is a remote dataset read through its mirror: which snapshot, fetched how often, checked, and shared?"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.remote import mirror, outage_notes, provider, readers
from tests.forked import forked
from tests.remote.conftest import S3Server
from tests.remote.fault_server import FaultServer
from tests.remote.folder_store import FolderStore
from tests.remote.mirrors import URL, bytes_of, numbers, residue, serve, shards_of, upload, without_hashes, write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """The directory of a mirror, in which nothing may be left behind."""
    yield tmp_path / "cache"
    assert residue(tmp_path / "cache") == []


@pytest.fixture
def store(data: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """The store of `URL`, over the directory `data`."""
    return serve(data, monkeypatch)


@contextmanager
def asks(store: FolderStore, *keys: str) -> Iterator[None]:
    """Exactly these keys are asked for."""
    store.asked.clear()
    yield
    assert sorted(store.asked) == sorted(keys)


# over a real S3 API --------------------------------------------------------------------------------------------


def test_samples_are_fetched_on_demand_and_each_shard_once(
    data: Path, bucket: str, cache: Path, s3_server: S3Server
) -> None:
    upload(data, bucket)
    with mx8.Dataset(bucket, local=cache) as dataset:
        assert len(dataset) == 120
        assert shards_of(cache) == []
        assert dataset[7] == {"x": 7, "text": "sample 7"}
        assert len(shards_of(cache)) == 1
        assert numbers(dataset) == numbers(dataset) == list(range(120))
    assert shards_of(cache) == shards_of(data)
    before = len(s3_server.requests)
    with mx8.Dataset(bucket, local=cache) as dataset:
        assert numbers(dataset) == list(range(120))
    assert len(s3_server.requests) == before


def test_a_loader_trains_before_everything_is_local(data: Path, bucket: str, cache: Path) -> None:
    upload(data, bucket)
    with (
        mx8.Dataset(bucket, local=cache) as dataset,
        mx8.Loader(dataset, batch_size=10, output="numpy", threads=2) as loader,
    ):
        for _ in range(2):
            assert [x for batch in loader for x in batch["x"].tolist()] == list(range(120))
        assert loader.stats()["network_s"] > 0
        assert dataset.shards.all_here


def test_a_whole_shuffle_of_an_incomplete_mirror_is_warned_of(
    data: Path, store: FolderStore, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings(shuffle: Any, epochs: int) -> list[str]:
        caplog.clear()
        options: dict[str, Any] = {"batch_size": 10, "output": "numpy", "threads": 1, "shuffle": shuffle}
        with mx8.Dataset(URL, local=cache) as dataset, mx8.Loader(dataset, **options) as loader:
            for _ in range(epochs):
                assert len(list(loader)) == 12
        return [record.levelname for record in caplog.records if "shuffle=True uses" in record.getMessage()]

    assert warnings(mx8.BlockShuffle(shards=2), 0) == []
    assert warnings(True, 2) == ["WARNING"]
    assert warnings(True, 1) == []


def test_no_request_lists_and_each_shard_costs_one(data: Path, bucket: str, cache: Path, s3_server: S3Server) -> None:
    upload(data, bucket)
    before = len(s3_server.requests)
    with mx8.Dataset(bucket, local=cache) as dataset, mx8.Loader(dataset, batch_size=10, output="numpy") as loader:
        assert len(list(loader)) == 12
    asked = s3_server.requests[before:]
    assert len(asked) <= len(shards_of(data)) + 5
    assert not [path for method, path in asked if "list-type" in path]


# which snapshot ------------------------------------------------------------------------------------------------


def test_a_plain_link_stays_at_the_local_snapshot_and_refresh_asks_for_the_new_one(
    data: Path, store: FolderStore, cache: Path
) -> None:
    with asks(store, "index.json"):
        first = mx8.Dataset(URL, local=cache)
    second = write(data, 30, mode="append", start=120)
    with asks(store):
        assert mx8.Dataset(URL, local=cache).snapshot == first.snapshot != second
    with asks(store, "index.json", "index.json"):  # for its ETag, and for its bytes
        newer = mx8.Dataset(f"{URL}@refresh", local=cache)
    assert newer.snapshot == second
    with asks(store):
        assert mx8.Dataset(URL, local=cache).snapshot == second
    assert numbers(newer) == list(range(150))
    assert numbers(first) == list(range(120))


def test_a_pinned_link_asks_only_for_a_snapshot_that_is_not_here(data: Path, store: FolderStore, cache: Path) -> None:
    old = mx8.Dataset(data).snapshot
    write(data, 30, mode="append", start=120)
    kept = f".mx8shards/snapshots/{old.removeprefix('sha256:')}.json"
    with asks(store, kept):
        assert len(mx8.Dataset(f"{URL}@{old}", local=cache)) == 120
    assert not (cache / "index.json").exists()
    with asks(store):
        assert len(mx8.Dataset(f"{URL}@{old}", local=cache)) == 120
        assert len(mx8.Dataset(f"{URL}@{old[:20]}", local=cache)) == 120
    with asks(store, "index.json"):
        assert len(mx8.Dataset(URL, local=cache)) == 150


def test_an_index_that_neither_its_etag_nor_a_pinned_link_proves_is_asked_for_twice(
    data: Path, store: FolderStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, pinned = store.read, mx8.Dataset(data).snapshot
    monkeypatch.setattr(store, "read", lambda key, most: read(key, most)._replace(etag="no MD5"))
    with asks(store, f".mx8shards/snapshots/{pinned.removeprefix('sha256:')}.json"):
        assert mx8.Dataset(f"{URL}@{pinned}", local=cache).snapshot == pinned
    with asks(store, "index.json", "index.json"):
        assert mx8.Dataset(URL, local=cache).snapshot == pinned


def test_a_reader_who_may_not_list_finds_a_pinned_snapshot_in_the_index(
    data: Path, fault_server: FaultServer, cache: Path, tmp_path: Path
) -> None:
    """S3 answers 403 for an object that is missing."""
    pinned = mx8.Dataset(data).snapshot
    for path in [data / "index.json", *data.glob("*.mds")]:
        fault_server.put(f"set/{path.name}", path.read_bytes())
    fault_server.fail(403, "read", "head", key=r"set/\.mx8shards/.*", times=None)
    link = f"{fault_server.url('set')}@{pinned}"
    with mx8.Dataset(link, local=cache) as dataset:
        assert numbers(dataset) == list(range(120))
        assert dataset.column("x").tolist() == list(range(120))
    mx8.sync(link, tmp_path / "synced")
    assert numbers(mx8.Dataset(tmp_path / "synced")) == list(range(120))
    shutil.rmtree(cache)

    other = f"{fault_server.url('set')}@sha256:{64 * '0'}"
    with pytest.raises(mx8.DatasetNotFoundError, match=r"got sha256:\w+, the current one .*403 Forbidden.*ListBucket"):
        mx8.Dataset(other, local=cache)
    fault_server.fail(403, "read", key=r"set/index\.json", times=None)
    with pytest.raises(mx8.RemoteError, match=r"set/index.json: the store answered 403 Forbidden") as caught:
        mx8.Dataset(link, local=cache)
    assert caught.value.reason == "denied"


def test_a_pinned_link_whose_bytes_differ_is_refused(data: Path, store: FolderStore, cache: Path) -> None:
    wanted = "sha256:" + 64 * "0"
    shutil.copy(data / "index.json", data / f".mx8shards/snapshots/{64 * '0'}.json")
    for link in (f"{URL}@{wanted}", f"{URL}@{wanted[:20]}"):
        with pytest.raises(mx8.DatasetNotFoundError, match="expected a snapshot of this id, got sha256:"):
            mx8.Dataset(link, local=cache)


def test_a_foreign_dataset_is_read_and_can_be_pinned_by_its_index(data: Path, store: FolderStore, cache: Path) -> None:
    without_hashes(data)
    dataset = mx8.Dataset(URL, local=cache)
    assert not dataset.sealed
    assert numbers(dataset) == list(range(120))
    assert mx8.Dataset(f"{URL}@{dataset.snapshot}", local=cache).snapshot == dataset.snapshot
    with asks(store):
        assert numbers(mx8.Dataset(URL, local=cache)) == list(range(120))
    (cache / "shard.00000.mds").touch()
    with asks(store, "shard.00000.mds"):  # without a hash, a changed file is fetched again
        assert numbers(mx8.Dataset(URL, local=cache)) == list(range(120))


def test_where_no_dataset_is_that_is_said(tmp_path: Path, store: FolderStore) -> None:
    store.root = tmp_path / "nothing"
    with pytest.raises(mx8.DatasetNotFoundError, match=rf"^{URL}: no dataset here: there is no index.json"):
        mx8.Dataset(URL, local=tmp_path / "cache")


def test_a_url_of_another_scheme_is_refused_with_the_schemes_that_are_known() -> None:
    known = r"expected a URL with the scheme s3, gs, az or hf, got the scheme 'https' \(other stores"
    with pytest.raises(mx8.RemoteError, match=known):
        mx8.Dataset("https://example.org/data")


# where the mirror is -------------------------------------------------------------------------------------------


def test_mirrors_are_below_the_directory_that_the_environment_names(
    data: Path, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MX8SHARDS_CACHE", raising=False)
    mx8.Dataset(URL)
    (found,) = (tmp_path / "xdg/mx8shards").iterdir()
    monkeypatch.setenv("MX8SHARDS_CACHE", str(tmp_path / "lab"))
    mx8.Dataset(URL + "/")
    assert [path.name for path in (tmp_path / "lab").iterdir()] == [found.name]
    about = json.loads((found / ".mx8shards/mirror.json").read_text())
    assert about == {"format": 1, "url": URL}


def test_a_mirror_is_opened_as_the_local_dataset_that_it_looks_like(
    data: Path, store: FolderStore, cache: Path
) -> None:
    assert numbers(mx8.Dataset(URL, local=cache)) == list(range(120))
    local = mx8.Dataset(cache)
    assert local.snapshot == mx8.Dataset(data).snapshot
    assert numbers(local) == list(range(120))
    assert {path.name: path.read_bytes() for path in cache.glob("*.mds")} == {
        path.name: path.read_bytes() for path in data.glob("*.mds")
    }


def test_another_dataset_is_never_taken_for_a_mirror(data: Path, store: FolderStore, tmp_path: Path) -> None:
    write(tmp_path / "other", 5)
    with pytest.raises(mx8.SettingError, match=r"^local: expected a new directory or a mirror, got .*, a dataset"):
        mx8.Dataset(URL, local=tmp_path / "other", cache_limit=1)
    mx8.Dataset(URL, local=tmp_path / "mirror")
    with pytest.raises(mx8.SettingError, match=r"^local: expected a directory for s3://b/d, got .* a mirror of"):
        mx8.Dataset("s3://b/d", local=tmp_path / "mirror")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("")
    with pytest.raises(mx8.SettingError, match=r"^local: expected an empty directory or a mirror"):
        mx8.Dataset(URL, local=tmp_path / "full")


@pytest.mark.parametrize("refresh", ["", "@refresh"])
def test_two_urls_that_are_opened_at_once_do_not_share_a_mirror(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refresh: str
) -> None:
    write(tmp_path / "other", start=500)
    stores = {url: FolderStore(root, url) for url, root in ((URL, data), (f"{URL}2", tmp_path / "other"))}
    monkeypatch.setattr(mirror, "connect", lambda url, deadline_s: stores[url])
    monkeypatch.setattr(provider, "connect", lambda url, deadline_s: stores[url])
    sweep = readers.sweep

    def quicker(root: Path) -> None:  # another job opens the directory after this one has looked at it
        monkeypatch.setattr(readers, "sweep", sweep)
        mx8.Dataset(f"{URL}2", local=root)

    monkeypatch.setattr(readers, "sweep", quicker)
    with pytest.raises(mx8.SettingError, match=f"expected a directory for {URL}, got .*cache, a mirror of {URL}2"):
        mx8.Dataset(f"{URL}{refresh}", local=tmp_path / "cache")
    assert numbers(mx8.Dataset(f"{URL}2", local=tmp_path / "cache")) == list(range(500, 620))


def test_nothing_is_published_in_a_mirror(data: Path, store: FolderStore, cache: Path) -> None:
    mx8.Dataset(URL, local=cache)
    with pytest.raises(mx8.SettingError, match="the mirror of a remote dataset"):
        mx8.Writer(cache, columns={"x": "int", "text": "str"}, mode="append")  # before the first sample is written
    assert mx8.Dataset(cache).snapshot == mx8.Dataset(data).snapshot


@pytest.mark.parametrize("setting", [{"local": "x"}, {"cache_limit": 5}, {"keep_zip": True}], ids=str)
def test_settings_of_urls_are_refused_for_a_local_dataset(data: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(mx8.SettingError, match=rf"^{next(iter(setting))}: expected none for the local dataset"):
        mx8.Dataset(data, **setting)


@pytest.mark.parametrize("setting", [{"cache_limit": "much"}, {"cache_limit": 0}, {"deadline_s": 0}], ids=str)
def test_wrong_settings_are_refused(store: FolderStore, tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(mx8.SettingError, match=rf"^{next(iter(setting))}: expected"):
        mx8.Dataset(URL, local=tmp_path / "cache", **setting)


def test_a_closed_dataset_fetches_nothing_and_its_views_connect_again(
    fault_server: FaultServer, tmp_path: Path
) -> None:
    url = fault_server.url("set")
    write(url)  # type: ignore[arg-type]
    hang = fault_server.fail("hang", "read", key=".*mds", times=None)
    dataset = mx8.Dataset(url, local=tmp_path / "m", deadline_s=300)
    view = dataset.select([0])
    failures: list[Exception] = []

    def read(i: int) -> None:
        with pytest.raises(mx8.RemoteError, match="was closed") as caught:
            dataset[i]
        failures.append(caught.value)

    readers = [threading.Thread(target=read, args=(i,)) for i in (0, 119)]
    for reader in readers:
        reader.start()
    while hang.met < len(readers):
        time.sleep(0.01)
    dataset.close()
    for reader in readers:
        reader.join(15)  # an attempt without an answer lasts for 30 s
    assert len(failures) == len(readers)
    assert list((tmp_path / "m/.mx8shards/claims").iterdir()) == []
    fault_server.heal()
    assert view[0]["x"] == 0


def test_a_dataset_that_is_closed_no_longer_waits_for_another_job(fault_server: FaultServer, tmp_path: Path) -> None:
    url = fault_server.url("set")
    write(url)  # type: ignore[arg-type]
    hang = fault_server.fail("hang", "read", key=".*mds", times=None)
    fetching, waiting = (mx8.Dataset(url, local=tmp_path / "m", deadline_s=300) for _ in range(2))
    failures: list[Exception] = []

    def read(dataset: mx8.Dataset) -> None:
        with pytest.raises(mx8.RemoteError, match="was closed") as caught:
            dataset[0]
        failures.append(caught.value)

    readers = [threading.Thread(target=read, args=(each,)) for each in (fetching, waiting)]
    readers[0].start()
    while not hang.met:
        time.sleep(0.01)
    readers[1].start()
    time.sleep(0.2)
    waiting.close()
    readers[1].join(15)
    assert len(failures) == 1
    assert hang.met == 1
    fetching.close()
    readers[0].join(15)
    assert len(failures) == 2


# what is here is checked ---------------------------------------------------------------------------------------


def test_a_changed_file_is_checked_again_and_fetched_only_if_it_is_wrong(
    data: Path, store: FolderStore, cache: Path
) -> None:
    numbers(mx8.Dataset(URL, local=cache))
    touched, rotten, gone = (cache / f"shard.0000{i}.mds" for i in range(3))
    touched.touch()
    content = bytearray(rotten.read_bytes())
    content[-1] ^= 1
    rotten.write_bytes(content)
    gone.unlink()
    with asks(store, rotten.name, gone.name):
        assert numbers(mx8.Dataset(URL, local=cache)) == list(range(120))
    assert rotten.read_bytes() == (data / rotten.name).read_bytes()


def test_files_that_somebody_copied_into_the_mirror_are_checked_and_used(
    data: Path, store: FolderStore, cache: Path
) -> None:
    mx8.Dataset(URL, local=cache)
    for path in data.glob("*.mds"):
        shutil.copy(path, cache)
    with asks(store):
        assert numbers(mx8.Dataset(URL, local=cache)) == list(range(120))


def test_wrong_bytes_are_fetched_once_more(data: Path, store: FolderStore, cache: Path) -> None:
    wrong = {"shard.00002.mds"}

    def once(key: str, found: bytes) -> bytes:
        if key not in wrong:
            return found
        wrong.discard(key)
        return found[:-1] + bytes([found[-1] ^ 1])

    store.fault = once
    assert numbers(mx8.Dataset(URL, local=cache)) == list(range(120))
    assert store.asked.count("shard.00002.mds") == 2


@pytest.mark.parametrize("fault", ["flipped", "short", "long"])
def test_bytes_that_stay_wrong_are_an_error_and_never_visible(
    data: Path, store: FolderStore, cache: Path, fault: str
) -> None:
    bad = {
        "flipped": lambda found: bytes([found[0] ^ 1]) + found[1:],
        "short": lambda found: found[:-1],
        "long": lambda found: found + b"x",
    }[fault]
    store.fault = lambda key, found: bad(found) if key == "shard.00001.mds" else found
    dataset = mx8.Dataset(URL, local=cache)
    row = int(dataset.shards.starts[1])
    for _ in range(2):
        if fault == "flipped":
            with pytest.raises(mx8.IntegrityError, match=r"^cache/shard.00001.mds: "):
                dataset[row]
        else:
            with pytest.raises(mx8.RemoteError, match=r"shard.00001.mds: the object was replaced") as caught:
                dataset[row]
            assert caught.value.reason == "changed"
    assert dataset[row - 1]["x"] == row - 1
    assert not (cache / "shard.00001.mds").exists()
    store.fault = lambda key, found: found
    assert dataset[row]["x"] == row


# compression ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_zip", [False, True])
def test_compressed_shards_are_unpacked_on_arrival_or_kept(
    tmp_path: Path, store: FolderStore, cache: Path, keep_zip: bool
) -> None:
    write(tmp_path / "zipped", compression="zstd")
    store.root = tmp_path / "zipped"
    options: dict[str, Any] = {"local": cache, "keep_zip": keep_zip, "cache_dir": tmp_path / "unpacked"}
    assert numbers(mx8.Dataset(URL, **options)) == list(range(120))
    assert {path.suffix for path in cache.glob("*.mds*")} == {".zstd" if keep_zip else ".mds"}
    assert (tmp_path / "unpacked").exists() == keep_zip
    with asks(store):
        assert numbers(mx8.Dataset(URL, **options)) == list(range(120))
        assert numbers(mx8.Dataset(URL, local=cache)) == list(range(120))


# failures ------------------------------------------------------------------------------------------------------


def read_tolerantly(dataset: mx8.Dataset) -> list[int]:
    with mx8.Loader(dataset, batch_size=10, output="numpy", on_error="skip") as loader:
        return [x for batch in loader for x in batch["x"].tolist()]


@pytest.mark.parametrize("reason", ["missing", "changed"])
def test_a_shard_that_is_missing_or_another_one_is_no_lost_sample(
    data: Path, store: FolderStore, cache: Path, reason: str
) -> None:
    dataset = mx8.Dataset(URL, local=cache)
    shard = data / "shard.00001.mds"
    before = shard.read_bytes()
    if reason == "missing":
        shard.unlink()
        message = "shard.00001.mds: the index names this shard, but there is no such object"
    else:
        shard.write_bytes(before + b"x")
        message = "shard.00001.mds: the object was replaced"
    with pytest.raises(mx8.RemoteError, match=message) as raised:
        dataset[int(dataset.shards.starts[1])]
    assert raised.value.reason == reason
    with pytest.raises(mx8.LoaderError, match=message) as caught:
        read_tolerantly(dataset)
    assert isinstance(caught.value.__cause__, mx8.RemoteError)
    shard.write_bytes(before)
    assert read_tolerantly(dataset) == list(range(120))


def test_an_object_that_is_missing_once_is_asked_for_again(data: Path, store: FolderStore, cache: Path) -> None:
    missing = {"shard.00001.mds"}

    def once(key: str, found: bytes) -> bytes:
        if key in missing:
            missing.discard(key)
            raise mx8.RemoteError("404 Not Found", subject=key, reason="missing")
        return found

    dataset = mx8.Dataset(URL, local=cache)
    store.fault = once
    assert read_tolerantly(dataset) == list(range(120))
    assert not missing


@pytest.mark.parametrize("sealed", [True, False])
def test_a_snapshot_that_another_one_replaced_is_no_lost_sample(
    data: Path, store: FolderStore, cache: Path, tmp_path: Path, sealed: bool
) -> None:
    if not sealed:
        without_hashes(data)
    dataset = mx8.Dataset(URL, local=cache)
    assert dataset[0]["x"] == 0
    shutil.rmtree(data)
    write(data, start=500)  # shards of the same names and sizes; the old snapshot is not kept
    if not sealed:
        without_hashes(data)
        (data / "index.json").write_text((data / "index.json").read_text() + " ")
        (data / "shard.00001.mds").write_bytes(b"of another size")
    with pytest.raises(mx8.LoaderError, match=r"@sha256:[0-9a-f]{64}: the snapshot was removed") as caught:
        read_tolerantly(dataset)
    assert isinstance(caught.value.__cause__, mx8.RemoteError)
    assert caught.value.__cause__.reason == "missing"


@pytest.mark.parametrize("may_list", [True, False])
def test_wrong_bytes_of_a_snapshot_that_is_there_may_be_skipped(
    data: Path, store: FolderStore, cache: Path, monkeypatch: pytest.MonkeyPatch, may_list: bool
) -> None:
    if not may_list:
        shutil.rmtree(data / ".mx8shards/snapshots")

        def denied(key: str) -> None:
            raise mx8.RemoteError("403 Forbidden", subject=key, reason="denied")

        monkeypatch.setattr(store, "head", denied)
    store.fault = lambda key, found: found[:-1] + bytes([found[-1] ^ 1]) if key == "shard.00001.mds" else found
    dataset = mx8.Dataset(URL, local=cache)
    lost = range(*dataset.shards.starts[1:3].tolist())
    assert read_tolerantly(dataset) == [x for x in range(120) if x not in lost]


def test_an_outage_is_no_lost_sample(data: Path, store: FolderStore, cache: Path) -> None:
    def out(key: str, found: bytes) -> bytes:
        raise mx8.RemoteError("no answer", subject=URL)

    dataset = mx8.Dataset(URL, local=cache)
    store.fault = out
    with (
        mx8.Loader(dataset, batch_size=10, output="numpy") as loader,
        pytest.raises(mx8.LoaderError, match="no answer") as raised,
    ):
        list(loader)
    assert "on_error" not in str(raised.value)  # which would not help
    with (
        mx8.Loader(dataset, batch_size=10, output="numpy", on_error="skip") as loader,
        pytest.raises(mx8.LoaderError, match="RemoteError: s3://folder/data: no answer") as caught,
    ):
        list(loader)
    assert isinstance(caught.value.__cause__, mx8.RemoteError)
    assert loader.state_dict()["position"] == 0
    store.fault = lambda key, found: found
    with mx8.Loader(dataset, batch_size=10, output="numpy", on_error="skip") as loader:
        assert len(list(loader)) > 0


def test_a_snapshot_that_is_removed_meanwhile_is_named_as_that(data: Path, store: FolderStore, cache: Path) -> None:
    dataset = mx8.Dataset(URL, local=cache)
    assert dataset[0]["x"] == 0
    shutil.rmtree(data)
    with pytest.raises(mx8.RemoteError, match=r"@sha256:[0-9a-f]{64}: the snapshot was removed") as caught:
        numbers(dataset)
    assert caught.value.reason == "missing"
    assert dataset[0]["x"] == 0


# side-cars, views, processes -----------------------------------------------------------------------------------


def test_a_column_comes_from_its_side_car_without_any_shard(data: Path, store: FolderStore, cache: Path) -> None:
    dataset = mx8.Dataset(URL, local=cache)
    store.asked.clear()
    assert dataset.column("x").tolist() == list(range(120))
    assert len(store.asked) == 1
    assert store.asked[0].startswith(".mx8shards/sidecars/")
    assert len(dataset.where("x", 7)) == 1
    assert len(store.asked) == 1


def test_views_of_a_remote_dataset_are_joined_with_local_ones(data: Path, store: FolderStore, cache: Path) -> None:
    both = mx8.concat([mx8.Dataset(URL, local=cache).select([3, 1]), mx8.Dataset(data)])
    assert [sample["x"] for sample in both[:4]] == [3, 1, 0, 1]
    with mx8.Loader(both, batch_size=61, output="numpy") as loader:
        assert [x for batch in loader for x in batch["x"].tolist()] == [3, 1, *range(120)]


def test_a_pickled_dataset_connects_anew(data: Path, bucket: str, cache: Path) -> None:
    upload(data, bucket)
    dataset = mx8.Dataset(bucket, local=cache)
    assert dataset[0]["x"] == 0
    copy = pickle.loads(pickle.dumps(dataset))
    assert numbers(copy) == list(range(120))


def test_a_forked_child_fetches_too(data: Path, bucket: str, cache: Path) -> None:
    upload(data, bucket)
    dataset = mx8.Dataset(bucket, local=cache)
    assert dataset[0]["x"] == 0
    child = os.fork()
    if not child:
        signal.alarm(60)
        found = []
        with suppress(Exception):
            found = numbers(dataset)
        os._exit(0 if found == list(range(120)) else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert numbers(dataset) == list(range(120))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files any group")
def test_files_get_the_mode_of_the_umask_and_the_group_of_the_directory(
    data: Path, store: FolderStore, cache: Path
) -> None:
    cache.mkdir()
    os.chown(cache, -1, 4242)
    os.chmod(cache, 0o2775)
    before = os.umask(0o002)
    try:
        numbers(mx8.Dataset(URL, local=cache))
    finally:
        os.umask(before)
    for path in cache.rglob("*"):
        found = path.stat()
        assert found.st_gid == 4242, path
        assert stat.S_IMODE(found.st_mode) & 0o777 == (0o775 if path.is_dir() else 0o664), path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become other users")
@pytest.mark.parametrize("setgid", [True, False], ids=["setgid", "plain"])
@pytest.mark.parametrize("limited", [True, False], ids=["limited", "unlimited"])
def test_users_of_a_group_share_a_mirror(
    data: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, setgid: bool, limited: bool
) -> None:
    group = 4242
    limit = sum(sorted(path.stat().st_size for path in data.glob("*.mds"))[-3:]) if limited else None
    with TemporaryDirectory(prefix="shared") as shared:  # the parents of tmp_path are root's only
        os.chmod(shared, 0o755)
        base = Path(shared) / "cache"
        base.mkdir()
        os.chown(base, -1, group)
        os.chmod(base, 0o2775 if setgid else 0o775)
        monkeypatch.setenv("MX8SHARDS_CACHE", str(base))

        def read(user: int, positions: range) -> None:
            os.setgroups([group])
            os.setgid(user)
            os.setuid(user)
            os.umask(0o002)
            with mx8.Dataset(URL, cache_limit=limit) as dataset:
                assert [dataset[i]["x"] for i in positions] == [*positions]

        store.root = Path(shared) / "data"
        shutil.copytree(data, store.root)
        for user, positions in [(4001, range(60)), (4002, range(30, 120)), (4001, range(120))]:
            child = forked(partial(read, user, positions))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        (root,) = base.iterdir()
        assert {path.stat().st_gid for path in (base, *base.rglob("*"))} == {group}
        assert residue(root) == []


def test_a_full_disk_names_the_cache(data: Path, store: FolderStore, cache: Path) -> None:
    def full(key: str, found: bytes) -> bytes:
        raise OSError(28, "No space left on device")

    dataset = mx8.Dataset(URL, local=cache)
    store.fault = full
    with pytest.raises(mx8.DiskError, match=rf"^{re.escape(str(cache))}: the disk is full"):
        dataset[0]


def test_random_access_keeps_to_the_limit(data: Path, store: FolderStore, cache: Path) -> None:
    sizes = [path.stat().st_size for path in data.glob("*.mds")]
    limit = sum(sorted(sizes)[-3:])
    dataset = mx8.Dataset(URL, local=cache, cache_limit=limit)
    for position in np.random.default_rng(3).integers(0, 120, 60).tolist():
        assert dataset[position]["x"] == position
        assert bytes_of(cache) <= limit


@contextmanager
def outage_in_another_job(
    dataset: mx8.Dataset, store: FolderStore, cache: Path, row: int, lasts_s: float
) -> Iterator[None]:
    """Another process fetches the shard of a row, and gives up on the store after this time."""

    def out(key: str, found: bytes) -> bytes:
        time.sleep(lasts_s)
        raise mx8.RemoteError("no answer at all", subject=URL)

    store.fault = out
    child = os.fork()
    if not child:
        signal.alarm(30)
        with suppress(mx8.RemoteError):
            dataset[row]
        os._exit(0)
    store.fault = lambda key, found: found
    while not list((cache / ".mx8shards/claims").glob("shard.*")):
        time.sleep(0.01)
    yield
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_waits_for_a_fetch_that_began_in_an_outage_tries_again(data: Path, store: FolderStore, cache: Path) -> None:
    dataset = mx8.Dataset(URL, local=cache)
    begun, over = threading.Event(), threading.Event()

    def out(key: str, found: bytes) -> bytes:
        begun.set()
        over.wait(60)
        store.fault = lambda key, found: found
        raise mx8.RemoteError("no answer", subject=URL)

    store.fault = out
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(dataset.shards.provide, 1)
        assert begun.wait(60)
        second = threads.submit(dataset.shards.provide, 1)
        time.sleep(0.05)  # until it waits for the first
        over.set()
        with pytest.raises(mx8.RemoteError, match="no answer"):
            first.result()
        second.result()
    assert shards_of(cache) == ["shard.00001.mds"]


def test_jobs_that_wait_for_one_shard_learn_of_an_outage_together(data: Path, store: FolderStore, cache: Path) -> None:
    dataset = mx8.Dataset(URL, local=cache, deadline_s=3.0)
    row = int(dataset.shards.starts[1])
    with (
        outage_in_another_job(dataset, store, cache, row, 2.75),  # nearly as long, so that it ends first
        pytest.raises(mx8.RemoteError, match=r"no answer at all \(seen by another process\)"),
    ):
        dataset[row]
    assert dataset[row]["x"] == row


@pytest.mark.parametrize("difference", ["deadline", "endpoint"])
def test_an_outage_of_another_job_is_not_that_of_a_more_patient_one_or_of_another_endpoint(
    data: Path, store: FolderStore, cache: Path, monkeypatch: pytest.MonkeyPatch, difference: str
) -> None:
    dataset = mx8.Dataset(URL, local=cache, deadline_s=1.5)
    row = int(dataset.shards.starts[1])
    patient = mx8.Dataset(URL, local=cache, deadline_s=30)
    with outage_in_another_job(dataset, store, cache, row, 1.5):
        if difference == "endpoint":
            monkeypatch.setattr(outage_notes, "_ABOUT", 0)
            store.address += " at another endpoint"
        assert patient[row]["x"] == row
