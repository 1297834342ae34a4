"""Does `convert_from` work like the command, in scripts and notebooks, with all forms of sources?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.cli.signatures import documented
from mx8shards.convert.imagefolder import ImageFolder
from mx8shards.convert.source import parameters_of
from tests.text_folders import NAMES, RECIPE, TextFolder, write_texts

Capture = pytest.CaptureFixture[str]


def paths(root: Path) -> list[str]:
    with mx8.Dataset(root) as dataset:
        return [sample["path"] for sample in dataset]


def test_convert_from_and_the_command_make_equal_snapshots(tmp_path: Path, capsys: Capture) -> None:
    for i, name in enumerate(("cat/1.png", "dog/2.png", "dog/3.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 30, 3), 50 * i, np.uint8)).save(tmp_path / "photos" / name)
    options = ["--max-side", "20", "--compression", "zstd:1", "--size-limit", "1mb", "--workers", "2"]
    assert main(["convert", "imagefolder", str(tmp_path / "photos"), str(tmp_path / "command"), *options]) == 0
    report = mx8.convert_from(
        "imagefolder", tmp_path / "photos", tmp_path / "call", max_side=20, compression="zstd:1", size_limit="1mb"
    )
    assert capsys.readouterr().out == f"{report.snapshot}\t3 samples\n"
    assert mx8.Dataset(tmp_path / "call").snapshot == mx8.Dataset(tmp_path / "command").snapshot == report.snapshot
    assert (report.samples, report.rejects, report.known) == (3, (), 0)


def test_a_recipe_may_be_a_file_or_an_object_with_any_number_of_workers(src: Path, tmp_path: Path) -> None:
    by_file = mx8.convert_from(RECIPE, src, tmp_path / "1", repeat=2)
    assert mx8.Dataset(tmp_path / "1")[0]["text"] == "cat/0.txtcat/0.txt"
    assert mx8.convert_from(RECIPE, src, tmp_path / "2", repeat=2, workers=3).snapshot == by_file.snapshot
    alone = mx8.convert_from(TextFolder(src, repeat=2), out=tmp_path / "3")
    together = mx8.convert_from(TextFolder(src, repeat=2), out=tmp_path / "4", workers=3)
    assert alone.snapshot == together.snapshot
    assert alone.counts == together.counts == {"texts": 10}
    assert paths(tmp_path / "4") == NAMES


def test_a_printed_report_is_short_and_names_the_file_of_rejects(src: Path, tmp_path: Path) -> None:
    write_texts(src, [f"cat/bad{i}.txt" for i in range(7)], dict.fromkeys((f"cat/bad{i}.txt" for i in range(7)), "bad"))
    report = mx8.convert_from(RECIPE, src, tmp_path / "out")
    lines = str(report).splitlines()
    assert lines[0].startswith(f"{tmp_path}/out@{report.snapshot}: 10 samples, 10 texts, 7 rejects in ")
    assert lines[1] == "  cat/bad0.txt: expected a text, got a bad one"
    assert lines[-1] == f"  and 2 more rejects: see {report.rejects_file}"
    assert "\n" not in repr(report)
    assert report.rejects_file is not None
    assert len(report.rejects_file.read_text().splitlines()) == len(report.rejects) == 7
    assert report.seconds > 0


class Unpicklable(TextFolder):
    def __init__(self, src: Path) -> None:
        super().__init__(src)
        self.key = lambda: 0


BAD: dict[str, tuple[Callable[[Path, Path], Any], str, str]] = {
    "source": (
        lambda src, out: mx8.convert_from("parquet", src, out),
        "source",
        "imagefolder, videofolder, or the path of a recipe",
    ),
    "no source": (lambda src, out: mx8.convert_from(3, src, out), "source", "got 3"),  # type: ignore[arg-type]
    "a class": (lambda src, out: mx8.convert_from(TextFolder, src, out), "source", "TextFolder"),  # type: ignore[arg-type]
    "no out": (lambda src, out: mx8.convert_from(RECIPE, src), "out", "got none"),
    "out in src": (lambda src, out: mx8.convert_from("imagefolder", src, src / "out"), "out", "outside of SRC"),
    "no src": (lambda src, out: mx8.convert_from(RECIPE, out=out), "src", "expected a value, which"),
    "src twice": (lambda src, out: mx8.convert_from(TextFolder(src), src, out), "src", "pass out= as a keyword"),
    "an unknown option": (
        lambda src, out: mx8.convert_from(RECIPE, src, out, fast=1),
        "fast",
        "classes, repeat, upper",
    ),
    "an option of an object": (lambda src, out: mx8.convert_from(TextFolder(src), out=out, repeat=2), "repeat", "2"),
    "workers": (lambda src, out: mx8.convert_from(RECIPE, src, out, workers=0), "workers", "an int from 1 to 4096"),
    "append": (lambda src, out: mx8.convert_from(RECIPE, src, out, append=1), "append", "True or False"),  # type: ignore[arg-type]
    "seed": (lambda src, out: mx8.convert_from(RECIPE, src, out, split="a=1", seed=-1), "seed", "an int from 0"),
    "a seed alone": (lambda src, out: mx8.convert_from(RECIPE, src, out, seed=2), "seed", "expected 0 without split"),
    "size_limit": (lambda src, out: mx8.convert_from(RECIPE, src, out, size_limit="much"), "size_limit", "'much'"),
    "compression": (lambda src, out: mx8.convert_from(RECIPE, src, out, compression="rar"), "compression", "'rar'"),
    "labels": (lambda src, out: mx8.convert_from("imagefolder", src, out, labels="some"), "labels", "'auto', 'none'"),
    "max_side": (lambda src, out: mx8.convert_from("imagefolder", src, out, max_side=0), "max_side", "an int from 1"),
    "quality": (lambda src, out: mx8.convert_from("imagefolder", src, out, quality=101), "quality", "from 1 to 100"),
    "format": (lambda src, out: mx8.convert_from("imagefolder", src, out, format="png"), "format", "'jpeg', 'yuv420'"),
    "tiles": (lambda src, out: mx8.convert_from("imagefolder", src, out, tiles=1), "tiles", "True or False"),
    "classes": (lambda src, out: mx8.convert_from("imagefolder", src, out, classes=[]), "classes", "at least one"),
    "classes twice": (
        lambda src, out: mx8.convert_from("imagefolder", src, out, classes=["a", "a"]),
        "classes",
        "once",
    ),
    "unpicklable": (lambda src, out: mx8.convert_from(Unpicklable(src), out=out), "source", "cannot be pickled"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_setting_is_an_error_that_names_the_argument(name: str, src: Path, tmp_path: Path) -> None:
    act, subject, text = BAD[name]
    with pytest.raises(mx8.SettingError) as found:
        act(src, tmp_path / "out")
    assert found.value.subject == subject
    assert text in str(found.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "split", ["", "train", "train=x", "a=0.5,a=0.5", "a=0.5,b=0.4", "a=1.5,b=-0.5", "../a=1", ".a=1"]
)
def test_an_invalid_split_is_an_error(split: str, src: Path, tmp_path: Path) -> None:
    with pytest.raises(mx8.SettingError, match="that add up to 1"):
        mx8.convert_from(RECIPE, src, tmp_path / "out", split=split)


def test_python_and_the_command_line_share_one_definition_of_each_option(capsys: Capture) -> None:
    assert main(["convert", "imagefolder", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for opener in (ImageFolder, mx8.convert_from):
        helps = documented(opener)
        assert all(len(text) > 5 for text in helps.values())
        for name in helps.keys() - {"source", "progress", "options", "src", "out"}:
            assert f"--{name.replace('_', '-')}" in said or f"--no-{name}" in said
            assert " ".join(helps[name].split())[:40] in said.replace("- ", "-")
    assert "--no-tiles JPEGs are stored unchanged. Default: JPEGs are stored in tiles" in said
    assert "False" not in said
    assert parameters_of("imagefolder").keys() == documented(ImageFolder).keys()


# scripts and notebooks ------------------------------------------------------------------------------------------------

HEAD = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
import mx8shards as mx8
from mx8shards.convert import convert_in_parts
from tests.text_folders import TextFolder
convert_in_parts.PART_ITEMS = 3
src, out = sys.argv[1:]
"""
OWN = "class Mine(TextFolder):\n    pass\n"
FILE = f"print(mx8.convert_from({RECIPE!r}, src, out, workers=2).samples)\n"
OBJECT = "print(mx8.convert_from(TextFolder(src), out=out, workers=2).samples)\n"
MINE = "print(mx8.convert_from(Mine(src), out=out, workers=2).samples)\n"


def guarded(code: str) -> str:
    return f'if __name__ == "__main__":\n    {code}'


@pytest.mark.parametrize("code", [FILE, OBJECT, guarded(FILE), guarded(OBJECT), OWN + guarded(MINE)])
def test_a_script_converts_with_workers(code: str, src: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(HEAD + code)
    done = run_script([tmp_path / "script.py"], src, tmp_path)
    assert (done.stdout, done.stderr) == ("10\n", "")
    assert paths(tmp_path / "out") == NAMES


def run_script(script: list[Any], src: Path, tmp_path: Path, code: str | None = None) -> Any:
    command = [sys.executable, *map(str, script), str(src), str(tmp_path / "out")]
    return subprocess.run(command, cwd=tmp_path, input=code, capture_output=True, text=True, check=False, timeout=300)


def test_a_script_that_uses_its_own_class_without_a_main_guard_gets_a_clear_error(src: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(HEAD + OWN + MINE)
    done = run_script([tmp_path / "script.py"], src, tmp_path)
    assert done.returncode == 1
    assert "SettingError: workers: a worker imports this script" in done.stderr
    assert 'if __name__ == "__main__"' in done.stderr
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("code", [FILE, OBJECT])
def test_code_without_a_file_such_as_a_notebook_converts_with_workers(code: str, src: Path, tmp_path: Path) -> None:
    done = run_script(["-"], src, tmp_path, HEAD + code)
    assert (done.stdout, done.stderr) == ("10\n", "")


def test_a_class_that_workers_cannot_import_is_an_error_unless_workers_is_1(src: Path, tmp_path: Path) -> None:
    done = run_script(["-"], src, tmp_path, HEAD + OWN + MINE)
    assert "SettingError: workers: expected 1, as Mine is defined in a notebook or at a prompt" in done.stderr
    done = run_script(["-"], src, tmp_path, HEAD + OWN + MINE.replace(", workers=2", ""))
    assert (done.stdout, done.stderr) == ("10\n", "")


def test_a_recipe_of_the_old_form_is_an_error_that_says_what_to_change(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "old.py").write_text("def add_arguments(parser): pass\ndef open_source(args): pass\n")
    assert main(["convert", str(tmp_path / "old.py"), "a", "b"]) == 2
    assert "that takes plain arguments, got add_arguments(parser)" in capsys.readouterr().err
    with pytest.raises(mx8.SettingError, match="plain arguments"):
        mx8.convert_from(str(tmp_path / "old.py"), "a", "b")


def test_parts_of_an_object_with_other_attributes_are_not_reused(src: Path, tmp_path: Path) -> None:
    write_texts(src, ["zoo/x.txt"])
    (src / "zoo/x.txt").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        mx8.convert_from(TextFolder(src, upper=False), out=tmp_path / "out")
    assert len(list((tmp_path / "out/.mx8shards/parts").iterdir())) == 3
    write_texts(src, ["zoo/x.txt"])
    assert mx8.convert_from(TextFolder(src, upper=True), out=tmp_path / "out").samples == 11
    with mx8.Dataset(tmp_path / "out") as dataset:
        assert all(sample["text"] == sample["text"].upper() for sample in dataset)


def test_the_json_output_of_the_command_has_splits(src: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["convert", RECIPE, str(src), str(tmp_path / "out"), "--split", "train=0.5,val=0.5", "--json"]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["snapshot"] is None
    assert said["splits"]["val"]["snapshot"] == mx8.Dataset(tmp_path / "out/val").snapshot
    assert said["samples"] == 10 == sum(split["samples"] for split in said["splits"].values())


@pytest.mark.parametrize("append", [True, False])
def test_converting_without_split_into_a_directory_of_splits_is_an_error(
    append: bool, src: Path, tmp_path: Path
) -> None:
    mx8.convert_from(RECIPE, src, tmp_path / "out", split="train=0.5,val=0.5")
    with pytest.raises(mx8.SettingError, match=r"OUT holds the splits train, val: give --split"):
        mx8.convert_from(RECIPE, src, tmp_path / "out", append=append)
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_symlink_in_place_of_the_directory_of_a_split_is_refused(src: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(mx8.DiskError, match=r"out/train: a symlink in place of a split's directory"):
        mx8.convert_from(RECIPE, src, tmp_path / "out", split="train=0.5,val=0.5")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_splits_can_be_merged_and_the_result_has_no_metadata_of_one_conversion(src: Path, tmp_path: Path) -> None:
    mx8.convert_from(RECIPE, src, tmp_path / "out", split="train=0.5,val=0.5")
    parts = [tmp_path / "out" / name for name in ("train", "val")]
    mx8.merge(parts, tmp_path / "all")
    with mx8.Dataset(tmp_path / "all") as merged:
        assert len(merged) == len(NAMES)
        assert "conversion" not in merged.metadata
    mx8.merge(parts[:1], tmp_path / "more")
    assert mx8.Dataset(tmp_path / "more").metadata["conversion"]["split"]["name"] == "train"
    mx8.merge(parts[1:], tmp_path / "more", mode="append")
    assert "conversion" not in mx8.Dataset(tmp_path / "more").metadata
    assert "conversion" not in mx8.concat([mx8.Dataset(part) for part in parts]).metadata


@pytest.mark.parametrize("split", [None, "train=0.5,val=0.5"])
def test_append_uses_compression_and_size_limit_of_the_dataset_by_default(
    split: str | None, src: Path, tmp_path: Path
) -> None:
    def kinds() -> list[tuple[str | None, object]]:
        with mx8.Dataset(tmp_path / "out" / ("train" if split else "")) as dataset:
            index = dataset.shards.snapshots[0].index
            entries = [index.entry(i) for i in range(index.shards)]
            return [(entry.kind.compression, entry.kind.size_limit) for entry in entries]

    def append(folder: str, **options: Any) -> None:
        write_texts(src, [f"{folder}/{i}.txt" for i in range(9)])
        mx8.convert_from(RECIPE, src, tmp_path / "out", append=True, split=split, **options)

    mx8.convert_from(RECIPE, src, tmp_path / "out", split=split, compression="zstd:3", size_limit="1mb")
    append("eel")
    assert set(kinds()) == {("zstd:3", 1 << 20)}
    append("fox", size_limit="2mb")
    assert set(kinds()) == {("zstd:3", 1 << 20), ("zstd:3", 2 << 20)}
    append("gnu", compression=None)
    assert kinds()[-1] == (None, 2 << 20)
