"""Is a publication atomic, and refused if the dataset has changed meanwhile?

Crashes are tested in tests/crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.format.index import index_bytes, parse_index
from mx8shards.shards.publication import LocalPublication, Publication
from mx8shards.shards.recovery import files_of, recover
from tests import reference

EMPTY = index_bytes([], metadata={})


@contextlib.contextmanager
def publishing(root: Path) -> Iterator[Publication]:
    publication = LocalPublication(root)
    try:
        yield publication
    finally:
        publication.close()


def visible(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != "lock")


def id_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_files_become_visible_only_with_the_index(tmp_path: Path) -> None:
    with publishing(tmp_path / "data") as publication:
        publication.put_shard("g0001/shard.00000.mds", [b"some", memoryview(b"thing")])
        publication.put_shard("shard.00001.mds", [])
        assert not [name for name in visible(tmp_path / "data") if not name.startswith(".mx8shards/staging/")]
        assert publication.put_index(EMPTY, None) == id_of(EMPTY)
    kept = f".mx8shards/snapshots/{id_of(EMPTY)[7:]}.json"
    assert visible(tmp_path / "data") == sorted([kept, "g0001/shard.00000.mds", "index.json", "shard.00001.mds"])
    assert (tmp_path / "data" / "g0001" / "shard.00000.mds").read_bytes() == b"something"


def test_closing_without_an_index_publishes_nothing(tmp_path: Path) -> None:
    with publishing(tmp_path / "data") as publication:
        publication.put_shard("shard.00000.mds", [b"x"])
    assert visible(tmp_path / "data") == []


@pytest.mark.parametrize("expected", [None, id_of(b"other")])
def test_an_index_replaces_only_the_expected_one(expected: str | None, tmp_path: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "int"}, [])
    before = visible(root)
    with publishing(root) as publication:
        publication.put_shard("new.mds", [b"x"])
        with pytest.raises(mx8.DiskError, match=r"expected the current snapshot to be .*: nothing was published"):
            publication.put_index(EMPTY, expected)
    assert visible(root) == before
    with publishing(tmp_path / "nothing") as publication, pytest.raises(mx8.DiskError, match="got None"):
        publication.put_index(EMPTY, id_of(EMPTY))


def test_publishing_the_current_index_changes_nothing(tmp_path: Path) -> None:
    with publishing(tmp_path / "data") as publication:
        publication.put_index(EMPTY, None)
    before = {name: (tmp_path / "data" / name).stat().st_mtime_ns for name in visible(tmp_path / "data")}
    with publishing(tmp_path / "data") as publication:
        assert publication.put_index(EMPTY, id_of(EMPTY)) == id_of(EMPTY)
    assert {name: (tmp_path / "data" / name).stat().st_mtime_ns for name in before} == before


def test_shards_may_be_added_by_many_threads_in_any_order(tmp_path: Path) -> None:
    with publishing(tmp_path / "data") as publication, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: publication.put_shard(f"{i}.mds", [bytes([i])] * i), range(60, 0, -1)))
        publication.put_index(EMPTY, None)
    assert [(tmp_path / "data" / f"{i}.mds").read_bytes() for i in range(1, 61)] == [
        bytes([i]) * i for i in range(1, 61)
    ]


def test_a_shard_cannot_be_added_twice(tmp_path: Path) -> None:
    with publishing(tmp_path / "data") as publication:
        publication.put_shard("a.mds", [b"1"])
        with pytest.raises(mx8.DiskError, match="create failed: File exists"):
            publication.put_shard("a.mds", [b"2"])


def test_the_files_of_an_index_are_its_shards_stored_and_raw_and_its_side_cars(tmp_path: Path) -> None:
    for compression in (None, "zstd"):
        root = tmp_path / f"{compression}"
        with mx8.Writer(root, columns={"x": "int"}, compression=compression, size_limit=300) as writer:
            for i in range(30):
                writer.write({"x": i})
        found = files_of(parse_index((root / "index.json").read_bytes()))
        others = {
            name for name in visible(root) if not name.startswith(".mx8shards/snapshots/") and name != "index.json"
        }
        raw = {name.removesuffix(".zstd") for name in others}
        assert found == others | raw


def test_an_unwritable_lock_is_an_error_that_says_why_it_is_needed(tmp_path: Path, repository: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "int"}, [[{"x": bytes(8)}]])
    mx8.verify(root, seal=True)
    (root / ".mx8shards/lock").chmod(0o444)
    code = f"""
from mx8shards.cli import main
from tests.privileges import give_up_privileges
give_up_privileges()
raise SystemExit(main(["gc", {str(root)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "lock: lock failed: Permission denied (changing a dataset needs write access" in done.stderr


def test_without_a_publication_there_is_nothing_to_recover(tmp_path: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "int"}, [[{"x": bytes(8)}]])
    before = visible(root)
    recover(root)
    assert visible(root) == before
