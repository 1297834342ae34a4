"""Do the recipes in converters/ convert the files of public datasets correctly?"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.media.tiles import untile
from tests.pictures import jpeg
from tests.pixels import picture

SYNSETS = ("n01440764", "n01443537", "n02123045")


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def convert(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mx8shards.convert", str(repository / "converters" / "imagenet.py"), *arguments]
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
