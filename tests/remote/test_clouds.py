"""Do stores in Google Cloud Storage and Azure work as those in S3 do? Against local servers that answer as they do."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mx8shards.errors import RemoteError
from mx8shards.remote.open_store import open_store
from mx8shards.remote.store import Fetched, Store
from tests.remote.cloud_server import Azure, CloudServer, Google

SECRET = "c2VjcmV0LW9mLXRlc3Rz"


def google(monkeypatch: pytest.MonkeyPatch, place: Path, server: CloudServer) -> str:
    account = {"gcs_base_url": server.endpoint, "disable_oauth": True, "client_email": "", "private_key": ""}
    (place / "account.json").write_text(json.dumps(account | {"private_key_id": ""}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(place / "account.json"))
    return "gs://bucket/data"


def azure(monkeypatch: pytest.MonkeyPatch, place: Path, server: CloudServer) -> str:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.endpoint)
    return "az://bucket/data"


@pytest.fixture(params=["gs", "az"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    pytest.importorskip("obstore", reason="obstore is not installed")
    server = CloudServer(Google if request.param == "gs" else Azure)
    place = tmp_path / "settings"
    place.mkdir()
    url = (google if request.param == "gs" else azure)(monkeypatch, place, server)
    yield open_store(url, deadline_s=5)
    server.close()


def test_objects_are_written_read_listed_and_deleted(store: Store, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    store.put("shard 1", data)
    found = store.head("shard 1")
    assert found is not None
    assert (found.key, found.size_bytes) == ("shard 1", len(data))
    assert store.read("shard 1", len(data)) == Fetched(data, found.etag)
    assert store.read_spans("shard 1", [(9, 12), (0, 2), (1 << 21, (1 << 21) + 5)], found.etag) == [
        *(data[9:12], data[0:2], data[1 << 21 : (1 << 21) + 5]),
    ]
    store.fetch("shard 1", tmp_path / "file", len(data))
    assert (tmp_path / "file").read_bytes() == data
    store.put("folder/x", b"")
    assert [each.key for each in store.list()] == ["folder/x", "shard 1"]
    store.delete(["folder/x", "none", "shard 1"])
    assert list(store.list()) == []
    assert store.head("shard 1") is None
    with pytest.raises(RemoteError) as caught:
        store.read("shard 1", 9)
    assert caught.value.reason == "missing"


def test_puts_and_ranges_are_conditional(store: Store) -> None:
    assert store.can_put_conditionally
    first = store.put("index.json", b"1", new=True)
    assert store.read("index.json", 9).etag == first
    store.put("index.json", b"2", if_match=first)
    for wrong in ({"new": True}, {"if_match": first}):
        with pytest.raises(RemoteError) as caught:
            store.put("index.json", b"3", **wrong)
        assert caught.value.reason == "changed"
    for missing in (
        lambda: store.put("none", b"3", if_match=first),
        lambda: store.read_spans("index.json", [(0, 1)], first),
    ):
        with pytest.raises(RemoteError) as caught:
            missing()
        assert caught.value.reason == "changed"
    assert store.read("index.json", 9).data == b"2"


def test_a_large_file_is_put_in_parts(store: Store, tmp_path: Path) -> None:
    data = os.urandom(40 << 20)
    (tmp_path / "shard").write_bytes(data)
    store.put("shard", tmp_path / "shard")
    assert store.read("shard", len(data)).data == data


def test_settings_that_are_refused_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "hunter2 is no base64")
    with pytest.raises(RemoteError, match="settings of AzureStore") as caught:
        open_store("az://bucket/data", deadline_s=1).read("x", 1)
    assert caught.value.reason == "denied"
    assert "hunter2" not in str(caught.value)
    assert base64.b64decode(SECRET) == b"secret-of-tests"
