"""Do the recipes in converters/ make of a public dataset's files what they say?"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

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


def test_a_tar_of_tars_becomes_classes_by_synset(tmp_path: Path, repository: Path, jpegs: list[bytes]) -> None:
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


def test_validation_pictures_get_the_labels_of_a_list(tmp_path: Path, repository: Path, jpegs: list[bytes]) -> None:
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
        (b"no tar at all" * 100, None, "not a tar that can be read"),
        (tar_of({"a.JPEG": b"x"}), None, "needs --synsets FILE"),
        (tar_of({"a.JPEG": b"x"}), "n01440764\nn01443537", "expected 1 lines, got 2"),
    ],
)
def test_tars_that_cannot_be_meant_are_refused(
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
