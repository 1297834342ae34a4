"""Datasets in stores, and what tests look at in their mirrors."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.remote import mirror, provider
from mx8shards.remote.open_store import open_store
from tests.remote.folder_store import FolderStore

URL = "s3://folder/data"


def write(root: Path, count: int = 120, *, mode: str = "create", start: int = 0, **options: Any) -> str:
    with mx8.Writer(root, columns={"x": "int", "text": "str"}, size_limit=1_500, mode=mode, **options) as writer:
        for i in range(start, start + count):
            writer.write({"x": i, "text": f"sample {i}"})
    return str(writer.snapshot)


def without_hashes(root: Path) -> None:
    """Make a dataset an unsealed one, as MosaicML Streaming writes it."""
    index = json.loads((root / "index.json").read_text())
    for shard in index["shards"]:
        shard["raw_data"]["hashes"] = {}
    del index["mx8shards"]
    shutil.rmtree(root / ".mx8shards")
    (root / "index.json").write_text(json.dumps(index))


def upload(root: Path, url: str) -> None:
    """Put every file of a dataset into the store, the index last."""
    store = open_store(url)
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]
    for path in sorted(files, key=lambda path: (path.name == "index.json", path)):
        store.put(path.relative_to(root).as_posix(), path)


def shards_of(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("*.mds*"))


def residue(root: Path) -> list[Path]:
    """What jobs keep while they run, and what killed ones leave."""
    state = root / ".mx8shards"
    folders = [path for folder in ("claims", "fetching", "readers") for path in (state / folder).glob("*")]
    return [*folders, *state.glob("room.*")]


def numbers(dataset: mx8.Dataset) -> list[int]:
    return [sample["x"] for sample in dataset]


def bytes_of(root: Path, pattern: str = "*.mds") -> int:
    """The bytes of all shards here. While files come and go, the sum may be wrong by some of them."""
    total = 0
    for path in root.glob(pattern):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def serve(root: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """Make `URL` a store over a local directory."""
    found = FolderStore(root, URL)
    monkeypatch.setattr(provider, "connect", lambda url, deadline_s: found)
    monkeypatch.setattr(mirror, "connect", lambda url, deadline_s: found)
    return found
