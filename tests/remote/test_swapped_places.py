"""Is a URL refused where a directory belongs? Swapped arguments would make a directory named s3: and fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.remote.mirrors import URL

pytest.importorskip("obstore")

NO_DIRECTORIES: list[Any] = ["s3://user:secret@bucket/x", "S3://bucket", "gs:/bucket", "file:///x", "", 7, "a\0b"]


@pytest.fixture(autouse=True)
def _nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", NO_DIRECTORIES)
@pytest.mark.parametrize("name", ["local", "cache_dir"])
def test_of_a_dataset(name: str, value: Any) -> None:
    options: dict[str, Any] = {"local": "cache"} | {name: value}
    with pytest.raises(mx8.SettingError, match=rf"^{name}: expected the path of a local directory, got ") as caught:
        mx8.Dataset(URL, **options)
    assert "secret" not in str(caught.value)


def test_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MX8SHARDS_CACHE", "s3://bucket/caches")
    with pytest.raises(mx8.SettingError, match=r"^MX8SHARDS_CACHE: expected the path of a local directory, got a URL"):
        mx8.Dataset(URL)


@pytest.mark.parametrize("out", [(URL, "data"), (URL, URL), ("data", "other")])
def test_of_a_writer(out: Any) -> None:
    with pytest.raises(mx8.SettingError, match=r"^out: expected a pair of a directory and a URL"):
        mx8.Writer(out, columns={"x": "int"})


@pytest.mark.parametrize(("source", "target"), [(URL, "s3://bucket/other"), (".", "other")])
def test_of_a_sync(source: str, target: str) -> None:
    with pytest.raises(mx8.SettingError, match=r"^source and target: expected a URL and a directory, got two "):
        mx8.sync(source, target)


def test_of_the_classes_with_the_interface_of_streaming() -> None:
    pytest.importorskip("torch")
    streaming = pytest.importorskip("mx8shards.streaming")
    with pytest.raises(mx8.SettingError, match=r"^local: expected a local directory, got a URL"):
        streaming.StreamingDataset(local=URL, remote="data", batch_size=1)
    with pytest.raises(mx8.SettingError, match=r"^out: expected the path of a local directory, got a URL"):
        streaming.MDSWriter(out=(URL, "data"), columns={"x": "int"})
