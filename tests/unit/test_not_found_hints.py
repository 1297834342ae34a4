"""Does opening a directory that is not a dataset suggest the right path?"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.cli import main


def write(root: Path, **options: object) -> None:
    with mx8.Writer(root, columns={"x": "int"}, **options) as writer:  # type: ignore[arg-type]
        writer.write({"x": 1})


def hint_of(path: Path | str) -> str:
    with pytest.raises(mx8.DatasetNotFoundError, match="no dataset here") as caught:
        mx8.Dataset(path)
    return caught.value.hint


def test_paths_of_an_index_or_shard_get_the_dataset_as_hint(tmp_path: Path) -> None:
    write(tmp_path / "data")
    assert hint_of(tmp_path / "data/index.json") == f"give the dataset's directory: {tmp_path}/data"
    assert hint_of(tmp_path / "data/shard.00000.mds").endswith(f"give the dataset's directory: {tmp_path}/data")


def test_a_typo_gets_a_similar_name_as_hint(tmp_path: Path) -> None:
    write(tmp_path / "deep/imagenet-train")
    assert hint_of(tmp_path / "deep/imagenet-trian") == (
        f"there is no {tmp_path}/deep/imagenet-trian; did you mean {tmp_path}/deep/imagenet-train?"
    )
    assert hint_of(tmp_path / "deeep/imagenet-train").endswith(f"did you mean {tmp_path}/deep?")
    assert hint_of(tmp_path / "quite-different") == f"there is no {tmp_path}/quite-different"
    assert hint_of(tmp_path / "deep/imagenet-train/index.json/x").endswith("index.json is a file")


def test_a_parent_directory_gets_the_datasets_below_as_hint(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write(tmp_path / "all" / name)
    (tmp_path / "all/empty").mkdir()
    root = tmp_path / "all"
    assert hint_of(root) == f"there are datasets below: {root}/test, {root}/train and {root}/val"
    for i in range(10):
        write(root / f"more-{i}")
    assert hint_of(root).endswith("and 8 more")


def test_a_folder_of_pictures_gets_the_convert_command_as_hint(tmp_path: Path) -> None:
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/1.JPG").write_bytes(b"")
    for path in (tmp_path / "photos", tmp_path / "photos/cat"):
        assert (
            hint_of(path) == f"these are pictures: `mx8shards convert imagefolder {path} OUT` makes a dataset of them"
        )
    (tmp_path / "photos.tar").write_bytes(b"")
    assert "`mx8shards convert imagefolder" in hint_of(tmp_path / "photos.tar")


def test_unmerged_parts_get_a_merge_command_that_works_as_hint(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for rank in range(2):
        write(root, rank=rank, world_size=2)
    hint = hint_of(root)
    assert f"mx8shards.merge([{str(root)!r}], {str(root)!r})" in hint
    mx8.merge([str(root)], str(root))
    assert len(mx8.Dataset(root)) == 2


def test_commands_in_hints_quote_any_path(tmp_path: Path) -> None:
    odd = tmp_path / "my photos; $(touch x) 'y'"
    (odd / "cat").mkdir(parents=True)
    (odd / "cat/1.jpg").write_bytes(b"")
    command = hint_of(odd).split("`")[1]
    assert shlex.split(command) == ["mx8shards", "convert", "imagefolder", str(odd), "OUT"]
    (tmp_path / "a tar.tar").write_bytes(b"")
    assert shlex.split(hint_of(tmp_path / "a tar.tar").split("`")[1])[3] == f"{tmp_path}/a tar.tar"
    for rank in range(2):
        write(tmp_path / "two words", rank=rank, world_size=2)
    assert shlex.split(hint_of(tmp_path / "two words").split("`")[1])[2:] == [f"{tmp_path}/two words"] * 2


@pytest.mark.parametrize("moment", ["_write_parts", "_publish"])
def test_a_killed_conversion_gets_the_same_command_as_hint(tmp_path: Path, moment: str) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "1.png")
    command = ["convert", "imagefolder", str(tmp_path / "photos"), str(tmp_path / "out")]
    code = f"""
import os, sys
from mx8shards.cli import main
from mx8shards.convert import convert_in_parts
convert_in_parts.{moment} = lambda *_: os._exit(9)
main(sys.argv[1:])
"""
    killed = subprocess.run([sys.executable, "-c", code, *command], check=False)
    assert killed.returncode == 9
    assert "repeat the convert command" in hint_of(tmp_path / "out")
    assert main(command) == 0
    assert len(mx8.Dataset(tmp_path / "out")) == 2


def test_among_very_many_kept_snapshots_one_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "data/.mx8shards/snapshots"
    directory.mkdir(parents=True)
    (directory / "notes.json").write_bytes(b"")
    assert hint_of(tmp_path / "data") == ""
    for i in range(3_000):
        (directory / f"{i:064x}.json").write_bytes(b"")
    assert "@sha256:0000" in hint_of(tmp_path / "data")


def test_other_contents_of_the_directory_are_named(tmp_path: Path) -> None:
    write(tmp_path / "data")
    snapshot = mx8.Dataset(tmp_path / "data").snapshot
    (tmp_path / "data/index.json").unlink()
    assert (
        hint_of(tmp_path / "data") == f"snapshots are kept here: `{tmp_path}/data@{snapshot}` opens the newest of them"
    )
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/shard.00000.mds.zstd").write_bytes(b"")
    assert hint_of(tmp_path / "shards").startswith("there are shards but no index.json")
    (tmp_path / "empty").mkdir()
    assert hint_of(tmp_path / "empty") == "the directory is empty"
    (tmp_path / "empty/notes.txt").write_bytes(b"")
    assert hint_of(tmp_path / "empty") == ""
    (tmp_path / "file.txt").write_bytes(b"")
    assert hint_of(tmp_path / "file.txt") == "this is a file; give the dataset's directory"


def test_an_unknown_pinned_snapshot_gets_hints_too(tmp_path: Path) -> None:
    write(tmp_path / "data")
    with pytest.raises(mx8.DatasetNotFoundError, match=r"got none \(`mx8shards log .*data` lists the snapshots"):
        mx8.Dataset(f"{tmp_path}/data@sha256:{'0' * 64}")
    with pytest.raises(mx8.DatasetNotFoundError, match=r"got none \(there is no .*dta; did you mean .*data\?"):
        mx8.Dataset(f"{tmp_path}/dta@sha256:{'0' * 64}")
