"""Is every published snapshot found by its id, and is nothing else accepted?"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.shards import snapshots
from mx8shards.shards.links import Link, parse_link
from tests import reference

ONE = {"x": "int"}


def publish(root: Path, *numbers: int, mode: Any = "append", **options: Any) -> str:
    with mx8.Writer(root, columns=ONE, mode=mode, **options) as writer:
        for number in numbers:
            writer.write({"x": number})
    assert writer.snapshot is not None
    return writer.snapshot


def values(link: Any) -> list[int]:
    return [sample["x"] for sample in mx8.Dataset(link)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_the_id_is_the_sha256_of_the_index(root: Path) -> None:
    snapshot = publish(root, 1)
    assert snapshot == f"sha256:{hashlib.sha256((root / 'index.json').read_bytes()).hexdigest()}"
    assert mx8.Dataset(root).snapshot == snapshot


def test_every_snapshot_opens_under_its_id(root: Path) -> None:
    ids = [publish(root, i) for i in range(4)]
    assert [values(f"{root}@{snapshot}") for snapshot in ids] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert [mx8.Dataset(f"{root}@{snapshot}").snapshot for snapshot in ids] == ids
    assert snapshots.kept(root) == sorted(ids)


@pytest.mark.parametrize("digits", [8, 9, 63, 64])
def test_a_prefix_of_an_id_is_enough(digits: int, root: Path) -> None:
    first = publish(root, 1)
    publish(root, 2)
    assert values(f"{root}@{first[: 7 + digits]}") == [1]


@pytest.mark.parametrize("state", ["sha256:1234567", "sha256:" + "a" * 65])
def test_ids_too_short_and_too_long_are_refused(state: str, root: Path) -> None:
    publish(root, 1)
    with pytest.raises(mx8.DatasetNotFoundError, match="expected a snapshot's id of 8 to 64 hex digits, got"):
        mx8.Dataset(f"{root}@{state}")


def test_an_unknown_id_is_not_found(root: Path) -> None:
    publish(root, 1)
    with pytest.raises(mx8.DatasetNotFoundError, match=r"data@sha256:0{64}: expected a snapshot of this id, got none"):
        mx8.Dataset(f"{root}@sha256:{'0' * 64}")


def test_an_ambiguous_prefix_is_an_error_that_names_both_ids(root: Path) -> None:
    publish(root, 1)
    directory = root / ".mx8shards" / "snapshots"
    twins = [f"abcdef0123{digit}{'0' * 53}" for digit in "12"]
    for name in twins:
        (directory / f"{name}.json").write_bytes(b"{}")
    with pytest.raises(mx8.DatasetNotFoundError, match=f"got sha256:{twins[0]} and sha256:{twins[1]}"):
        mx8.Dataset(f"{root}@sha256:abcdef0123")


def test_a_link_without_an_id_or_with_refresh_is_the_current_snapshot(root: Path) -> None:
    publish(root, 1)
    publish(root, 2)
    assert values(root) == values(f"{root}@refresh") == [1, 2]


def test_a_foreign_dataset_opens_under_its_id_too(root: Path) -> None:
    reference.write_dataset(root, ONE, [[{"x": bytes(8)}]])
    snapshot = mx8.Dataset(root).snapshot
    assert values(f"{root}@{snapshot}") == [0]
    assert values(f"{root}@{snapshot[:16]}") == [0]
    with pytest.raises(mx8.DatasetNotFoundError, match="got none"):
        mx8.Dataset(f"{root}@sha256:{'0' * 64}")


def test_an_index_changed_by_another_program_is_refused_if_snapshots_are_kept(root: Path) -> None:
    first = publish(root, 1)
    index = json.loads((root / "index.json").read_bytes())
    for changed in (json.dumps(index), json.dumps(index, indent=1, sort_keys=True), "{}", ""):
        (root / "index.json").write_text(changed + " ")
        with pytest.raises(
            mx8.IntegrityError, match=r"index\.json: expected one of the snapshots kept here, got "
        ) as caught:
            mx8.Dataset(root)
        assert ("--seal" in caught.value.hint) == ("shards" in changed)  # `seal` cannot read a damaged index
        assert f"`{root}@{first}` opens the newest" in caught.value.hint
        assert values(f"{root}@{first}") == [1]
        now = f"sha256:{hashlib.sha256((root / 'index.json').read_bytes()).hexdigest()}"
        with pytest.raises(mx8.IntegrityError, match="changed outside mx8shards"):
            mx8.Dataset(f"{root}@{now}")


def test_errors_of_a_damaged_index_name_the_newest_kept_snapshot(root: Path) -> None:
    kept = [publish(root, number) for number in range(6)]
    for age, name in enumerate(reversed(kept)):
        os.utime(snapshots.kept_path(root, name), (10**9 - age, 10**9 - age))
    data = (root / "index.json").read_bytes()
    (root / "index.json").write_bytes(data[: len(data) // 2])
    for call in (mx8.Dataset, mx8.log, lambda link: mx8.verify(link, seal=True)):
        with pytest.raises((mx8.IntegrityError, mx8.FormatError)) as caught:
            call(root)
        assert "--seal" not in str(caught.value)
        assert f"`{root}@{kept[-1]}` opens the newest of them" in str(caught.value)
    entries = mx8.log(f"{root}@{kept[-1]}")
    assert [entry.snapshot for entry in entries] == kept[::-1]
    assert not any(entry.current for entry in entries)


def test_restoring_an_earlier_index_restores_that_snapshot(root: Path) -> None:
    first = publish(root, 1)
    publish(root, 2)
    shutil.copy(snapshots.kept_path(root, first), root / "index.json")
    assert values(root) == [1]
    assert mx8.Dataset(root).snapshot == first


def test_a_kept_index_that_changed_is_refused(root: Path) -> None:
    first = publish(root, 1)
    publish(root, 2)
    with snapshots.kept_path(root, first).open("ab") as file:
        file.write(b" ")
    with pytest.raises(
        mx8.IntegrityError, match=rf"{first[7:]}\.json: expected an index whose id is {first}, got sha256:"
    ):
        mx8.Dataset(f"{root}@{first}")
    assert values(root) == [1, 2]


def test_other_files_beside_kept_snapshots_are_ignored(root: Path) -> None:
    snapshot = publish(root, 1)
    for name in ("index.json", "a" * 64, "A" * 64 + ".json", "a" * 63 + ".json", ".tmp"):
        (root / ".mx8shards" / "snapshots" / name).write_bytes(b"")
    assert snapshots.kept(root) == [snapshot]
    assert values(root) == [1]


def test_a_dataset_without_its_index_can_be_opened_by_id(root: Path) -> None:
    snapshot = publish(root, 1)
    (root / "index.json").unlink()
    assert values(f"{root}@{snapshot}") == [1]
    with pytest.raises(mx8.DatasetNotFoundError, match=r"index\.json: no dataset here"):
        mx8.Dataset(root)


def test_metadata_change_the_id(root: Path, tmp_path: Path) -> None:
    ids = {
        publish(tmp_path / f"{i}", 1, metadata=metadata) for i, metadata in enumerate([None, {}, {"a": 1}, {"a": "1"}])
    }
    assert len(ids) == 3
    assert mx8.Dataset(tmp_path / "2").metadata == {"a": 1}


def test_links_are_split_before_the_id(tmp_path: Path) -> None:
    ids = "sha256:" + "0a" * 32
    assert parse_link(f"{tmp_path}@{ids}") == Link(tmp_path, ids)
    assert parse_link(f"{tmp_path}@refresh") == Link(tmp_path)
    assert parse_link(tmp_path / "a@b") == Link(tmp_path / "a@b")
    assert parse_link(f"{tmp_path}@b@{ids}") == Link(Path(f"{tmp_path}@b"), ids)
    assert parse_link(f"{tmp_path}@SHA256:00") == Link(Path(f"{tmp_path}@SHA256:00"))
    assert str(Link(tmp_path, ids)) == f"{tmp_path}@{ids}"
