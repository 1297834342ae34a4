"""Is a user who opens what is no dataset told what to type instead?"""

from __future__ import annotations

from pathlib import Path

import pytest

import mx8shards as mx8


def write(root: Path, **options: object) -> None:
    with mx8.Writer(root, columns={"x": "int"}, **options) as writer:  # type: ignore[arg-type]
        writer.write({"x": 1})


def told(path: Path | str) -> str:
    with pytest.raises(mx8.DatasetNotFoundError, match="no dataset here") as caught:
        mx8.Dataset(path)
    return caught.value.hint


def test_an_index_and_a_shard_are_told_their_dataset(tmp_path: Path) -> None:
    write(tmp_path / "data")
    assert told(tmp_path / "data/index.json") == f"give the dataset's directory: {tmp_path}/data"
    assert told(tmp_path / "data/shard.00000.mds").endswith(f"give the dataset's directory: {tmp_path}/data")


def test_a_typo_names_what_is_alike(tmp_path: Path) -> None:
    write(tmp_path / "deep/imagenet-train")
    assert told(tmp_path / "deep/imagenet-trian") == (
        f"there is no {tmp_path}/deep/imagenet-trian; did you mean {tmp_path}/deep/imagenet-train?"
    )
    assert told(tmp_path / "deeep/imagenet-train").endswith(f"did you mean {tmp_path}/deep?")
    assert told(tmp_path / "quite-different") == f"there is no {tmp_path}/quite-different"
    assert told(tmp_path / "deep/imagenet-train/index.json/x").endswith("index.json is a file")


def test_a_parent_names_the_datasets_below(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write(tmp_path / "all" / name)
    (tmp_path / "all/empty").mkdir()
    root = tmp_path / "all"
    assert told(root) == f"there are datasets below: {root}/test, {root}/train and {root}/val"
    for i in range(10):
        write(root / f"more-{i}")
    assert told(root).endswith("and 8 more")


def test_pictures_are_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/1.JPG").write_bytes(b"")
    for path in (tmp_path / "photos", tmp_path / "photos/cat"):
        assert told(path) == f"these are pictures: `mx8shards convert imagefolder {path} OUT` makes a dataset of them"
    (tmp_path / "photos.tar").write_bytes(b"")
    assert "`mx8shards convert imagefolder" in told(tmp_path / "photos.tar")


def test_parts_of_ranks_are_to_be_merged_and_the_advice_works(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for rank in range(2):
        write(root, rank=rank, world_size=2)
    hint = told(root)
    assert f"mx8shards.merge([{str(root)!r}], {str(root)!r})" in hint
    mx8.merge([str(root)], str(root))
    assert len(mx8.Dataset(root)) == 2


def test_what_else_lies_there_is_said(tmp_path: Path) -> None:
    write(tmp_path / "data")
    snapshot = mx8.Dataset(tmp_path / "data").snapshot
    (tmp_path / "data/index.json").unlink()
    assert told(tmp_path / "data") == f"snapshots are kept here: `{tmp_path}/data@{snapshot}` opens one of them"
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/shard.00000.mds.zstd").write_bytes(b"")
    assert told(tmp_path / "shards").startswith("there are shards but no index.json")
    (tmp_path / "empty").mkdir()
    assert told(tmp_path / "empty") == "the directory is empty"
    (tmp_path / "empty/notes.txt").write_bytes(b"")
    assert told(tmp_path / "empty") == ""
    (tmp_path / "file.txt").write_bytes(b"")
    assert told(tmp_path / "file.txt") == "this is a file; give the dataset's directory"


def test_a_pinned_snapshot_of_nothing_says_so_too(tmp_path: Path) -> None:
    write(tmp_path / "data")
    with pytest.raises(mx8.DatasetNotFoundError, match=r"got none \(`mx8shards log .*data` lists those"):
        mx8.Dataset(f"{tmp_path}/data@sha256:{'0' * 64}")
    with pytest.raises(mx8.DatasetNotFoundError, match=r"got none \(there is no .*dta; did you mean .*data\?"):
        mx8.Dataset(f"{tmp_path}/dta@sha256:{'0' * 64}")
