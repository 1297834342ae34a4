"""Does a cache with a limit keep what is needed next, stay within it, and fetch as little as possible?"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

import mx8shards as mx8
from tests.remote.conftest import S3Server
from tests.remote.test_mirror import residue, upload


def write(root: Path, shards: int, rows: int = 10) -> str:
    with mx8.Writer(root, columns={"x": "int", "text": "str"}, size_limit=10_000) as writer:
        for i in range(shards * rows):
            writer.write({"x": i, "text": f"{i:<900}"})
    return str(writer.snapshot)


def bytes_of(root: Path) -> int:
    """The bytes of all shards here. While files come and go, the sum may be wrong by some of them."""
    total = 0
    for path in root.glob("*.mds"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75, 0.9])
def test_later_epochs_fetch_only_what_has_no_room(
    bucket: str, tmp_path: Path, s3_server: S3Server, part: float
) -> None:
    write(tmp_path / "data", 100)
    upload(tmp_path / "data", bucket)
    total, cache = bytes_of(tmp_path / "data"), tmp_path / "cache"
    limit = int(part * total)
    fetched, most = [], 0
    with (
        mx8.Dataset(bucket, local=cache, cache_limit=limit) as dataset,
        mx8.Loader(dataset, batch_size=10, shuffle=mx8.BlockShuffle(shards=4), output="numpy", threads=1) as loader,
    ):
        count = dataset.shards.count
        for _ in range(4):
            before = s3_server.count("GET", ".mds")
            seen = []
            for batch in loader:
                seen += batch["x"].tolist()
                most = max(most, bytes_of(cache))
            assert sorted(seen) == list(range(len(dataset)))
            fetched.append((s3_server.count("GET", ".mds") - before) / count)
    print(fetched)
    assert most <= limit
    assert max(fetched[1:]) <= 1 - part + 0.02, fetched
    assert residue(cache) == []
