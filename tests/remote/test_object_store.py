"""Can objects in S3 be read, written, listed and deleted, against a real S3 API?"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from mx8shards.errors import FormatError, RemoteError, SettingError
from mx8shards.remote.open_store import open_store
from mx8shards.remote.store import Fetched
from tests.remote.fault_server import FaultServer


def test_an_object_is_read_whole_with_its_etag(bucket: str) -> None:
    store = open_store(bucket)
    etag = store.put("a/index.json", b"hello")
    assert store.read("a/index.json", 5) == Fetched(b"hello", etag)


def test_an_object_larger_than_the_limit_is_not_read(bucket: str) -> None:
    store = open_store(bucket)
    store.put("index.json", bytes(100))
    with pytest.raises(FormatError, match=r"index\.json: expected at most 99 bytes, got 100"):
        store.read("index.json", 99)


def test_a_missing_object_is_named(bucket: str) -> None:
    store = open_store(bucket)
    with pytest.raises(RemoteError, match=r"data/index\.json: .*404 Not Found, NoSuchKey") as caught:
        store.read("index.json", 99)
    assert caught.value.reason == "missing"
    assert pickle.loads(pickle.dumps(caught.value)).reason == "missing"


def test_a_large_object_costs_one_request_over_http(fault_server: FaultServer, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    fault_server.put("shard", data)
    open_store(fault_server.url()).fetch("shard", tmp_path / "shard", len(data))
    assert (tmp_path / "shard").read_bytes() == data
    assert [request.operation for request in fault_server.requests] == ["read"]


def test_spans_are_read_in_the_order_asked_for(bucket: str) -> None:
    store = open_store(bucket)
    data = os.urandom(5 << 20)
    etag = store.put("shard", data)
    spans = [(4_500_000, 4_500_010), (0, 5), (3, 3), (2, 700), (5 << 19, (5 << 19) + 1)]
    assert store.read_spans("shard", spans, etag) == [data[begin:end] for begin, end in spans]
    assert store.read_spans("shard", [], etag) == []


def test_spans_of_a_replaced_object_are_refused(bucket: str) -> None:
    store = open_store(bucket)
    etag = store.put("shard", b"first")
    store.put("shard", b"other")
    with pytest.raises(RemoteError, match="412") as caught:
        store.read_spans("shard", [(0, 2)], etag)
    assert caught.value.reason == "changed"


def test_spans_behind_the_end_are_refused(bucket: str) -> None:
    store = open_store(bucket)
    store.put("shard", b"12345")
    for span in [(3, 9), (7, 9)]:
        with pytest.raises(RemoteError) as caught:
            store.read_spans("shard", [span], None)
        assert caught.value.reason == "changed"


def test_head_tells_size_and_etag_or_that_there_is_none(bucket: str) -> None:
    store = open_store(bucket)
    etag = store.put("shard", b"12345")
    found = store.head("shard")
    assert found is not None
    assert found[:3] == ("shard", 5, etag)
    assert found.modified_s > 1e9
    assert store.head("shards") is None


def test_a_whole_object_is_written_to_a_file(bucket: str, tmp_path: Path) -> None:
    store = open_store(bucket)
    data = os.urandom(5 << 20)
    store.put("shard 1", data)
    store.fetch("shard 1", tmp_path / "file 1", len(data))
    assert (tmp_path / "file 1").read_bytes() == data


def test_an_object_of_another_size_is_not_fetched_and_leaves_no_file(bucket: str, tmp_path: Path) -> None:
    store = open_store(bucket)
    store.put("shard", b"12345")
    with pytest.raises(RemoteError, match="expected 4 bytes, got 5 bytes") as caught:
        store.fetch("shard", tmp_path / "file", 4)
    assert caught.value.reason == "changed"
    assert list(tmp_path.iterdir()) == []


def test_a_put_is_conditional(bucket: str) -> None:
    store = open_store(bucket)
    assert store.can_put_conditionally
    first = store.put("index.json", b"1", new=True)
    second = store.put("index.json", b"2", if_match=first)
    for wrong in ({"new": True}, {"if_match": first}):
        with pytest.raises(RemoteError) as caught:
            store.put("index.json", b"3", **wrong)
        assert caught.value.reason == "changed"
    with pytest.raises(RemoteError) as caught:
        store.put("other.json", b"3", if_match=second)
    assert caught.value.reason == "changed"
    assert store.read("index.json", 9) == Fetched(b"2", second)
    assert [found.key for found in store.list()] == ["index.json"]


def test_a_large_file_is_put_in_parts(bucket: str, tmp_path: Path) -> None:
    store = open_store(bucket)
    data = os.urandom(40 << 20)
    (tmp_path / "shard").write_bytes(data)
    etag = store.put("shard", tmp_path / "shard")
    assert etag.endswith('-3"')
    assert store.read("shard", len(data)).data == data


def test_listing_names_all_objects_below_a_prefix(bucket: str) -> None:
    store = open_store(bucket)
    for key in ("a/2", "b/1", "a/1", "a/x y%41+é", "ab"):
        store.put(key, key.encode())
    open_store(bucket + "2").put("a/3", b"")
    assert [found.key for found in store.list()] == ["a/1", "a/2", "a/x y%41+é", "ab", "b/1"]
    assert [(found.key, found.size_bytes) for found in store.list("a")][:2] == [("a/1", 3), ("a/2", 3)]
    assert list(store.list("none")) == []
    store.delete(["a/2", "none", "a/x y%41+é"])
    store.delete([])
    assert [found.key for found in store.list("a")] == ["a/1"]


def test_a_pickled_store_connects_again(bucket: str) -> None:
    store = open_store(bucket)
    store.put("a", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again.read("a", 1).data == b"1"
    assert again.url == store.url == bucket


@pytest.mark.parametrize("url", ["ftp://host/path", "https://host/path", "/local/path", "s4://bucket"])
def test_other_schemes_are_refused_with_a_hint(url: str) -> None:
    with pytest.raises(RemoteError, match="expected a URL with the scheme s3"):
        open_store(url)


@pytest.mark.parametrize("url", ["s3://user:hunter2@bucket/x", "s3://", "s3:///x", "s3://a b/x", "gs://u:hunter2@b"])
def test_a_url_with_credentials_or_without_bucket_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["a//b", "a/../b", "./a", "a\nb", "a/\x7f"])
def test_a_prefix_that_stores_disagree_about_is_refused(prefix: str) -> None:
    with pytest.raises(SettingError, match="control character"):
        open_store(f"s3://bucket/{prefix}")


@pytest.mark.parametrize("key", ["notes//readme.txt", "a/../b", "./a", "line\nbreak", 'quo"ted//x'])
def test_an_object_that_cannot_be_listed_is_named(fault_server: FaultServer, key: str) -> None:
    fault_server.put(f"set/{key}", b"x")
    with pytest.raises(RemoteError, match="rename or delete") as caught:
        list(open_store(fault_server.url("set")).list())
    assert repr(f"set/{key}") in str(caught.value)


@pytest.mark.parametrize("deadline_s", [0, -1, float("inf"), float("nan"), "5", None])
def test_a_deadline_that_is_none_is_refused(deadline_s: Any) -> None:
    with pytest.raises(SettingError, match="deadline_s: expected seconds"):
        open_store("s3://bucket", deadline_s=deadline_s)
