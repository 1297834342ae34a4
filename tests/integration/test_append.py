"""Does `append` add only new items, and does `split` keep each file in its split?"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.convert import convert_in_parts
from mx8shards.convert.splits import parse_split
from tests.text_folders import NAMES, RECIPE, TextFolder, write_texts

Capture = pytest.CaptureFixture[str]


def samples(root: Path) -> list[tuple[str, str, str]]:
    """Path, text and class of every sample."""
    with mx8.Dataset(root) as dataset:
        classes = dataset.metadata["classes"]
        return [(sample["path"], sample["text"], classes[sample["label"]]) for sample in dataset]


def append(src: Path, out: Path, **options: Any) -> Any:
    return mx8.convert_from(RECIPE, src, out, append=True, **options)


def as_written(names: list[str]) -> list[tuple[str, str, str]]:
    return [(name, name, name.split("/")[0]) for name in names]


# append ---------------------------------------------------------------------------------------------------------------


def test_only_new_files_are_added_and_the_old_snapshot_stays_readable(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = append(src, out)
    assert first.samples == 10
    new = ["cat/7.txt", "dog/10.txt", "dog/6.txt", "dog/9.txt"]
    write_texts(src, new)
    second = append(src, out)
    assert (second.samples, second.known) == (4, 10)
    assert samples(out) == as_written(NAMES + new)
    assert [sample["path"] for sample in mx8.Dataset(f"{out}@{first.snapshot}")] == NAMES
    assert mx8.verify(out, data=True).ok
    assert mx8.Dataset(out).metadata["conversion"]["texts"] == 14
    again = append(src, out)
    assert (again.samples, again.known, again.snapshot) == (0, 14, second.snapshot)
    assert not (out / ".mx8shards/parts").exists()


def test_a_changed_file_is_not_converted_again_and_a_removed_one_stays(src: Path, tmp_path: Path) -> None:
    append(src, tmp_path / "out")
    write_texts(src, ["cat/0.txt"], {"cat/0.txt": "changed"})
    (src / "dog/0.txt").unlink()
    write_texts(src, ["dog/5.txt"])
    append(src, tmp_path / "out")
    assert samples(tmp_path / "out") == as_written([*NAMES, "dog/5.txt"])


def test_rejects_are_tried_again(src: Path, tmp_path: Path) -> None:
    write_texts(src, ["cat/bad.txt"], {"cat/bad.txt": "bad"})
    first = append(src, tmp_path / "out")
    assert append(src, tmp_path / "out").rejects == first.rejects != ()
    assert mx8.Dataset(tmp_path / "out").snapshot == first.snapshot
    write_texts(src, ["cat/bad.txt"])
    assert append(src, tmp_path / "out").samples == 1
    assert ("cat/bad.txt", "cat/bad.txt", "cat") in samples(tmp_path / "out")
    assert mx8.Dataset(tmp_path / "out").metadata["conversion"]["rejects"] == 0


def test_new_classes_are_added_after_the_existing_ones(src: Path, tmp_path: Path) -> None:
    append(src, tmp_path / "out")
    shutil.rmtree(src / "cat")
    write_texts(src, ["ant/1.txt", "bee/1.txt", "dog/7.txt"])
    append(src, tmp_path / "out", workers=2)
    assert mx8.Dataset(tmp_path / "out").metadata["classes"] == ["cat", "dog", "ant", "bee"]
    assert samples(tmp_path / "out") == as_written([*NAMES, "ant/1.txt", "bee/1.txt", "dog/7.txt"])


def test_a_list_of_classes_may_grow_only_at_its_end(src: Path, tmp_path: Path) -> None:
    append(src, tmp_path / "out")
    write_texts(src, ["ant/1.txt"])
    before = (tmp_path / "out/index.json").read_bytes()
    for classes in (["ant", "cat", "dog"], ["cat", "ant", "dog"], ["cat", "ant"]):
        with pytest.raises(
            mx8.SchemaError, match=r"classes: expected \['cat', 'dog'\], got .*classes may only be added at the end"
        ):
            append(src, tmp_path / "out", classes=classes)
    with pytest.raises(
        mx8.SchemaError, match="classes may only be added at the end"
    ):  # an object has its classes already
        mx8.convert_from(TextFolder(src), out=tmp_path / "out", append=True)
    assert (tmp_path / "out/index.json").read_bytes() == before
    append(src, tmp_path / "out", classes=["cat", "dog", "eel", "ant"])
    assert samples(tmp_path / "out") == as_written([*NAMES, "ant/1.txt"])
    assert mx8.Dataset(tmp_path / "out").metadata["classes"] == ["cat", "dog", "eel", "ant"]


def test_options_or_columns_that_differ_from_the_dataset_are_refused(src: Path, tmp_path: Path) -> None:
    append(src, tmp_path / "out")
    with pytest.raises(mx8.SchemaError, match="repeat: expected 1, got 2 in the source"):
        append(src, tmp_path / "out", repeat=2)
    with mx8.Writer(tmp_path / "other", columns={"path": "str", "text": "str"}) as writer:
        writer.write({"path": "a", "text": "b"})
    with pytest.raises(mx8.SchemaError, match="columns: expected"):
        append(src, tmp_path / "other")
    with pytest.raises(mx8.DatasetExistsError, match="append=True"):
        mx8.convert_from(RECIPE, src, tmp_path / "out")


class Numbers:
    columns = {"number": "int"}  # noqa: RUF012
    metadata: dict[str, Any] = {}  # noqa: RUF012

    def items(self) -> list[tuple[str, int]]:
        return [(f"number {i}", i) for i in range(3)]

    def stamp(self, item: Any) -> object:
        return None

    def sample(self, item: Any) -> dict[str, Any]:
        return {"number": item[1]}


class WrongPathColumn(Numbers):
    columns = {"path": "str"}  # noqa: RUF012

    def sample(self, item: Any) -> dict[str, Any]:
        return {"path": f"/{item[0]}"}


def test_without_a_column_that_names_the_items_nothing_can_be_appended(tmp_path: Path) -> None:
    with pytest.raises(mx8.SettingError, match="append: expected a source with a column 'path'"):
        mx8.convert_from(Numbers(), out=tmp_path / "out", append=True)
    with pytest.raises(mx8.SettingError, match="stores the name of the item, 'number 0', in the column 'path'"):
        mx8.convert_from(WrongPathColumn(), out=tmp_path / "out", append=True)
    assert not (tmp_path / "out/index.json").exists()
    mx8.convert_from(Numbers(), out=tmp_path / "numbers")
    assert len(mx8.Dataset(tmp_path / "numbers")) == 3


def test_the_result_of_an_append_does_not_depend_on_workers(src: Path, tmp_path: Path) -> None:
    append(src, tmp_path / "1")
    shutil.copytree(tmp_path / "1", tmp_path / "3")
    write_texts(src, [f"ant/{i}.txt" for i in range(8)])
    found = [append(src, tmp_path / str(workers), workers=workers) for workers in (1, 3)]
    assert found[0] == found[1]
    assert mx8.Dataset(tmp_path / "1").snapshot == mx8.Dataset(tmp_path / "3").snapshot


def test_pictures_of_a_tar_can_be_appended_to_the_dataset_of_a_folder(tmp_path: Path, capsys: Capture) -> None:
    def draw(*names: str) -> None:
        for name in names:
            (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 30, 3), len(name), np.uint8)).save(tmp_path / "src" / name)

    draw("cat/1.png", "dog/1.png")
    command = ["convert", "imagefolder", "--append"]
    assert main([*command, str(tmp_path / "src"), str(tmp_path / "out")]) == 0
    draw("bee/1.png", "cat/10.png")
    with tarfile.open(tmp_path / "src.tar", "w") as tar:
        tar.add(tmp_path / "src", "src")
    capsys.readouterr()
    assert main([*command, str(tmp_path / "src.tar"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith("\t2 samples\t2 already in the dataset\n")
    with mx8.Dataset(tmp_path / "out") as dataset:
        found = [(sample["path"], int(sample["label"])) for sample in dataset]
        assert dataset.metadata["classes"] == ["cat", "dog", "bee"]
    assert found == [("cat/1.png", 0), ("dog/1.png", 1), ("bee/1.png", 2), ("cat/10.png", 0)]


def test_append_is_an_error_if_another_snapshot_is_published_meanwhile(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(src, tmp_path / "out")
    write_texts(src, ["dog/7.txt"])
    real = convert_in_parts._write_parts

    def late(*arguments: Any) -> Any:
        with mx8.Writer(tmp_path / "out", columns=TextFolder.columns, mode="append") as writer:
            writer.write({"path": "dog/7.txt", "text": "theirs", "label": 1})
        return real(*arguments)

    monkeypatch.setattr(convert_in_parts, "_write_parts", late)
    with pytest.raises(mx8.DatasetExistsError, match="to be the current snapshot"):
        append(src, tmp_path / "out")
    monkeypatch.setattr(convert_in_parts, "_write_parts", real)
    assert append(src, tmp_path / "out").samples == 0
    assert Counter(path for path, _, _ in samples(tmp_path / "out"))["dog/7.txt"] == 1


# split ----------------------------------------------------------------------------------------------------------------

SPLIT = {"train": 0.7, "val": 0.3}


def split_of(out: Path) -> dict[str, str]:
    """The split of each path. Asserts that each path is in one split."""
    found = [(path, name) for name in SPLIT for path, _, _ in samples(out / name)]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_splits_hold_every_file_once_and_have_equal_class_lists(src: Path, tmp_path: Path) -> None:
    report = mx8.convert_from(RECIPE, src, tmp_path / "out", split=SPLIT, seed=1, workers=2)
    assert sorted(split_of(tmp_path / "out")) == NAMES
    assert report.samples == 10
    assert report.snapshot is None
    assert {name: split.samples for name, split in report.splits.items()} == {
        name: len(samples(tmp_path / "out" / name)) for name in SPLIT
    }
    for name in SPLIT:
        metadata = mx8.Dataset(tmp_path / "out" / name).metadata
        assert metadata["classes"] == ["cat", "dog"]
        assert metadata["conversion"]["split"]["seed"] == 1
        assert f"  {name}: {tmp_path}/out/{name}@sha256:" in str(report)
    assert not (tmp_path / "out/index.json").exists()


def test_the_split_of_a_file_depends_neither_on_other_files_nor_on_their_order(src: Path, tmp_path: Path) -> None:
    options = {"split": "train=0.7,val=0.3", "seed": 1}
    mx8.convert_from(RECIPE, src, tmp_path / "out", **options)
    before = split_of(tmp_path / "out")
    write_texts(src, [f"ant/{i}.txt" for i in range(20)])
    append(src, tmp_path / "out", **options)
    after = split_of(tmp_path / "out")
    assert before.items() <= after.items()
    mx8.convert_from(RECIPE, src, tmp_path / "anew", **options)
    assert split_of(tmp_path / "anew") == after
    for name in SPLIT:
        assert mx8.Dataset(tmp_path / "out" / name).metadata["classes"] == ["cat", "dog", "ant"]
    assert split_of(tmp_path / "anew") != split_with(src, tmp_path / "other", seed=2)


def split_with(src: Path, out: Path, seed: int) -> dict[str, str]:
    mx8.convert_from(RECIPE, src, out, split=SPLIT, seed=seed)
    return split_of(out)


def test_a_split_without_new_files_gets_the_extended_class_list(src: Path, tmp_path: Path) -> None:
    mx8.convert_from(RECIPE, src, tmp_path / "out", split=SPLIT, seed=1)
    split = parse_split(SPLIT, 1)
    assert split is not None
    name = next(f"ant/{i}.txt" for i in range(100) if split.of(f"ant/{i}.txt") == "train")
    write_texts(src, [name])
    report = append(src, tmp_path / "out", split=SPLIT, seed=1)
    assert [part.samples for part in report.splits.values()] == [1, 0]
    for part in SPLIT:
        assert mx8.Dataset(tmp_path / "out" / part).metadata["classes"] == ["cat", "dog", "ant"]
    assert append(src, tmp_path / "out", split=SPLIT, seed=1).splits["val"].snapshot == report.splits["val"].snapshot


@pytest.mark.parametrize(
    ("where", "options"),
    [
        ("out/train", {}),
        ("out", {"split": SPLIT, "seed": 2}),
        ("out", {"split": {"train": 0.8, "val": 0.2}, "seed": 1}),
    ],
)
def test_a_split_that_differs_from_the_datasets_split_is_refused(
    where: str, options: dict[str, Any], src: Path, tmp_path: Path
) -> None:
    mx8.convert_from(RECIPE, src, tmp_path / "out", split=SPLIT, seed=1)
    write_texts(src, ["dog/8.txt"])
    with pytest.raises(mx8.SchemaError, match=r"split: expected .* a file could be in two splits"):
        append(src, tmp_path / where, **options)


def killed_between_splits(src: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a conversion that publishes train and dies before it publishes val."""
    real = convert_in_parts.merge

    def merge(parts: Any, out: Path, **options: Any) -> str:
        if out.name == "val":
            raise KeyboardInterrupt
        return real(parts, out, **options)

    with monkeypatch.context() as patched:
        patched.setattr(convert_in_parts, "merge", merge)
        with pytest.raises(KeyboardInterrupt):
            mx8.convert_from(RECIPE, src, out, split=SPLIT)
    assert (out / "train/index.json").exists()
    assert not (out / "val/index.json").exists()


@pytest.mark.parametrize("change", ["more", "fewer", "changed", "options"])
def test_a_killed_split_is_not_resumed_after_its_source_changed_and_append_completes_it(
    change: str, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, names = tmp_path / "out", list(NAMES)
    killed_between_splits(src, out, monkeypatch)
    first = samples(out / "train")
    if change == "more":
        names += [f"dog/{i}.txt" for i in range(10, 30)]
        write_texts(src, names)
    elif change == "fewer":
        (src / first[0][0]).unlink()
    elif change == "changed":
        write_texts(src, [first[0][0]], {first[0][0]: "other"})
    with pytest.raises(mx8.SourceError, match=r"(?s)train.*--append"):
        mx8.convert_from(RECIPE, src, out, split=SPLIT, upper=change == "options")
    assert samples(out / "train") == first
    assert not (out / "val/index.json").exists()
    append(src, out, split=SPLIT)
    assert sorted(split_of(out)) == sorted(names)


def test_a_resumed_split_reports_the_rejects_of_the_published_split_again(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    parted = parse_split(SPLIT, 0)
    assert parted is not None
    bad = next(name for name in NAMES if parted.of(name) == "train")
    write_texts(src, [bad], {bad: "bad"})
    whole = mx8.convert_from(RECIPE, src, tmp_path / "whole", split=SPLIT)
    out = tmp_path / "out"
    killed_between_splits(src, out, monkeypatch)
    for _ in range(2):  # the second time, val is gone after a complete conversion
        arguments = ["convert", RECIPE, str(src), str(out), "--split", "train=0.7,val=0.3", "--json"]
        assert main(arguments) == 4
        found = capsys.readouterr()
        splits = json.loads(found.out)["splits"]
        assert splits["train"]["rejects"] == [reject._asdict() for reject in whole.rejects]
        assert splits["train"]["samples"] == 0
        assert f"1 of {whole.splits['train'].samples + 1} items could not be converted" in found.err
        assert [splits[name]["snapshot"] for name in SPLIT] == [whole.splits[name].snapshot for name in SPLIT]
        shutil.rmtree(out / "val")


def test_a_split_is_refused_in_the_directory_of_a_dataset_or_if_it_would_be_empty(src: Path, tmp_path: Path) -> None:
    mx8.convert_from(RECIPE, src, tmp_path / "whole")
    with pytest.raises(mx8.DatasetExistsError, match="the splits would lie inside it"):
        mx8.convert_from(RECIPE, src, tmp_path / "whole", split=SPLIT)
    with pytest.raises(mx8.SourceError, match="val: expected items for this split, got none of 10"):
        mx8.convert_from(RECIPE, src, tmp_path / "out", split={"train": 0.9999, "val": "0.0001"})
    assert not (tmp_path / "out").exists()
    mx8.convert_from(RECIPE, src, tmp_path / "out", split=SPLIT)
    with pytest.raises(mx8.DatasetExistsError, match="the directory already contains a dataset"):
        mx8.convert_from(RECIPE, src, tmp_path / "out", split=SPLIT)


def test_the_split_of_a_path_follows_the_documented_formula() -> None:
    import hashlib

    split = parse_split("train=0.9,val=0.1", 7)
    assert split is not None
    for i in range(1_000):
        path = f"é/{i}.jpg"
        share = int.from_bytes(hashlib.sha256(f"7:{path}".encode()).digest()[:8], "big") / 2**64
        assert split.of(path) == ("train" if share < 0.9 else "val")
    assert split.of("caf\udce9") in split.names
    found = Counter(split.of(str(i)) for i in range(20_000))
    assert 17_700 < found["train"] < 18_300  # 7 standard deviations
    assert parse_split({"a": 0.1, "b": 0.2, "c": 0.7}, 0) is not None  # as floats they do not add up to 1


def test_a_tar_and_its_folder_are_split_alike(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"src/{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), i, np.uint8)).save(tmp_path / f"src/{'ab'[i % 2]}/{i}.png")
    with tarfile.open(tmp_path / "src.tar", "w") as tar:
        tar.add(tmp_path / "src", "src")
    for name in ("src", "src.tar"):
        assert (
            main(
                [
                    "convert",
                    "imagefolder",
                    str(tmp_path / name),
                    str(tmp_path / f"{name}.out"),
                    "--split",
                    "train=0.5,val=0.5",
                ]
            )
            == 0
        )
    for part in ("train", "val"):
        found = [[s["path"] for s in mx8.Dataset(tmp_path / f"{name}.out" / part)] for name in ("src", "src.tar")]
        assert found[0] == found[1]


def test_the_metadata_of_a_split_name_it(src: Path, tmp_path: Path) -> None:
    mx8.convert_from(RECIPE, src, tmp_path / "out", split="train=0.75,val=1/4", seed=1)
    conversion = json.loads((tmp_path / "out/val/index.json").read_text())["mx8shards"]["metadata"]["conversion"]
    assert conversion["split"] == {"name": "val", "seed": 1, "shares": {"train": "3/4", "val": "1/4"}}
