"""Does a directory serve as a store: what is read, and what is refused?"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.remote.folder_store import FolderStore
from mx8shards.remote.open_store import open_store


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "index.json").write_bytes(b"0123456789")
    (tmp_path / "root" / "deep" / "x").write_bytes(b"abc")
    found = open_store(f"file://{tmp_path}/root")
    assert isinstance(found, FolderStore)
    return pickle.loads(pickle.dumps(found))


def test_files_are_read_whole_in_parts_and_copied(store: FolderStore, tmp_path: Path) -> None:
    assert store.read("index.json", 10).data == b"0123456789"
    assert store.read_spans("index.json", [(2, 4), (9, 10)], None) == [b"23", b"9"]
    assert [(each.key, each.size_bytes) for each in store.list()] == [("deep/x", 3), ("index.json", 10)]
    assert [each.key for each in store.list("deep")] == ["deep/x"]
    store.fetch("deep/x", tmp_path / "copy", 3)
    assert (tmp_path / "copy").read_bytes() == b"abc"


def test_missing_large_and_replaced_files_are_errors(store: FolderStore, tmp_path: Path) -> None:
    assert store.head("nothing") is None
    for ask in (lambda: store.read("nothing", 10), lambda: store.read_spans("no/x", [(0, 1)], None)):
        with pytest.raises(mx8.RemoteError) as caught:
            ask()
        assert caught.value.reason == "missing"
    with pytest.raises(mx8.RemoteError) as caught:
        store.fetch("nothing", tmp_path / "copy", 3)
    assert caught.value.reason == "missing"
    with pytest.raises(mx8.RemoteError) as caught:
        store.fetch("deep/x", tmp_path / "copy", 4)
    assert caught.value.reason == "changed"
    with pytest.raises(mx8.FormatError):
        store.read("index.json", 9)


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "deep//x", "deep/../index.json", ""])
def test_keys_that_lead_elsewhere_are_refused(key: str, store: FolderStore) -> None:
    with pytest.raises(mx8.FormatError, match="plain key"):
        store.read(key, 10)


def test_nothing_is_written_through_this_store(store: FolderStore) -> None:
    with pytest.raises(mx8.RemoteError, match="read only"):
        store.put("x", b"")
    with pytest.raises(mx8.RemoteError, match="read only"):
        store.delete(["index.json"])
