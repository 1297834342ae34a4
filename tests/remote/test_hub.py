"""Are datasets on the Hugging Face Hub read, against a local server that answers as the Hub does?"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mx8shards.errors import FormatError, RemoteError, SettingError
from mx8shards.remote.open_store import open_store
from tests.remote.hub_server import REPOSITORY, HubServer

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
    assert store.read("index.json", 2) == (b"{}", f'"{hashlib.sha1(b"{}").hexdigest()}"')
    assert store.read("a shard#1.mds", len(SHARD)) == (SHARD, f'"{hashlib.sha256(SHARD).hexdigest()}"')
    store.fetch("a shard#1.mds", tmp_path / "shard", len(SHARD))
    assert (tmp_path / "shard").read_bytes() == SHARD
    assert store.url == f"{URL}/train"


def test_a_file_larger_than_the_limit_is_not_read(hub: HubServer) -> None:
    hub.push({"index.json": bytes(100)})
    with pytest.raises(FormatError, match="at most 99 bytes, got 100"):
        open_store(URL).read("index.json", 99)


def test_shards_come_from_the_commit_of_the_index(hub: HubServer, tmp_path: Path) -> None:
    hub.push({"index.json": b"1", "x.mds": b"first"})
    store = open_store(URL)
    assert store.read("index.json", 9).data == b"1"
    hub.push({"index.json": b"2", "x.mds": b"other"})
    for number, same in enumerate((store, pickle.loads(pickle.dumps(store)))):
        same.fetch("x.mds", tmp_path / str(number), 5)
        assert (tmp_path / str(number)).read_bytes() == b"first"
    assert store.read("index.json", 9).data == b"2"
    assert store.read_spans("x.mds", [(0, 5)], None) == [b"other"]


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


def test_it_is_read_only(hub: HubServer) -> None:
    store = open_store(URL)
    assert not store.can_put_conditionally
    for write in (lambda: store.put("x", b""), lambda: store.delete(["x"])):
        with pytest.raises(RemoteError, match="read only") as caught:
            write()
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
