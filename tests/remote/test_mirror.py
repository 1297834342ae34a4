"""Is a remote dataset read through its mirror: which snapshot, fetched how often, checked, and shared?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.remote.open_store import open_store
from tests.remote.conftest import S3Server


def write(root: Path, count: int = 120, *, mode: str = "create", **options: Any) -> str:
    with mx8.Writer(root, columns={"x": "int", "text": "str"}, size_limit=1_500, mode=mode, **options) as writer:
        for i in range(count):
            writer.write({"x": i, "text": f"sample {i}"})
    return str(writer.snapshot)


def upload(root: Path, url: str) -> None:
    """Put every file of a dataset into the store, the index last."""
    store = open_store(url)
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]
    for path in sorted(files, key=lambda path: (path.name == "index.json", path)):
        store.put(path.relative_to(root).as_posix(), path)


@pytest.fixture
def data(tmp_path: Path, bucket: str) -> Path:
    write(tmp_path / "data")
    upload(tmp_path / "data", bucket)
    return tmp_path / "data"


def shards_of(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("*.mds*"))


def residue(root: Path) -> list[Path]:
    return [path for folder in ("claims", "fetching", "readers") for path in (root / ".mx8shards" / folder).glob("*")]


def test_samples_are_fetched_on_demand_and_each_shard_once(
    data: Path, bucket: str, tmp_path: Path, s3_server: S3Server
) -> None:
    with mx8.Dataset(bucket, local=tmp_path / "cache") as dataset:
        assert len(dataset) == 120
        assert shards_of(tmp_path / "cache") == []
        assert dataset[7] == {"x": 7, "text": "sample 7"}
        assert len(shards_of(tmp_path / "cache")) == 1
        assert [sample["x"] for sample in dataset] == list(range(120))
        assert [sample["x"] for sample in dataset] == list(range(120))
    assert shards_of(tmp_path / "cache") == shards_of(data)
    assert residue(tmp_path / "cache") == []
    before = len(s3_server.requests)
    with mx8.Dataset(bucket, local=tmp_path / "cache") as dataset:
        assert [sample["x"] for sample in dataset] == list(range(120))
    assert len(s3_server.requests) == before


def test_a_loader_trains_before_everything_is_local(data: Path, bucket: str, tmp_path: Path) -> None:
    with (
        mx8.Dataset(bucket, local=tmp_path / "cache") as dataset,
        mx8.Loader(dataset, batch_size=10, output="numpy", threads=2) as loader,
    ):
        for _ in range(2):
            assert [x for batch in loader for x in batch["x"].tolist()] == list(range(120))
        assert loader.stats()["network_s"] > 0
        assert dataset.shards.all_here
