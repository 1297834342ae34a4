"""Are datasets on the Hugging Face Hub read, against a local server that answers as the Hub does?"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.errors import FormatError, RemoteError, SettingError
from mx8shards.remote.open_store import open_store
from tests.remote.hub_server import REPOSITORY, HubServer
from tests.remote.mirrors import numbers, without_hashes, write

URL = f"hf://datasets/{REPOSITORY}"
SHARD = os.urandom(3 << 20)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


def test_an_index_and_a_shard_are_read(hub: HubServer, tmp_path: Path) -> None:
    hub.push({"train/index.json": b"{}", "train/a shard#1.mds": SHARD})
    store = open_store(f"{URL}/train")
    assert store.read("index.json", 2)[:2] == (b"{}", f'"{hashlib.sha1(b"{}").hexdigest()}"')
    assert store.read("a shard#1.mds", len(SHARD))[:2] == (SHARD, f'"{hashlib.sha256(SHARD).hexdigest()}"')
    store.fetch("a shard#1.mds", tmp_path / "shard", len(SHARD))
    assert (tmp_path / "shard").read_bytes() == SHARD
    assert store.url == f"{URL}/train"


def test_a_file_larger_than_the_limit_is_not_read(hub: HubServer) -> None:
    hub.push({"index.json": bytes(100)})
    with pytest.raises(FormatError, match="at most 99 bytes, got 100"):
        open_store(URL).read("index.json", 99)


def test_everything_comes_from_the_commit_of_the_index(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.push({"index.json": b"1", "x.mds": b"first"})
    store = open_store(URL)
    assert store.read("index.json", 9)[::2] == (b"1", f"{URL}@{commit}")
    hub.push({"index.json": b"2", "x.mds": b"other", "new.mds": b""})
    for number, same in enumerate((store, pickle.loads(pickle.dumps(store)))):
        same.fetch("x.mds", tmp_path / str(number), 5)
        assert (tmp_path / str(number)).read_bytes() == b"first"
    assert store.read("index.json", 9).data == b"1"
    assert store.read_spans("x.mds", [(0, 5)], None) == [b"first"]
    assert [found.key for found in store.list()] == ["index.json", "x.mds"]
    assert open_store(URL).read("index.json", 9).data == b"2"


def test_a_revision_is_a_branch_a_commit_or_a_pull_request(hub: HubServer) -> None:
    commit = hub.push({"x.mds": b"1"})
    hub.push({"x.mds": b"2"})
    hub.push({"x.mds": b"3"}, "refs/pr/1")
    for revision, data in ((commit, b"1"), ("main", b"2"), ("refs%2Fpr%2F1", b"3")):
        assert open_store(f"{URL}@{revision}").read("x.mds", 9).data == data
    with pytest.raises(RemoteError, match="404 Not Found, RevisionNotFound"):
        open_store(f"{URL}@none").read("x.mds", 9)


def test_spans_are_read_if_the_file_is_still_the_same(hub: HubServer) -> None:
    hub.push({"x.mds": SHARD, "small.json": b"0123456789"})
    store = open_store(URL)
    head = store.head("x.mds")
    assert head is not None
    assert head[:3] == ("x.mds", len(SHARD), f'"{hashlib.sha256(SHARD).hexdigest()}"')
    spans = [(2_500_000, 2_500_001), (7, 7), (10, 20), (5, 12)]
    assert store.read_spans("x.mds", spans, head.etag) == [SHARD[begin:end] for begin, end in spans]
    small = store.head("small.json")
    assert small is not None
    assert store.read_spans("small.json", [(2, 4)], small.etag) == [b"23"]
    hub.push({"x.mds": SHARD[::-1], "small.json": b"9876543210"})
    for found in (head, small):
        with pytest.raises(RemoteError) as caught:
            store.read_spans(found.key, [(2, 4)], found.etag)
        assert caught.value.reason == "changed"
    assert store.head("none") is None


def test_spans_behind_the_end_are_refused(hub: HubServer) -> None:
    hub.push({"x.mds": b"12345"})
    for span in [(3, 9), (7, 9)]:
        with pytest.raises(RemoteError) as caught:
            open_store(URL).read_spans("x.mds", [span], None)
        assert caught.value.reason == "changed"


def test_the_token_is_sent_to_the_hub_only_and_never_shown(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push({"x.mds": b"12345"})
    hub.token = "hf_secret"
    store = open_store(URL)
    with pytest.raises(RemoteError, match=r"401 Unauthorized, RepoNotFound \(set HF_TOKEN") as caught:
        store.read("x.mds", 9)
    assert caught.value.reason == "denied"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store.fetch("x.mds", tmp_path / "x", 5)
    tokens = {host: headers.get("Authorization") for host, _, _, headers in hub.requests}
    assert tokens == {"hub": "Bearer hf_secret", "storage": None}
    assert b"hf_secret" not in pickle.dumps(store)
    monkeypatch.setenv("HF_TOKEN", "hf_secret\nX: y")
    with pytest.raises(SettingError) as refused:
        store.read("x.mds", 9)
    assert "hf_secret" not in str(refused.value)


def test_an_error_does_not_show_a_signed_address(hub: HubServer) -> None:
    hub.push({"x.mds": b"12345"})
    hub.faults = lambda handler: handler.host == "storage" and (handler.answer(403) or True)
    with pytest.raises(RemoteError, match=r"x\.mds: the store answered 403") as caught:
        open_store(URL).read("x.mds", 9)
    assert "Signature" not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "/obj?Signature=SECRET\r",
        "/obj?Signature=SECRET&name=\u00e9",
        "//[half/obj?Signature=SECRET",
        "//host:port/obj?Signature=SECRET",
        "http:///obj?Signature=SECRET",
    ],
)
def test_an_odd_signed_address_is_not_shown(hub: HubServer, location: str) -> None:
    hub.push({"x.mds": b"12345"})
    hub.faults = lambda handler: handler.host == "hub" and (handler.answer(302, Location=location) or True)
    with pytest.raises(RemoteError) as caught:
        open_store(URL, deadline_s=1).read("x.mds", 9)
    assert "SECRET" not in str(caught.value)


def test_a_redirect_to_an_address_with_spaces_is_followed(hub: HubServer) -> None:
    hub.push({"x.mds": b"12345"})
    digest = hashlib.sha256(b"12345").hexdigest()
    address = f'{hub.storage_url}/{digest}?X=SECRET%20&name="x y.mds"'
    hub.faults = lambda handler: handler.host == "hub" and (handler.answer(302, Location=address) or True)
    assert open_store(URL, deadline_s=1).read("x.mds", 9).data == b"12345"
    (path,) = (path for host, _, path, _ in hub.requests if host == "storage")
    assert path == f"/{digest}?X=SECRET%20&name=%22x%20y.mds%22"


@pytest.mark.parametrize("path", ["train/../x", "train//x", "other/x", "train/\x1b", "/train/x", "train", 7])
def test_a_listing_names_only_files_below_the_prefix(hub: HubServer, path: Any) -> None:
    hub.push({"train/index.json": b"{}"})
    page = json.dumps([{"type": "file", "path": path, "size": 0, "oid": "0"}]).encode()
    hub.faults = lambda handler: handler.answer(200, page) or True
    with pytest.raises(RemoteError, match="listing") as caught:
        list(open_store(f"{URL}/train", deadline_s=1).list())
    assert "index.json" not in str(caught.value)


def files(root: Path, prefix: str) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != "lock")
    return {f"{prefix}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in paths}


@pytest.mark.parametrize("sealed", [True, False])
def test_a_dataset_stays_at_its_commit_whatever_is_pushed_meanwhile(
    hub: HubServer, tmp_path: Path, sealed: bool
) -> None:
    for name, start in (("one", 100), ("two", 500)):
        write(tmp_path / name, 100, start=start)
        if not sealed:
            without_hashes(tmp_path / name)
    commit = hub.push(files(tmp_path / "one", "train"))
    dataset = mx8.Dataset(f"{URL}/train", local=tmp_path / "cache", deadline_s=5)
    assert dataset[0]["x"] == 100
    hub.push(files(tmp_path / "two", "train"))
    assert numbers(pickle.loads(pickle.dumps(dataset))) == numbers(dataset) == list(range(100, 200))
    asked = [path for host, _, path, _ in hub.requests if host == "hub" and path.endswith(".mds")]
    assert {path.split("/")[5] for path in asked} == {commit}
    same = mx8.Dataset(f"{URL}/train", local=tmp_path / "cache", deadline_s=5)
    (tmp_path / "cache/shard.00000.mds").unlink()
    assert numbers(same) == list(range(100, 200))


def test_a_pinned_snapshot_of_the_hub_is_the_one_that_its_id_names(hub: HubServer, tmp_path: Path) -> None:
    snapshots, commits = [], []
    for mode, start, count in (("create", 0, 120), ("append", 120, 30)):
        snapshots.append(write(tmp_path / "data", count, mode=mode, start=start))
        commits.append(hub.push(files(tmp_path / "data", "train")))
    for revision, snapshot, count in (("", 0, 120), ("", 1, 150), (f"@{commits[0]}", 0, 120)):
        local = tmp_path / f"{bool(revision)}{snapshot}"
        with mx8.Dataset(f"{URL}{revision}/train@{snapshots[snapshot]}", local=local) as dataset:
            assert dataset.snapshot == snapshots[snapshot]
            assert numbers(dataset) == list(range(count))
    with pytest.raises(mx8.DatasetNotFoundError, match="expected a snapshot of this id"):
        mx8.Dataset(f"{URL}@{commits[0]}/train@{snapshots[1]}", local=tmp_path / "none")


def test_a_repair_takes_the_commit_of_the_mirror(hub: HubServer, tmp_path: Path) -> None:
    write(tmp_path / "one", 100, start=100)
    write(tmp_path / "two", 100, start=500)
    hub.push(files(tmp_path / "one", "train"))
    assert len(numbers(mx8.Dataset(f"{URL}/train", local=tmp_path / "cache"))) == 100
    hub.push(files(tmp_path / "two", "train"))
    (tmp_path / "cache/shard.00001.mds").write_bytes(b"damaged")
    assert mx8.verify(tmp_path / "cache", data=True, repair=True).ok
    assert numbers(mx8.Dataset(tmp_path / "cache")) == list(range(100, 200))


def test_a_refreshed_dataset_of_the_hub_comes_from_the_new_commit(hub: HubServer, tmp_path: Path) -> None:
    write(tmp_path / "data", 100)
    first = hub.push(files(tmp_path / "data", "train"))
    mx8.Dataset(f"{URL}/train", local=tmp_path / "cache")
    hub.push({"other.txt": b""})
    del hub.commits[first]  # as if the history had been squashed
    refreshed = mx8.Dataset(f"{URL}/train@refresh", local=tmp_path / "cache", deadline_s=5)
    assert numbers(refreshed) == numbers(mx8.Dataset(f"{URL}/train", local=tmp_path / "cache")) == list(range(100))


def test_verify_and_sync_see_one_commit_of_the_hub(hub: HubServer, tmp_path: Path) -> None:
    write(tmp_path / "data", 50)
    old = files(tmp_path / "data", "train")
    write(tmp_path / "data", 50, start=50, mode="append")
    write(tmp_path / "other", 70, start=500)
    hub.push(old | files(tmp_path / "data", "train"))

    def push_after_the_index(handler: Any) -> bool:
        if handler.path.endswith(".json") and handler.host == "hub" and "snapshots" in handler.path:
            hub.push(files(tmp_path / "other", "train"))
        return False

    hub.faults = push_after_the_index
    assert mx8.verify(f"{URL}/train", data=True).ok
    hub.push(old | files(tmp_path / "data", "train"))
    mx8.sync(f"{URL}/train", tmp_path / "copy")
    assert numbers(mx8.Dataset(tmp_path / "copy")) == list(range(100))


def test_verify_writes_nothing_outside_its_directory(hub: HubServer, tmp_path: Path) -> None:
    write(tmp_path / "data", 50)
    outside = "../" * 12 + f"{tmp_path}/outside".removeprefix("/")
    hub.push(files(tmp_path / "data", "train") | {f"train/.mx8shards/sidecars/{outside}": b"written by the server"})
    with pytest.raises(RemoteError, match="listing"):
        mx8.verify(f"{URL}/train", data=True)
    assert not (tmp_path / "outside").exists()


def test_a_listing_has_all_pages(hub: HubServer) -> None:
    hub.page_size = 2
    hub.push({f"train/{number}.mds": bytes(number) for number in range(5)} | {"train/index.json": b"{}", "x": b""})
    store = open_store(f"{URL}/train")
    assert [(found.key, found.size_bytes) for found in store.list()] == [
        *((f"{number}.mds", number) for number in range(5)),
        ("index.json", 2),
    ]
    assert [found.etag for found in store.list()] == [store.head(found.key).etag for found in store.list()]  # type: ignore[union-attr]
    assert list(store.list("none")) == []
    with pytest.raises(RemoteError, match="RepoNotFound"):
        list(open_store("hf://datasets/no/repository").list())


def test_it_is_read_only(hub: HubServer, tmp_path: Path) -> None:
    write(tmp_path / "data")
    (tmp_path / "pictures").mkdir()
    store, data, url = open_store(URL), tmp_path / "data", f"{URL}/new"
    changes: list[Callable[[], object]] = [
        lambda: store.put("x", b""),
        lambda: store.delete(["x"]),
        lambda: mx8.Writer(url, columns={"x": "int"}),
        lambda: mx8.Writer(url, columns={"x": "int"}, single_writer=True),
        lambda: mx8.sync(data, url),
        lambda: mx8.merge([data], url),
        lambda: mx8.gc(url),
        lambda: mx8.convert_from("imagefolder", tmp_path / "pictures", url),
    ]
    for change in changes:
        with pytest.raises(RemoteError, match="read only") as caught:
            change()
        assert caught.value.reason == "denied"


def cut(handler: Any) -> None:
    handler.send_response(206 if handler.headers.get("Range") else 200)
    if handler.headers.get("Range"):
        begin = int(handler.headers["Range"][6:].partition("-")[0])
        handler.send_header("Content-Range", f"bytes {begin}-{len(SHARD) - 1}/{len(SHARD)}")
        body = SHARD[begin:]
    else:
        body = SHARD
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: 1 << 20])
    handler.close_connection = True


def reset(handler: Any) -> None:
    handler.close_connection = True


def busy(handler: Any) -> None:
    handler.answer(503)


@pytest.mark.parametrize("fault", [cut, reset, busy])
@pytest.mark.parametrize("host", ["hub", "storage"])
def test_a_transient_fault_is_survived(hub: HubServer, tmp_path: Path, fault: Any, host: str) -> None:
    hub.push({"x.mds": SHARD})
    left = 0

    def fail_twice(handler: Any) -> bool:
        nonlocal left
        if handler.host != host or left == 0 or (fault is cut and host == "hub"):
            return False
        left -= 1
        fault(handler)
        return True

    hub.faults = fail_twice
    left, store = 2, open_store(URL, deadline_s=30)
    store.fetch("x.mds", tmp_path / "x", len(SHARD))
    assert (tmp_path / "x").read_bytes() == SHARD
    left = 2
    assert store.read("x.mds", len(SHARD)).data == SHARD


def test_a_cut_answer_is_continued_where_it_stopped(hub: HubServer, tmp_path: Path) -> None:
    hub.push({"x.mds": SHARD})
    faults = [cut]
    hub.faults = lambda handler: handler.host == "storage" and bool(faults) and not faults.pop()(handler)
    open_store(URL).fetch("x.mds", tmp_path / "x", len(SHARD))
    assert (tmp_path / "x").read_bytes() == SHARD
    ranges = [headers.get("Range") for host, _, _, headers in hub.requests if host == "storage"]
    assert ranges == [None, f"bytes={1 << 20}-{len(SHARD) - 1}"]


def test_a_file_that_comes_slowly_is_no_outage(hub: HubServer, tmp_path: Path) -> None:
    data = SHARD + SHARD[: 1 << 20]
    hub.push({"x.mds": data})

    def stall(handler: Any) -> bool:
        """Send a MiB, and break off later: all attempts together take longer than the deadline."""
        if handler.host == "storage":
            begin = int(handler.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            handler.send_response(206 if begin else 200)
            handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            handler.send_header("Content-Length", str(len(data) - begin))
            handler.end_headers()
            handler.wfile.write(data[begin : begin + (1 << 20)])
            time.sleep(0.7)
            handler.close_connection = True
        return bool(handler.host == "storage")

    hub.faults = stall
    open_store(URL, deadline_s=2).fetch("x.mds", tmp_path / "x", len(data))
    assert (tmp_path / "x").read_bytes() == data


def test_an_outage_is_named_at_the_deadline_and_leaves_no_file(hub: HubServer, tmp_path: Path) -> None:
    hub.push({"x.mds": SHARD})
    hub.faults = lambda handler: handler.answer(503) or True
    with pytest.raises(RemoteError, match="503 Service Unavailable") as caught:
        open_store(URL, deadline_s=0.5).fetch("x.mds", tmp_path / "x", len(SHARD))
    assert caught.value.reason == "network"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["hf://some/name", "hf://datasets/name", "hf://models/a/b/c", "hf://datasets/a/b@/c"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(SettingError, match="hf://datasets/OWNER/NAME"):
        open_store(url)
