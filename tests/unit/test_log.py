"""Does log list the snapshots that there are, newest first?"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.errors import IntegrityError
from tests.maintenance import STATE, edit_index, flip, make_foreign, write


def kept(root: Path, snapshot: str) -> Path:
    return root / STATE / "snapshots" / f"{snapshot.removeprefix('sha256:')}.json"


@pytest.fixture
def history(tmp_path: Path) -> list[str]:
    """Three snapshots of `tmp_path`, newest first."""
    ids = [
        write(tmp_path, range(30), metadata={"run": 1}),
        write(tmp_path, range(30, 50), mode="append"),
        write(tmp_path, range(10), mode="overwrite"),
    ]
    return ids[::-1]


def test_snapshots_are_listed_from_the_current_one_to_its_first_ancestor(tmp_path: Path, history: list[str]) -> None:
    entries = mx8.log(tmp_path)
    assert [entry.snapshot for entry in entries] == history
    assert [entry.parent for entry in entries] == [history[1], history[2], None]
    assert [entry.current for entry in entries] == [True, False, False]
    assert [entry.samples for entry in entries] == [10, 50, 30]
    assert [entry.metadata for entry in entries] == [{}, {"run": 1}, {"run": 1}]
    assert all(entry.sealed for entry in entries)
    assert entries[2].shards == len(list(tmp_path.glob("shard.*"))) - (entries[1].shards - entries[2].shards)
    assert entries[0].stored_bytes == sum(path.stat().st_size for path in tmp_path.glob("g0001/shard.*"))


def test_the_order_follows_parents_and_not_the_clock(tmp_path: Path, history: list[str]) -> None:
    for seconds, snapshot in enumerate(history):
        os.utime(kept(tmp_path, snapshot), (1e9 + seconds, 1e9 + seconds))
    entries = mx8.log(tmp_path)
    assert [entry.snapshot for entry in entries] == history
    assert entries[0].published == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)


def test_a_pinned_link_starts_at_that_snapshot_and_the_others_follow(tmp_path: Path, history: list[str]) -> None:
    entries = mx8.log(f"{tmp_path}@{history[1]}")
    assert [entry.snapshot for entry in entries] == [history[1], history[2], history[0]]
    assert [entry.current for entry in entries] == [False, False, True]


def test_snapshots_that_are_no_ancestors_follow_by_their_time(tmp_path: Path, history: list[str]) -> None:
    """A user restores the first index, which makes it the current snapshot."""
    shutil.copy(kept(tmp_path, history[2]), tmp_path / "index.json")
    for seconds, snapshot in enumerate(history):
        os.utime(kept(tmp_path, snapshot), (1e9 + seconds, 1e9 + seconds))
    assert [entry.snapshot for entry in mx8.log(tmp_path)] == [history[2], history[1], history[0]]


def test_the_line_of_ancestors_ends_where_one_was_removed(tmp_path: Path, history: list[str]) -> None:
    kept(tmp_path, history[1]).unlink()
    assert [entry.snapshot for entry in mx8.log(tmp_path)] == [history[0], history[2]]


def test_a_foreign_dataset_has_one_snapshot(tmp_path: Path) -> None:
    write(tmp_path, range(30))
    make_foreign(tmp_path)
    (entry,) = mx8.log(tmp_path)
    assert (entry.current, entry.parent, entry.sealed, entry.samples) == (True, None, False, 30)


def test_a_log_entry_can_be_written_as_json(tmp_path: Path, history: list[str]) -> None:
    found = json.loads(json.dumps([entry.to_json() for entry in mx8.log(tmp_path)]))
    assert [entry["snapshot"] for entry in found] == history
    assert datetime.fromisoformat(found[0]["published"]).tzinfo is not None


def test_a_directory_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(mx8.DatasetNotFoundError):
        mx8.log(tmp_path / "nothing")


def test_a_kept_index_whose_hash_differs_from_its_name_is_an_error(tmp_path: Path, history: list[str]) -> None:
    flip(kept(tmp_path, history[2]), 800)
    with pytest.raises(IntegrityError, match=history[2].removeprefix("sha256:")):
        mx8.log(tmp_path)
    edit_index(tmp_path, lambda index: None)
    edit_index(tmp_path, lambda index: index["mx8shards"]["metadata"].update(a=1))
    with pytest.raises(IntegrityError, match="changed outside"):
        mx8.log(tmp_path)
