"""Does sealing add content hashes without changing shards, and refuse damaged data?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.errors import FormatError, IntegrityError, ShardsError
from mx8shards.maintain.verify import verify
from tests.maintenance import COLUMNS, STATE, edit_index, flip, make_foreign, offsets, sample, tree, write


@pytest.fixture(params=[None, "zstd", "gz"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A dataset without hashes."""
    write(tmp_path / "data", range(100), compression=request.param)
    make_foreign(tmp_path / "data")
    return tmp_path / "data"


def index_of(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "index.json").read_bytes())
    return found


def shards(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(root).items() if "shard." in name}


def test_a_foreign_dataset_becomes_sealed_and_its_shards_stay_unchanged(foreign: Path) -> None:
    before = shards(foreign)
    old = mx8.Dataset(foreign).snapshot
    report = verify(foreign, seal=True)
    assert report.ok
    assert report.sealed
    assert report.snapshot != old
    assert shards(foreign) == before
    sealed = mx8.Dataset(foreign)
    assert (sealed.snapshot, sealed.sealed) == (report.snapshot, True)
    assert index_of(foreign)["mx8shards"]["parent"] == old
    checked = verify(foreign, data=True)
    assert (checked.ok, checked.unchecked, checked.snapshots) == (True, 0, 2)


def test_the_previous_state_stays_readable_under_its_id(foreign: Path) -> None:
    old = mx8.Dataset(foreign)
    verify(foreign, seal=True)
    again = mx8.Dataset(f"{foreign}@{old.snapshot}")
    assert (again.snapshot, again.sealed) == (old.snapshot, False)
    assert again[7] == mx8.Dataset(foreign)[7]


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_sealing_adds_the_hashes_and_side_cars_that_the_writer_would_write(
    tmp_path: Path, compression: str | None
) -> None:
    """Writing shards and sealing equal shards give equal hashes and side-cars."""
    write(tmp_path / "ours", range(100), compression=compression, hashes=())
    shutil.copytree(tmp_path / "ours", tmp_path / "theirs")
    make_foreign(tmp_path / "theirs")
    verify(tmp_path / "theirs", seal=True)
    ours, theirs = index_of(tmp_path / "ours"), index_of(tmp_path / "theirs")
    assert theirs["shards"] == ours["shards"]
    assert theirs["mx8shards"]["sidecars"] == ours["mx8shards"]["sidecars"]
    names = [f"{STATE}/sidecars/{entry['blake3']}" for entry in ours["mx8shards"]["sidecars"]]
    assert len(names) == 2
    for name in names:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_a_sealed_dataset_stays_unchanged(tmp_path: Path) -> None:
    snapshot = write(tmp_path, range(100))
    before = tree(tmp_path)
    assert verify(tmp_path, seal=True).snapshot == snapshot
    assert verify(tmp_path, seal=True, data=True).mode == "data"
    assert tree(tmp_path) == before


def test_sealing_twice_gives_one_snapshot(foreign: Path) -> None:
    first = verify(foreign, seal=True).snapshot
    assert verify(foreign, seal=True).snapshot == first
    assert len(mx8.log(foreign)) == 2


def test_existing_hashes_metadata_and_foreign_keys_are_kept(tmp_path: Path) -> None:
    write(tmp_path, range(100), hashes=("sha1", "xxh64"))
    make_foreign(tmp_path, hashes=("sha1", "xxh64"))
    edit_index(tmp_path, lambda index: index.update(theirs={"a": [1.5]}))
    verify(tmp_path, seal=True)
    index = index_of(tmp_path)
    assert index["theirs"] == {"a": [1.5]}
    assert all(set(entry["raw_data"]["hashes"]) == {"blake3", "sha1", "xxh64"} for entry in index["shards"])


def test_sealing_accepts_an_index_changed_by_another_program(tmp_path: Path) -> None:
    write(tmp_path, range(100), metadata={"a": 1})
    changed = edit_index(tmp_path, lambda index: index["mx8shards"].update(metadata={"a": 2}))
    with pytest.raises(IntegrityError, match="changed outside mx8shards"):
        mx8.Dataset(tmp_path)
    report = verify(tmp_path, seal=True)
    assert mx8.Dataset(tmp_path).metadata == {"a": 2}
    assert index_of(tmp_path)["mx8shards"]["parent"] == changed
    assert report.snapshot == mx8.Dataset(tmp_path).snapshot
    assert verify(tmp_path, data=True).ok


def test_a_half_sealed_dataset_becomes_sealed(foreign: Path) -> None:
    write(foreign, range(100, 150), mode="append")
    assert not mx8.Dataset(foreign).sealed
    verify(foreign, seal=True)
    assert mx8.Dataset(foreign).sealed
    assert len(index_of(foreign)["mx8shards"]["sidecars"]) == 2  # each covers all shards
    assert verify(foreign, data=True).ok


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_copy_without_hidden_files_is_ok_after_sealing(tmp_path: Path, compression: str | None) -> None:
    write(tmp_path, range(60), compression=compression)
    write(tmp_path, range(60, 100), compression=compression, mode="append")
    shutil.rmtree(tmp_path / STATE)
    damage = verify(tmp_path).damage
    assert damage
    assert all("`mx8shards verify --seal` makes new side-cars" in found.error for found in damage)
    old = mx8.Dataset(tmp_path).snapshot
    assert verify(tmp_path, seal=True).ok
    for data in (False, True):
        assert verify(tmp_path, data=data).ok
    assert [entry.snapshot for entry in mx8.log(tmp_path)] == [mx8.Dataset(tmp_path).snapshot]
    assert index_of(tmp_path)["mx8shards"]["parent"] == old
    assert [found["label"] for found in mx8.Dataset(tmp_path)] == [i % 10 for i in range(100)]


def test_a_wrong_decompressed_copy_is_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, range(30), compression="zstd")
    copy = tmp_path / "shard.00000.mds"
    copy.write_bytes(bytes(index_of(tmp_path)["shards"][0]["raw_data"]["bytes"]))
    make_foreign(tmp_path)
    with pytest.raises(IntegrityError, match="decompressed copy") as caught:
        verify(tmp_path, seal=True)
    assert caught.value.subject == str(copy)


def test_a_damaged_sidecar_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, range(100))
    edit_index(tmp_path, lambda index: index["mx8shards"].update(metadata={"a": 2}))
    for path in (tmp_path / STATE / "sidecars").iterdir():
        flip(path, 100)
    verify(tmp_path, seal=True)
    assert verify(tmp_path, data=True).ok


@pytest.mark.parametrize("numbers", [range(0), range(1)])
def test_a_dataset_of_no_samples_or_one_can_be_sealed(tmp_path: Path, numbers: range) -> None:
    write(tmp_path, numbers)
    make_foreign(tmp_path)
    assert verify(tmp_path, seal=True).sealed
    assert len(mx8.Dataset(tmp_path)) == len(numbers)
    assert verify(tmp_path, data=True).ok


def test_shards_of_different_columns_are_sealed_without_a_columns_sidecar(tmp_path: Path) -> None:
    write(tmp_path, range(30))
    with mx8.Writer(tmp_path / "more", columns={"label": "int"}) as writer:
        writer.write({"label": 3})
    make_foreign(tmp_path)
    make_foreign(tmp_path / "more")
    (other,) = index_of(tmp_path / "more")["shards"]
    other["raw_data"]["basename"] = "more/shard.00000.mds"
    edit_index(tmp_path, lambda index: index["shards"].append(other))
    verify(tmp_path, seal=True)
    assert [entry["kind"] for entry in index_of(tmp_path)["mx8shards"]["sidecars"]] == ["blocks"]
    assert mx8.Dataset(tmp_path, columns=["label"])[30] == {"label": 3}
    assert verify(tmp_path, data=True).ok


# damaged data are never sealed ----------------------------------------------------------------------------------------


def refused(root: Path, kind: type[ShardsError]) -> None:
    before = tree(root)
    with pytest.raises(kind):
        verify(root, seal=True)
    assert tree(root) == before


def test_a_wrong_hash_is_never_sealed(tmp_path: Path) -> None:
    write(tmp_path, range(100), hashes=("xxh64",))
    make_foreign(tmp_path, hashes=("xxh64",))
    flip(tmp_path / "shard.00001.mds", 8 * 1500)
    refused(tmp_path, IntegrityError)


def test_a_short_or_missing_shard_is_never_sealed(foreign: Path) -> None:
    shard = max(foreign.glob("shard.*"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    refused(foreign, FormatError)
    shard.unlink()
    refused(foreign, mx8.DatasetNotFoundError)


def test_inconsistent_sizes_are_never_sealed(tmp_path: Path) -> None:
    write(tmp_path, range(100))
    make_foreign(tmp_path)
    flip(tmp_path / "shard.00000.mds", 8 * offsets(tmp_path / "shard.00000.mds")[3])
    refused(tmp_path, FormatError)


def test_a_shard_that_cannot_be_decompressed_is_never_sealed(tmp_path: Path) -> None:
    write(tmp_path, range(100), compression="zstd", size_limit=None)
    make_foreign(tmp_path)
    flip(tmp_path / "shard.00000.mds.zstd", 8 * 1500)
    refused(tmp_path, FormatError)


def test_an_invalid_index_is_never_sealed(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    (tmp_path / "index.json").write_bytes(b"[]")
    refused(tmp_path, FormatError)


def test_only_the_current_snapshot_can_be_sealed(foreign: Path) -> None:
    with pytest.raises(ShardsError, match="expected a link without an id"):
        verify(f"{foreign}@{mx8.Dataset(foreign).snapshot}", seal=True)


def test_nothing_is_created_where_there_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(mx8.DatasetNotFoundError):
        verify(tmp_path / "nothing", seal=True)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_locked_by_a_writer_is_left_unchanged(foreign: Path) -> None:
    with mx8.Writer(foreign, columns=COLUMNS, mode="append") as writer:
        writer.write(sample(1))
        with pytest.raises(mx8.DiskError, match="another Writer"):
            verify(foreign, seal=True)
    assert len(mx8.Dataset(foreign)) == 101
