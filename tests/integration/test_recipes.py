"""Do the recipes in converters/ convert the files of public datasets correctly?"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.media.tiles import untile
from tests.pictures import jpeg
from tests.pixels import picture
from tests.videos import video

SYNSETS = ("n01440764", "n01443537", "n02123045")


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def convert(repository: Path, *arguments: str, recipe: str = "imagenet") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mx8shards.convert", str(repository / f"converters/{recipe}.py"), *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    return [jpeg(picture(300, 400, i, True)) for i in range(6)]


def test_the_inner_tars_of_imagenet_become_classes_by_synset(
    tmp_path: Path, repository: Path, jpegs: list[bytes]
) -> None:
    inner = {
        f"{synset}.tar": tar_of({f"{synset}_{i}.JPEG": jpegs[2 * number + i] for i in range(2)})
        for number, synset in enumerate(SYNSETS)
    }
    (tmp_path / "train.tar").write_bytes(tar_of(dict(reversed(inner.items()))))
    done = convert(repository, str(tmp_path / "train.tar"), str(tmp_path / "train"), "--workers", "2")
    assert done.returncode == 0, done.stderr
    with mx8.Dataset(tmp_path / "train") as dataset:
        assert dataset.metadata["classes"] == list(SYNSETS)
        assert dataset.column("label").tolist() == [0, 0, 1, 1, 2, 2]
        assert [sample["path"] for sample in dataset] == [f"{s}/{s}_{i}.JPEG" for s in SYNSETS for i in range(2)]
        assert [untile(sample["image"]) for sample in dataset] == jpegs
        assert dataset[0]["image"] != jpegs[0]


def test_validation_pictures_get_their_labels_from_a_list(tmp_path: Path, repository: Path, jpegs: list[bytes]) -> None:
    names = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 7)]
    (tmp_path / "val.tar").write_bytes(tar_of(dict(zip(names[::-1], jpegs[::-1], strict=True))))
    labels = np.array([2, 0, 1, 1, 0, 2])
    (tmp_path / "synsets.txt").write_text("\n".join(SYNSETS[label] for label in labels))
    arguments = [str(tmp_path / "val.tar"), "--synsets", str(tmp_path / "synsets.txt"), str(tmp_path / "val")]
    done = convert(repository, *arguments)
    assert done.returncode == 0, done.stderr
    with mx8.Dataset(tmp_path / "val") as dataset:
        assert dataset.column("label").tolist() == labels.tolist()
        assert [sample["path"] for sample in dataset] == names
        assert [untile(sample["image"]) for sample in dataset] == jpegs


@pytest.mark.parametrize(
    ("content", "synsets", "error"),
    [
        (b"no tar at all" * 100, None, "expected a folder, or an uncompressed tar"),
        (tar_of({"n01440764.tar": tar_of({})}), None, "n01440764.tar: expected pictures, got none"),
        (tar_of({"a.JPEG": b"x"}), None, "needs --synsets FILE"),
        (tar_of({"a.JPEG": b"x"}), "n01440764\nn01443537", "expected 1 lines, got 2"),
    ],
)
def test_tars_of_another_layout_are_refused(
    content: bytes, synsets: str | None, error: str, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    more: list[str] = []
    if synsets is not None:
        (tmp_path / "list.txt").write_text(synsets)
        more = ["--synsets", str(tmp_path / "list.txt")]
    done = convert(repository, str(tmp_path / "a.tar"), *more, str(tmp_path / "out"))
    assert done.returncode == 1
    assert error in done.stderr
    assert "Traceback" not in done.stderr


DAMAGE: dict[str, Callable[[bytes, int], int]] = {
    "a header of the outer tar": lambda tar, inner: tar.find(b"n01443537.tar"),
    "a header of an inner tar": lambda tar, inner: tar.find(b"n01443537_1.JPEG"),
    "the outer tar is cut": lambda tar, inner: len(tar) - inner - 2000,
    "the outer tar has no end": lambda tar, inner: len(tar.rstrip(b"\0")) + 1,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tar_is_an_error_so_that_no_class_is_lost_silently(
    damage: str, tmp_path: Path, repository: Path, jpegs: list[bytes]
) -> None:
    inner = [tar_of({f"{synset}_{i}.JPEG": jpegs[i] for i in range(2)}) for synset in SYNSETS]
    tar = bytearray(tar_of({f"{synset}.tar": data for synset, data in zip(SYNSETS, inner, strict=True)}))
    at = DAMAGE[damage](bytes(tar), len(inner[-1]))
    if "header" in damage:
        tar[at + 1] ^= 1
    else:
        del tar[at:]
    (tmp_path / "a.tar").write_bytes(tar)
    done = convert(repository, str(tmp_path / "a.tar"), str(tmp_path / "out"))
    assert done.returncode == 1, done.stderr
    assert "a.tar: " in done.stderr
    assert "byte " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "index.json").exists()


def test_damaged_pictures_are_rejects_and_cmyk_becomes_rgb(
    tmp_path: Path, repository: Path, jpegs: list[bytes]
) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(jpegs[1])).convert("CMYK").save(out, "JPEG")
    files = {"1.JPEG": jpegs[0], "2.JPEG": b"no picture", "3.JPEG": jpegs[1][:-500], "4.JPEG": out.getvalue()}
    (tmp_path / "a.tar").write_bytes(tar_of({"n01440764.tar": tar_of(files), "readme.txt": b"text"}))
    done = convert(repository, str(tmp_path / "a.tar"), str(tmp_path / "out"))
    assert done.returncode == 4, done.stderr
    report = Path(done.stderr.strip().rpartition(": see ")[2]).read_text().splitlines()
    reasons = {line["item"]: line["reason"] for line in map(json.loads, report)}
    assert set(reasons) == {"n01440764/2.JPEG", "n01440764/3.JPEG", "readme.txt"}
    assert "expected a picture (JPEG, PNG" in reasons["n01440764/2.JPEG"]
    assert "Premature end" in reasons["n01440764/3.JPEG"]
    with mx8.Dataset(tmp_path / "out") as dataset:
        assert [sample["path"] for sample in dataset] == ["n01440764/1.JPEG", "n01440764/4.JPEG"]
        assert untile(dataset[0]["image"]) == jpegs[0]
        assert Image.open(io.BytesIO(untile(dataset[1]["image"]))).mode == "RGB"


def write_videos(root: Path, names: Sequence[str]) -> Path:
    """Videos of different codecs under these names."""
    for name, codec in zip(names, ("h264", "mpeg4", "vp9"), strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(video(codec).data)
    return root


def test_lists_of_ucf101_choose_its_videos(tmp_path: Path, repository: Path) -> None:
    names = ["Archery/v_Archery_g01_c01.avi", "Biking/v_Biking_g01_c01.avi", "Biking/v_Biking_g08_c02.avi"]
    src = write_videos(tmp_path / "UCF-101", names)
    (tmp_path / "trainlist01.txt").write_text(f"{names[2]} 2\n{names[0]} 1\nBiking/v_Biking_g09_c01.avi 2\n")
    arguments = (str(src), str(tmp_path / "trainlist01.txt"), str(tmp_path / "train"))
    done = convert(repository, *arguments, recipe="ucf101")
    assert done.returncode == 4, done.stderr
    with mx8.Dataset(tmp_path / "train") as dataset:
        assert dataset.metadata["classes"] == ["Archery", "Biking"]
        assert [(sample["path"], sample["label"]) for sample in dataset] == [(names[2], 1), (names[0], 0)]
        assert dataset.metadata["videos"] == {"video": {"packets": "packets", "format": "packets 1", "facts": ""}}
        assert dataset[0]["frames"] == 40


def test_annotations_of_kinetics_name_clips_by_their_times(tmp_path: Path, repository: Path) -> None:
    names = ["-3B32lodo2M_000059_000069.mp4", "riding a bike/0wR5jVB-WPk_000417_000427.mp4"]
    src = write_videos(tmp_path / "train", names)
    lines = ["label,youtube_id,time_start,time_end,split", "abseiling,-3B32lodo2M,59,69,train"]
    lines += ["riding a bike,0wR5jVB-WPk,417,427,train", "abseiling,gone,1,11,train"]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    arguments = (str(src), str(tmp_path / "train.csv"), str(tmp_path / "data"), "--max-side", "48")
    done = convert(repository, *arguments, recipe="kinetics")
    assert done.returncode == 4, done.stderr
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert dataset.metadata["classes"] == ["abseiling", "riding a bike"]
        assert [sample["path"] for sample in dataset] == [name.split("/")[-1] for name in names]
        assert [(sample["label"], sample["codec"], sample["width"]) for sample in dataset] == [
            (0, "h264", 48),
            (1, "h264", 48),
        ]


def test_templates_of_something_something_are_its_classes(tmp_path: Path, repository: Path) -> None:
    src = write_videos(tmp_path / "videos", ["78687.webm", "42326.webm"])
    (tmp_path / "labels.json").write_text(json.dumps({"Holding something": "0", "Turning something upside down": "1"}))
    entries = [
        {"id": "42326", "label": "turning cup upside down", "template": "Turning [something] upside down"},
        {"id": "78687", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]},
    ]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    arguments = (str(src), str(tmp_path / "train.json"), str(tmp_path / "labels.json"), str(tmp_path / "data"))
    done = convert(repository, *arguments, recipe="something_something")
    assert done.returncode == 0, done.stderr
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert dataset.metadata["classes"] == ["Holding something", "Turning something upside down"]
        assert [(sample["path"], sample["label"], sample["caption"]) for sample in dataset] == [
            ("42326.webm", 1, "turning cup upside down"),
            ("78687.webm", 0, "holding potato"),
        ]
