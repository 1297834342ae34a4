"""Does merge join datasets without changing samples, atomically?"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.disk import operations
from mx8shards.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    FormatError,
    IntegrityError,
    SchemaError,
    SettingError,
    ShardsError,
)
from mx8shards.maintain.merge import merge
from mx8shards.shards.publication import LocalPublication
from tests.maintenance import COLUMNS, STATE, cut, edit_index, flip, make_foreign, plain, sample, tree, write


def parts(directory: Path, *counts: int, **options: Any) -> list[Path]:
    """Write datasets of these sizes, with consecutively numbered samples."""
    roots = []
    start = 0
    for number, count in enumerate(counts):
        roots.append(directory / f"part{number}")
        write(roots[-1], range(start, start + count), **options)
        start += count
    return roots


def index_of(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "index.json").read_bytes())
    return found


def check_samples(root: Path, numbers: Sequence[int]) -> None:
    dataset = mx8.Dataset(root, verify="shard")
    assert [plain(found) for found in dataset] == [sample(number) for number in numbers]
    assert dataset.column("label").tolist() == [number % 10 for number in numbers]


def test_a_part_that_does_not_exist_is_told_from_one_without_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"empty: neither an index\.json here nor a dataset beneath it"):
        merge([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(DatasetNotFoundError, match="nowhere: no such directory"):
        merge([tmp_path / "nowhere"], tmp_path / "out")


# results --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["link", "copy", "move"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_the_samples_of_all_parts_follow_in_order(tmp_path: Path, how: Any, compression: str | None) -> None:
    roots = parts(tmp_path, 50, 30, 70, compression=compression)
    snapshot = merge(roots, tmp_path / "out", how=how)
    assert mx8.Dataset(tmp_path / "out").snapshot == snapshot
    assert mx8.Dataset(tmp_path / "out").sealed
    check_samples(tmp_path / "out", range(150))
    assert mx8.verify(tmp_path / "out", data=True).ok
    assert [root.exists() for root in roots] == [how != "move"] * 3


@pytest.mark.parametrize(("how", "names"), [("link", 2), ("copy", 1), ("move", 1)])
def test_shards_are_linked_or_copied_as_requested(tmp_path: Path, how: Any, names: int) -> None:
    roots = parts(tmp_path, 50, 30)
    merge(roots, tmp_path / "out", how=how)
    found = {path.stat().st_nlink for path in (tmp_path / "out").rglob("shard.*")}
    assert found == {names}


@pytest.mark.parametrize("how", ["link", "copy"])
def test_merge_does_not_change_the_parts(tmp_path: Path, how: Any) -> None:
    roots = parts(tmp_path, 50, 30)
    before = [tree(root) for root in roots]
    merge(roots, tmp_path / "out", how=how)
    assert [tree(root) for root in roots] == before


def test_equal_parts_give_an_equal_id_in_any_directory(tmp_path: Path) -> None:
    one = merge(parts(tmp_path / "here", 50, 30), tmp_path / "out", how="link")
    two = merge(parts(tmp_path / "there", 50, 30), tmp_path / "else", how="copy")
    assert one == two


def test_sidecars_of_parts_cover_the_shards_of_their_part(tmp_path: Path) -> None:
    roots = parts(tmp_path, 50, 0, 30)
    merge(roots, tmp_path / "out")
    counts = [len(index_of(root)["shards"]) for root in roots]
    found = [(s["kind"], s["start"], s["stop"]) for s in index_of(tmp_path / "out")["mx8shards"]["sidecars"]]
    assert counts[0] > 0
    assert counts[1] == 1  # without samples, but with columns
    starts = [0, *accumulate(counts)]
    assert found == [(kind, *covered) for covered in pairwise(starts) for kind in ("blocks", "columns")]


def test_a_part_given_twice_is_merged_twice(tmp_path: Path) -> None:
    (root,) = parts(tmp_path, 50)
    merge([root, root], tmp_path / "out")
    assert [plain(found) for found in mx8.Dataset(tmp_path / "out")] == [sample(i) for i in range(50)] * 2
    assert mx8.verify(tmp_path / "out", data=True).ok


def test_a_pinned_link_merges_that_snapshot(tmp_path: Path) -> None:
    old = write(tmp_path / "part", range(50))
    write(tmp_path / "part", range(50, 80), mode="append")
    merge([f"{tmp_path}/part@{old}"], tmp_path / "out")
    check_samples(tmp_path / "out", range(50))


def test_foreign_parts_are_merged_and_stay_unsealed(tmp_path: Path) -> None:
    roots = parts(tmp_path, 50, 30)
    for root in roots:
        make_foreign(root)
    merge(roots, tmp_path / "out")
    assert not mx8.Dataset(tmp_path / "out").sealed
    check_samples(tmp_path / "out", range(80))


def test_what_was_merged_can_be_appended_to_and_merged_again(tmp_path: Path) -> None:
    merge(parts(tmp_path, 50, 30), tmp_path / "out")
    write(tmp_path / "out", range(80, 100), mode="append")
    merge([tmp_path / "out"], tmp_path / "again")
    check_samples(tmp_path / "again", range(100))
    assert mx8.verify(tmp_path / "again", data=True).ok


def test_an_append_whose_sidecar_exists_already_is_published(tmp_path: Path) -> None:
    """Equal numbers give equal side-cars, which share one name."""
    for number in range(2):
        with mx8.Writer(
            tmp_path, columns={"x": "int", "noise": "bytes"}, mode="append" if number else "create"
        ) as writer:
            writer.write({"x": 7, "noise": bytes([number])})
    assert mx8.Dataset(tmp_path).column("x").tolist() == [7, 7]
    assert len(list((tmp_path / STATE / "sidecars").iterdir())) == 3


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    merge(parts(tmp_path, 50, 30), tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for path in (tmp_path / "out").rglob("shard.*"))
    assert calls == sorted(calls)
    assert calls[-1] == (total, total)


# selection of parts ---------------------------------------------------------------------------------------------------


def test_a_directory_means_all_datasets_below_it(tmp_path: Path) -> None:
    write(tmp_path / "in" / "b", range(60, 80))
    write(tmp_path / "in" / "a" / "2" / "x", range(40, 60))
    write(tmp_path / "in" / "a" / "1", range(20, 40))
    write(tmp_path / "in" / "a" / "0" / "y" / "z", range(20))
    (tmp_path / "in" / "c").mkdir()
    merge([tmp_path / "in"], tmp_path / "out")
    check_samples(tmp_path / "out", range(80))


def test_parts_of_ranks_are_merged_in_rank_order(tmp_path: Path) -> None:
    for rank in (2, 0, 1):
        write(tmp_path / "data", range(40 * rank, 40 * rank + 40), rank=rank, world_size=3)
    merge([tmp_path / "data"], tmp_path / "data", how="move")
    check_samples(tmp_path / "data", range(120))
    assert sorted(path.name for path in tmp_path.joinpath("data", STATE).iterdir()) == ["lock", "sidecars", "snapshots"]
    assert mx8.verify(tmp_path / "data", data=True).ok


def test_ranks_of_several_splits_are_merged_separately(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for rank in range(2):
            write(tmp_path / split, range(20 * rank, 20 * rank + 20), rank=rank, world_size=2)
    merge([tmp_path], tmp_path / "all")
    assert [found["label"] for found in mx8.Dataset(tmp_path / "all")] == [i % 10 for i in range(40)] * 2


def test_a_symlink_to_a_parent_directory_is_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a", range(20))
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "b", range(20, 40))
    (tmp_path / "in" / "z").symlink_to(tmp_path / "elsewhere")
    merge([tmp_path / "in"], tmp_path / "out")
    check_samples(tmp_path / "out", range(40))


def test_datasets_in_hidden_directories_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / "tree" / "a", range(20))
    shutil.copytree(tmp_path / "tree", tmp_path / "tree" / ".snapshot")
    merge([tmp_path / "tree"], tmp_path / "out")
    check_samples(tmp_path / "out", range(20))
    merge([tmp_path / "tree" / ".snapshot"], tmp_path / "named")  # given explicitly, it is merged
    check_samples(tmp_path / "named", range(20))


def test_a_dataset_below_another_one_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outer, inner = tmp_path / "tree" / "a", tmp_path / "tree" / "a" / "more" / "b"
    write(outer, range(20))
    write(inner, range(20, 30))
    (outer / "loop").symlink_to(tmp_path / "tree")
    with caplog.at_level(logging.WARNING, "mx8shards"):
        merge([tmp_path / "tree"], tmp_path / "out")
    check_samples(tmp_path / "out", range(20))
    assert [record.getMessage() for record in caplog.records] == [
        f"merge: {inner} lies below the dataset {outer} and is left out"
    ]


def test_a_missing_rank_is_an_error_that_names_it(tmp_path: Path) -> None:
    for rank in (0, 2):
        write(tmp_path / "data", range(10), rank=rank, world_size=4)
    with pytest.raises(DatasetNotFoundError, match="none of rank-00001-of-00004, rank-00003-of-00004"):
        merge([tmp_path / "data"], tmp_path / "data")


def test_a_rank_that_did_not_finish_counts_as_missing(tmp_path: Path) -> None:
    write(tmp_path / "data", range(10), rank=0, world_size=2)
    with pytest.raises(KeyError), mx8.Writer(tmp_path / "data", columns=COLUMNS, rank=1, world_size=2):
        raise KeyError
    with pytest.raises(DatasetNotFoundError, match=r"rank-00001-of-00002 \(every rank must finish its Writer"):
        merge([tmp_path / "data"], tmp_path / "data")


def test_a_missing_rank_is_detected_if_the_other_parts_are_given_one_by_one(tmp_path: Path) -> None:
    write(tmp_path / "data", range(10), rank=1, world_size=2)
    with pytest.raises(DatasetNotFoundError, match="rank-00000-of-00002"):
        merge((tmp_path / "data" / STATE / "parts").iterdir(), tmp_path / "out")


def test_leftovers_of_another_world_size_are_refused(tmp_path: Path) -> None:
    for world_size in (2, 4):
        for rank in range(world_size):
            write(tmp_path / "data", range(10), rank=rank, world_size=world_size)
    with pytest.raises(DatasetExistsError, match="expected the parts of one world size, got parts of 2 and parts of 4"):
        merge([tmp_path / "data"], tmp_path / "data")


@pytest.mark.parametrize("given", [[], ["empty"], ["nothing"]])
def test_merging_no_parts_is_an_error(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError):
        merge([tmp_path / name for name in given], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# conditions on parts --------------------------------------------------------------------------------------------------


def test_parts_of_different_columns_are_an_error_that_names_them(tmp_path: Path) -> None:
    write(tmp_path / "a", range(10))
    with mx8.Writer(tmp_path / "b", columns={"label": "int"}) as writer:
        writer.write({"label": 3})
    with pytest.raises(SchemaError, match=r"/b: expected the columns of .*/a: .*'text': 'str'.*got \{'label': 'int'\}"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_without_shards_fits_any_columns(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "empty", columns={"label": "int"}, match_streaming=True):
        pass
    write(tmp_path / "a", range(10))
    merge([tmp_path / "empty", tmp_path / "a"], tmp_path / "out")
    check_samples(tmp_path / "out", range(10))


def test_metadata_of_all_parts_are_combined(tmp_path: Path) -> None:
    write(tmp_path / "a", range(10), metadata={"classes": ["x", "y"], "source": "web"})
    write(tmp_path / "b", range(10, 20), metadata={"classes": ["x", "y"], "year": 2024})
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert mx8.Dataset(tmp_path / "out").metadata == {"classes": ["x", "y"], "source": "web", "year": 2024}


def test_contradicting_metadata_are_an_error_that_names_them_and_can_be_overridden(tmp_path: Path) -> None:
    write(tmp_path / "a", range(10), metadata={"classes": ["x", "y"]})
    write(tmp_path / "b", range(10, 20), metadata={"classes": ["y", "x"]})
    given = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(
        SchemaError, match=r"metadata 'classes': expected \['x', 'y'\] in all parts, as in .*/a, got .*/b"
    ):
        merge(given, tmp_path / "out")
    merge(given, tmp_path / "out", metadata={"classes": ["x", "y"]})
    assert mx8.Dataset(tmp_path / "out").metadata == {"classes": ["x", "y"]}


@pytest.mark.parametrize(("first", "second"), [(["x", "y"], None), (None, ["x", "y"])])
def test_a_part_without_class_names_is_not_merged_with_one_that_has_them(
    tmp_path: Path, first: list[str] | None, second: list[str] | None
) -> None:
    for name, classes in (("a", first), ("b", second)):
        write(tmp_path / name, range(10), metadata=classes and {"classes": classes})
    given = [tmp_path / "a", tmp_path / "b"]
    expected = r"metadata 'classes': expected the class list of .*, got no class list instead of a list of 2 classes in"
    with pytest.raises(SchemaError, match=expected):
        merge(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    before = tree(tmp_path / "a")
    with pytest.raises(SchemaError, match=expected):
        merge([tmp_path / "b"], tmp_path / "a", mode="append")
    assert tree(tmp_path / "a") == before
    merge(given, tmp_path / "out", metadata={"classes": ["x", "y"]})
    assert mx8.Dataset(tmp_path / "out").metadata == {"classes": ["x", "y"]}


def test_an_empty_part_needs_no_class_names(tmp_path: Path) -> None:
    write(tmp_path / "a", range(10), metadata={"classes": ["x", "y"]})
    write(tmp_path / "b", range(0))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert mx8.Dataset(tmp_path / "out").metadata == {"classes": ["x", "y"]}


def test_one_rank_may_give_the_class_names_and_ranks_that_append_keep_them(tmp_path: Path) -> None:
    for rank in range(2):
        write(tmp_path, range(10), rank=rank, world_size=2, metadata=None if rank else {"classes": ["x", "y"]})
    merge([tmp_path], tmp_path)
    for rank in range(2):
        write(tmp_path, range(10), rank=rank, world_size=2, mode="append")
    merge([tmp_path], tmp_path, mode="append")
    assert mx8.Dataset(tmp_path).metadata == {"classes": ["x", "y"]}
    assert len(mx8.Dataset(tmp_path)) == 40


def test_metadata_that_are_not_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="metadata"):
        merge(parts(tmp_path, 10), tmp_path / "out", metadata={"a": object()})
    assert not (tmp_path / "out").exists()


def test_foreign_keys_are_kept_unless_parts_contradict_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roots = parts(tmp_path, 10, 10)
    for number, root in enumerate(roots):
        make_foreign(root)
        edit_index(root, lambda index, number=number: index.update(same=[1], other=number))  # type: ignore[misc]
    with caplog.at_level(logging.WARNING, "mx8shards"):
        merge(roots, tmp_path / "out")
    index = index_of(tmp_path / "out")
    assert index["same"] == [1]
    assert "other" not in index
    assert "'other'" in caplog.text


# atomicity ------------------------------------------------------------------------------------------------------------


def test_merge_never_replaces_an_existing_dataset(tmp_path: Path) -> None:
    roots = parts(tmp_path, 10, 20)
    before = tree(tmp_path)
    with pytest.raises(DatasetExistsError, match="the directory already contains a dataset"):
        merge(roots, roots[0])
    (roots[0] / "index.json").unlink()  # its kept snapshots still exist
    with pytest.raises(DatasetExistsError):
        merge([roots[1]], roots[0])
    assert tree(tmp_path) == {name: data for name, data in before.items() if name != "part0/index.json"}


@pytest.mark.parametrize("how", ["link", "copy", "move"])
def test_an_incomplete_part_stops_the_merge(tmp_path: Path, how: Any) -> None:
    roots = parts(tmp_path, 30, 30)
    shard = roots[1] / "shard.00000.mds"
    cut(shard)
    before = tree(tmp_path)
    with pytest.raises(FormatError, match=r"part1/shard\.00000\.mds: expected .* bytes \(the index\)"):
        merge(roots, tmp_path / "out", how=how)
    shard.unlink()
    with pytest.raises(DatasetNotFoundError, match=r"part1/shard\.00000\.mds"):
        merge(roots, tmp_path / "out", how=how)
    del before["part1/shard.00000.mds"]
    assert tree(tmp_path) == before


def test_a_damaged_sidecar_stops_the_merge_and_a_missing_one_stays_missing(tmp_path: Path) -> None:
    roots = parts(tmp_path, 30, 30)
    sidecars = sorted((roots[1] / STATE / "sidecars").iterdir())
    flip(sidecars[0], 100)
    with pytest.raises(IntegrityError, match=sidecars[0].name):
        merge(roots, tmp_path / "out")
    for path in sidecars:
        path.unlink()
    merge(roots, tmp_path / "out")
    assert len(index_of(tmp_path / "out")["mx8shards"]["sidecars"]) == 2
    check_samples(tmp_path / "out", range(60))


def test_an_unknown_value_of_how_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="how: expected one of 'link', 'copy', 'move', got 'symlink'"):
        merge(parts(tmp_path, 10), tmp_path / "out", how="symlink")  # type: ignore[arg-type]


# moving ---------------------------------------------------------------------------------------------------------------


def test_moving_removes_the_history_of_a_part_and_no_foreign_files(tmp_path: Path) -> None:
    root = tmp_path / "part"
    write(root, range(30), compression="zstd")
    write(root, range(30, 40), mode="overwrite", compression="zstd")
    write(root, range(40, 60), mode="append", compression="zstd")
    assert len(list(mx8.Dataset(root))) == 30  # decompressed copies
    (root / "README.txt").write_bytes(b"mine")
    (root / STATE / "parts").mkdir()
    (root / STATE / "parts" / "other").write_bytes(b"mine, too")
    merge([root, root], tmp_path / "out", how="move")
    assert tree(root) == {"README.txt": b"mine", f"{STATE}/parts/other": b"mine, too"}
    check_samples_twice = [plain(found) for found in mx8.Dataset(tmp_path / "out")]
    assert check_samples_twice == [sample(number) for number in range(30, 60)] * 2


def test_moving_a_cache_of_streaming_removes_the_raw_copies_beside_compressed_shards(tmp_path: Path) -> None:
    (part,) = parts(tmp_path, 50, compression="zstd")
    make_foreign(part)
    for shard in index_of(part)["shards"]:
        (part / shard["raw_data"]["basename"]).write_bytes(bytes(shard["raw_data"]["bytes"]))
    merge([part], tmp_path / "out", how="move")
    assert not part.exists()
    check_samples(tmp_path / "out", range(50))


def test_a_foreign_part_is_moved_with_its_directories(tmp_path: Path) -> None:
    merge(parts(tmp_path, 20, 20), tmp_path / "joined")
    make_foreign(tmp_path / "joined")
    merge([tmp_path / "joined"], tmp_path / "out", how="move")
    assert not (tmp_path / "joined").exists()
    check_samples(tmp_path / "out", range(40))


def test_a_pinned_part_cannot_be_moved(tmp_path: Path) -> None:
    snapshot = write(tmp_path / "part", range(10))
    with pytest.raises(ShardsError, match="how: expected 'link' or 'copy'"):
        merge([f"{tmp_path}/part@{snapshot}"], tmp_path / "out", how="move")


def test_a_part_locked_by_a_writer_cannot_be_moved_and_nothing_is_published(tmp_path: Path) -> None:
    (root,) = parts(tmp_path, 30)
    with mx8.Writer(root, columns=COLUMNS, mode="append") as writer:
        writer.write(sample(30))
        with pytest.raises(mx8.DiskError, match="another Writer"):
            merge([root], tmp_path / "out", how="move")
    check_samples(root, range(31))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")
def test_parts_on_another_file_system_are_copied(tmp_path: Path) -> None:
    there = Path("/dev/shm", f"mx8shards-{os.getpid()}")
    try:
        roots = parts(there, 30, 20)
        merge(roots, tmp_path / "out", how="link")
        check_samples(tmp_path / "out", range(50))
        assert {path.stat().st_nlink for path in (tmp_path / "out").rglob("shard.*")} == {1}
    finally:
        shutil.rmtree(there)


# interrupted moves ----------------------------------------------------------------------------------------------------


def stop_moving(roots: list[Path], out: Path, is_there: Callable[[], bool]) -> None:
    """Merge and move these parts, and die at the first step for which `is_wanted` is true."""

    class StoppedError(BaseException):
        pass

    def before(name: str, arguments: object) -> None:
        if is_there():
            raise StoppedError

    real, operations.before = operations.before, before
    try:
        with pytest.raises(StoppedError):
            merge(roots, out, how="move")
    finally:
        operations.before = real


def test_the_same_command_completes_a_killed_move(tmp_path: Path) -> None:
    roots = parts(tmp_path, 30, 40, 50)
    stop_moving(roots, tmp_path / "out", lambda: not (roots[1] / "shard.00000.mds").exists())
    published = mx8.Dataset(tmp_path / "out").snapshot
    assert roots[1].exists()
    assert mx8.verify(roots[2], data=True).ok
    assert merge(roots, tmp_path / "out", how="move") == published
    assert [root.exists() for root in roots] == [False] * 3
    check_samples(tmp_path / "out", range(120))
    with pytest.raises(DatasetExistsError, match="the directory already contains a dataset"):
        merge(roots, tmp_path / "out", how="move")


def test_a_killed_move_is_completed_after_parts_and_dataset_were_moved_elsewhere(tmp_path: Path) -> None:
    roots = parts(tmp_path / "here", 30, 40)
    stop_moving(roots, tmp_path / "here" / "out", lambda: not (roots[0] / "shard.00000.mds").exists())
    (tmp_path / "here").rename(tmp_path / "there")
    there = tmp_path / "there"
    merge([there / "part0", there / "part1"], there / "out", how="move")
    assert [path.name for path in there.iterdir()] == ["out"]
    check_samples(there / "out", range(70))


def test_a_partly_removed_part_is_never_merged(tmp_path: Path) -> None:
    roots = parts(tmp_path / "parts", 30, 40)
    stop_moving(roots, tmp_path / "out", lambda: not (roots[0] / "shard.00000.mds").exists())
    with pytest.raises(DatasetNotFoundError, match=r"part0/index\.json: no dataset here"):
        merge([tmp_path / "parts"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_next_writer_of_a_part_completes_its_removal_and_starts_anew(tmp_path: Path) -> None:
    (root,) = parts(tmp_path, 30)
    stop_moving([root], tmp_path / "out", (tmp_path / "out" / "index.json").exists)
    assert (root / "index.json").exists()
    write(root, range(5))
    check_samples(root, range(5))
    check_samples(tmp_path / "out", range(30))


def test_gc_completes_the_removal_of_parts_below_the_dataset(tmp_path: Path) -> None:
    for rank in range(3):
        write(tmp_path / "data", range(10 * rank, 10 * rank + 10), rank=rank, world_size=3)
    stop_moving([tmp_path / "data"], tmp_path / "data", (tmp_path / "data" / "index.json").exists)
    assert len(mx8.gc(tmp_path / "data").removed_parts) == 3
    assert not (tmp_path / "data" / STATE / "parts").exists()
    check_samples(tmp_path / "data", range(30))


def test_a_part_stays_if_the_merge_was_killed_before_it_published(tmp_path: Path) -> None:
    roots = parts(tmp_path, 30, 40)
    before = [tree(root) for root in roots]
    stop_moving(roots, tmp_path / "out", (tmp_path / "out" / STATE / "staging" / "intent.json").exists)
    write(roots[0], range(30, 35), mode="append")
    check_samples(roots[0], range(35))
    with contextlib.closing(LocalPublication(roots[1])):
        pass
    assert tree(roots[1]) == before[1]


def test_an_intent_to_move_from_another_dataset_removes_nothing(tmp_path: Path) -> None:
    (root,) = parts(tmp_path, 30)
    snapshot = mx8.Dataset(root).snapshot
    staging = root / STATE / "staging"
    staging.mkdir()
    intent = {"snapshot": snapshot, "files": ["shard.00000.mds"], "keeps": [snapshot]}
    for moved in (["/nowhere", snapshot], [str(root), f"sha256:{'0' * 64}"], [str(root / "shard.00000.mds"), snapshot]):
        (staging / "intent.json").write_text(json.dumps({**intent, "moved": moved}))
        write(root, range(0), mode="append")
        check_samples(root, range(30))
        staging.mkdir()
    for moved in ("text", [1, 2], [str(root)], [str(root), "../x"]):
        (staging / "intent.json").write_text(json.dumps({**intent, "moved": moved}))
        with pytest.raises(FormatError, match="not a valid intent"):
            write(root, range(0), mode="append")
    check_samples(root, range(30))


# appending ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["link", "copy", "move"])
def test_merge_publishes_the_parts_that_ranks_append(tmp_path: Path, how: Any) -> None:
    ids = []
    for start in range(0, 120, 40):
        mode: Any = "append" if start else "create"
        for rank in (1, 0):
            numbers = range(start + 20 * rank, start + 20 * rank + 20)
            write(tmp_path / "data", numbers, rank=rank, world_size=2, mode=mode, compression="zstd")
        ids.append(merge([tmp_path / "data"], tmp_path / "data", mode=mode, how=how))
        check_samples(tmp_path / "data", range(start + 40))
    assert [entry.snapshot for entry in mx8.log(tmp_path / "data")] == ids[::-1]
    assert mx8.verify(tmp_path / "data", data=True).ok
    assert len({info["zip_data"]["basename"] for info in index_of(tmp_path / "data")["shards"]}) == len(
        index_of(tmp_path / "data")["shards"]
    )
    assert len(mx8.gc(tmp_path / "data", keep=0).removed_parts) == (0 if how == "move" else 6)
    check_samples(tmp_path / "data", range(120))


def test_equal_datasets_and_equal_parts_give_an_equal_id(tmp_path: Path) -> None:
    ids = set()
    for place in ("here", "there"):
        write(tmp_path / place, range(30), threads=1 if place == "here" else 3)
        (part,) = parts(tmp_path / f"parts {place}", 20)
        ids.add(merge([part], tmp_path / place, mode="append", how="link" if place == "here" else "copy"))
    assert len(ids) == 1


def test_parts_from_elsewhere_are_appended_after_an_overwrite_and_a_gc(tmp_path: Path) -> None:
    write(tmp_path / "data", range(5))
    write(tmp_path / "data", range(20), mode="overwrite", metadata={"a": 1})
    for number in range(2):
        write(tmp_path / f"part{number}", range(20 + 10 * number, 30 + 10 * number), metadata={"b": 2})
        merge([tmp_path / f"part{number}"], tmp_path / "data", mode="append")
        mx8.gc(tmp_path / "data", keep=0)
    check_samples(tmp_path / "data", range(40))
    assert mx8.Dataset(tmp_path / "data").metadata == {"a": 1, "b": 2}
    assert sorted(path.name for path in (tmp_path / "data").iterdir() if path.is_dir()) == [
        *(STATE, "g0001", "p0000", "p0001")
    ]


def test_an_append_without_a_dataset_creates_one(tmp_path: Path) -> None:
    one = merge(parts(tmp_path / "a", 30, 20), tmp_path / "out", mode="append")
    assert one == merge(parts(tmp_path / "b", 30, 20), tmp_path / "else")


def test_parts_of_a_foreign_dataset_can_be_appended_to_a_foreign_one(tmp_path: Path) -> None:
    roots = parts(tmp_path, 30, 20)
    for root in roots:
        make_foreign(root)
    merge([roots[1]], roots[0], mode="append")
    check_samples(roots[0], range(50))
    assert len(mx8.log(roots[0])) == 2


def test_parts_with_incompatible_columns_or_metadata_are_not_appended(tmp_path: Path) -> None:
    write(tmp_path / "data", range(10), metadata={"a": 1})
    with mx8.Writer(tmp_path / "other", columns={"label": "int"}) as writer:
        writer.write({"label": 3})
    write(tmp_path / "part", range(10), metadata={"a": 2})
    before = tree(tmp_path)
    with pytest.raises(SchemaError, match=r"/other: expected the columns of .*/data"):
        merge([tmp_path / "other"], tmp_path / "data", mode="append")
    with pytest.raises(SchemaError, match=r"metadata 'a': expected 1 in all parts, as in .*/data, got 2 in .*/part"):
        merge([tmp_path / "part"], tmp_path / "data", mode="append")
    assert tree(tmp_path) == before


def test_parts_of_ranks_are_appended_once_and_only_to_their_snapshot(tmp_path: Path) -> None:
    for rank in range(2):
        write(tmp_path, range(10), rank=rank, world_size=2)
    merge([tmp_path], tmp_path)
    with pytest.raises(DatasetNotFoundError, match=r"expected parts that ranks wrote .*got rank-00000-of-00002"):
        merge([tmp_path], tmp_path, mode="append")
    write(tmp_path, range(10), rank=0, world_size=2, mode="append")
    with pytest.raises(DatasetNotFoundError, match="none of rank-00001-of-00002-on-"):
        merge([tmp_path], tmp_path, mode="append")
    write(tmp_path, range(20, 21), mode="append")
    write(tmp_path, range(10), rank=1, world_size=2, mode="append")
    with pytest.raises(DatasetNotFoundError, match="none of rank-00000-of-00002-on-"):
        merge([tmp_path], tmp_path, mode="append")
    assert len(mx8.Dataset(tmp_path)) == 21


def test_parts_of_an_outdated_snapshot_are_an_error_that_says_how_to_append_them(tmp_path: Path) -> None:
    root = tmp_path / "a set"  # a name that must be quoted in a shell
    write(root, range(10))
    for rank in range(2):
        write(root, range(10 + 5 * rank, 15 + 5 * rank), rank=rank, world_size=2, mode="append")
    write(root, range(20, 21), mode="append")
    with pytest.raises(DatasetNotFoundError, match="if these are not published yet, `mx8shards merge") as caught:
        merge([root], root, mode="append")
    command = shlex.split(caught.value.hint.split("`")[1])
    assert main(command[1:]) == 0
    check_samples(root, [*range(10), 20, *range(10, 20)])


def test_a_dataset_cannot_be_merged_into_itself(tmp_path: Path) -> None:
    write(tmp_path / "in" / "data", range(10))
    with pytest.raises(DatasetExistsError, match="cannot be a part of itself"):
        merge([tmp_path / "in"], tmp_path / "in" / "data", mode="append")
    check_samples(tmp_path / "in" / "data", range(10))


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="mode: expected one of 'create', 'append', got 'overwrite'"):
        merge(parts(tmp_path, 10), tmp_path / "out", mode="overwrite")  # type: ignore[arg-type]
