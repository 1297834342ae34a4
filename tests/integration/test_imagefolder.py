"""Does `convert imagefolder` convert folders and tars of pictures, and report every reject and error?"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.convert import convert_in_parts, picture_checks
from mx8shards.convert.classes import class_names
from mx8shards.convert.convert_in_parts import convert
from mx8shards.convert.imagefolder import ImageFolder
from mx8shards.convert.part_names import basis_of, part_name
from mx8shards.convert.part_writing import Job, PartItems, write_part
from mx8shards.convert.source import recipe_of
from mx8shards.convert.source_files import Folder
from mx8shards.errors import SourceError
from mx8shards.kernels import turbo
from mx8shards.media import yuv420
from mx8shards.media.tiles import is_tiled, untile
from mx8shards.media.upright import upright_jpeg
from tests.decompression_bombs import HOSTILE
from tests.fast_directory import FAST_ROOT
from tests.privileges import give_up_privileges

pytest.importorskip("simplejpeg")
pytest.importorskip("PIL.Image")
from PIL import Image, ImageOps

Capture = pytest.CaptureFixture[str]

WIDTH, HEIGHT = 60, 40
NOISE = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """The encoded bytes of a picture of noise."""
    out = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(out, kind, **options)
    return out.getvalue()


def rotated() -> bytes:
    """A picture with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("JPEG", exif=exif)


def png(bits: int, kind: int, channels: int) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + bytes(8 * channels * bits // 8)) * 8
    header = struct.pack(">IIBBBBB", 8, 8, bits, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def animated() -> bytes:
    other = Image.fromarray(NOISE[::-1].copy())
    return picture("GIF", save_all=True, append_images=[other])


GOOD: dict[str, Callable[[], bytes]] = {
    "cat/1.jpg": lambda: picture("JPEG"),
    "cat/CAPITALS.JPG": lambda: picture("JPEG", "L"),
    "cat/more/deep.jpeg": lambda: picture("JPEG", progressive=True),
    "cat/several.jpg": lambda: picture("MPO", save_all=True, append_images=[Image.fromarray(NOISE[::-1].copy())]),
    "cat/turned.jpg": rotated,
    "cat/with a tail.jpg": lambda: picture("JPEG") + b"a tail",
    "dog/1.png": lambda: picture("PNG"),
    "dog/eight.png": lambda: png(8, 2, 3),
    "dog/palette.png": lambda: picture("PNG", "P"),
    "dog/png in truth.jpg": lambda: picture("PNG"),
    "dog/still.gif": lambda: picture("GIF"),
    "dog/transparent.png": lambda: picture("PNG", "RGBA"),
    "dog/webp in truth.jpg": lambda: picture("WEBP"),
    "été/ü.bmp": lambda: picture("BMP"),
}
TILED = ("cat/1.jpg", "cat/CAPITALS.JPG", "cat/several.jpg", "cat/turned.jpg", "cat/with a tail.jpg")
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "cat/cut.jpg": (lambda: picture("JPEG")[:-2], "Premature end"),
    "cat/print.jpg": (lambda: picture("JPEG", "CMYK"), "got mode CMYK (`convert imagefolder --rgb8` converts"),
    "cat/half.jpg": (lambda: picture("JPEG", progressive=True)[:900], "Premature end"),
    "cat/nothing.jpg": (lambda: b"", "the file is empty"),
    "cat/text.jpg": (lambda: b"<html>404</html>", "expected a picture (JPEG, PNG"),
    "dog/cut.png": (lambda: picture("PNG")[:-12], "cut short"),
    "dog/half.png": (lambda: picture("PNG")[:2_000], "truncated"),
    "dog/grey16.png": (
        lambda: png(16, 0, 1),
        "expected a picture of 8 bits per channel, in RGB or grey, got 16 bits (mode I;16)",
    ),
    "dog/colours16.png": (lambda: png(16, 2, 3), "in RGB or grey, got 16 bits (mode RGB)"),
    "dog/moving.gif": (animated, "expected one picture, got several frames"),
    "dog/psd.png": (lambda: b"8BPS" + bytes(40), "expected a picture (JPEG, PNG"),
}


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Create a folder of these files."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def small_jpegs(*names: str) -> dict[str, bytes]:
    return {name: picture("JPEG", quality=50 + number) for number, name in enumerate(names)}


_NEWS = ("convert: ", "mx8shards: compil")  # progress, and the compilation notice of a first run


def run(capsys: Capture, src: Path, out: Path, *options: str, code: int = 0) -> tuple[str, str]:
    """Run the command, assert its exit code, and return its output."""
    found = main(["convert", "imagefolder", *options, str(src), str(out)])
    said, complained = capsys.readouterr()
    complained = "".join(line for line in complained.splitlines(True) if not line.startswith(_NEWS))
    assert found == code, complained
    assert (complained == "") is (code == 0), complained
    return said, complained


def rejects(complained: str) -> dict[str, str]:
    """The contents of the rejects file that the command printed."""
    lines = Path(complained.strip().rpartition(": see ")[2]).read_text().splitlines()
    return {line["item"]: line["reason"] for line in map(json.loads, lines)}


def samples(root: Path) -> list[Any]:
    with mx8.Dataset(root) as dataset:
        return [{**sample, "image": bytes(sample["image"])} for sample in dataset]


def labels(root: Path) -> dict[str, int]:
    return {sample["path"]: int(sample["label"]) for sample in samples(root)}


@pytest.mark.parametrize("tiles", [True, False], ids=["tiled", "not tiled"])
def test_every_picture_is_stored_byte_for_byte_or_listed_as_a_reject(
    tiles: bool, tmp_path: Path, capsys: Capture
) -> None:
    files = {name: make() for name, make in GOOD.items()} | {name: make() for name, (make, _) in BAD.items()}
    src = write(tmp_path / "src", files | {"cat/notes.txt": b"no picture", "cat/.hidden.jpg": b"", ".git/a.jpg": b""})
    said, complained = run(capsys, src, tmp_path / "out", *([] if tiles else ["--no-tiles"]), code=4)
    assert complained.startswith(f"{len(BAD) + 1} of {len(BAD) + 1 + len(GOOD)} items could not be converted")
    found = samples(tmp_path / "out")
    assert [sample["path"] for sample in found] == sorted(GOOD)
    for sample in found:
        assert untile(sample["image"]) == files[sample["path"]], sample["path"]
        assert is_tiled(sample["image"]) is (tiles and sample["path"] in TILED)
        size = (8, 8) if sample["path"] == "dog/eight.png" else (HEIGHT, WIDTH)
        assert (sample["height"], sample["width"]) == size, sample["path"]
        assert sample["label"] == ["cat", "dog", "été"].index(sample["path"].split("/")[0])
    report = rejects(complained)
    assert list(report) == sorted((*BAD, "cat/notes.txt"))  # and no hidden file
    assert "expected a picture's suffix (.avif" in report["cat/notes.txt"]
    for name, (_, reason) in BAD.items():
        assert reason in report[name], name
    dataset = mx8.Dataset(tmp_path / "out")
    assert said == f"{dataset.snapshot}\t{len(GOOD)} samples\n"
    assert dataset.metadata["classes"] == ["cat", "dog", "été"]
    assert dataset.metadata["conversion"]["rejects"] == len(BAD) + 1


def test_symlinks_are_followed_except_loops_and_broken_ones_are_listed(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("a/1.jpg", "b/2.jpg"))
    (src / "a/again.jpg").symlink_to("1.jpg")
    (src / "a/broken.jpg").symlink_to("nowhere.jpg")
    (src / "a/itself").symlink_to("itself")
    (src / "a/itself.jpg").symlink_to("itself.jpg")
    (src / "b/up").symlink_to("..")
    (src / "c").symlink_to("b")
    (src / "a/zeros.jpg").symlink_to("/dev/zero")
    os.mkfifo(src / "a/pipe.jpg")
    _, complained = run(capsys, src, tmp_path / "out", code=4)
    assert labels(tmp_path / "out") == {"a/1.jpg": 0, "a/again.jpg": 0, "b/2.jpg": 1, "c/2.jpg": 2}
    found = rejects(complained)
    assert list(found) == ["a/broken.jpg", "a/itself", "a/itself.jpg", "a/pipe.jpg", "a/zeros.jpg"]
    assert "No such file" in found["a/broken.jpg"]
    assert "symbolic links" in found["a/itself.jpg"]
    assert "expected a regular file" in found["a/pipe.jpg"]
    assert "expected a regular file" in found["a/zeros.jpg"]


def test_symlinks_that_multiply_the_number_of_paths_are_refused(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("17/1.jpg"))
    for level in range(17):
        (src / str(level)).mkdir()
        for name in "ab":
            (src / str(level) / name).symlink_to(f"../{level + 1}")
    for target in ("cat", "cats"):  # harmless links
        (src / "17" / target).symlink_to("../../other")
    write(tmp_path / "other", small_jpegs("2.jpg"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mx8shards.convert.source_files._MOST_REPEATED", 1000)
        _, complained = run(capsys, src, tmp_path / "out", "--labels", "none", code=1)
        assert "at most 1000 repeated names in folders reached through several symlinks, got more" in complained
        assert not (tmp_path / "out").exists()
        assert len(Folder(src / "15").names()) == 3 * 4


def test_tar_members_that_point_outside_are_rejects_and_make_no_class(tmp_path: Path, capsys: Capture) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("../photos/cat/1.jpg", "cat/2.jpg"):
            member = tarfile.TarInfo(name)
            data = picture("JPEG")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    _, complained = run(capsys, tmp_path / "a.tar", tmp_path / "out", code=4)
    assert rejects(complained) == {"../photos/cat/1.jpg": "its path leads out of the tar"}
    assert labels(tmp_path / "out") == {"cat/2.jpg": 0}
    assert mx8.Dataset(tmp_path / "out").metadata["classes"] == ["cat"]


def test_a_file_name_that_is_not_utf8_is_a_reject_and_such_a_folder_is_an_error(
    tmp_path: Path, capsys: Capture
) -> None:
    src = write(tmp_path / "src", small_jpegs("a/1.jpg"))
    name = os.path.join(os.fsencode(src), b"a", b"caf\xe9.jpg")
    try:
        with open(name, "wb") as file:
            file.write(picture("JPEG"))
    except OSError:
        pytest.skip("this file system takes text only")
    _, complained = run(capsys, src, tmp_path / "out", code=4)
    assert rejects(complained) == {"a/caf\udce9.jpg": "its name is not UTF-8"}
    assert labels(tmp_path / "out") == {"a/1.jpg": 0}
    os.rename(src / "a", os.path.join(os.fsencode(src), b"b\xe9te"))
    _, complained = run(capsys, src, tmp_path / "other", code=1)
    assert "the folder's name is not UTF-8" in complained
    assert not (tmp_path / "other").exists()


def read_as_nobody(src: str, found: Any) -> None:
    give_up_privileges()
    folder = Folder(Path(src))
    for name in folder.names():
        try:
            found.put((name, len(folder.read(name))))
        except SourceError as error:
            found.put((name, str(error)))
    (Path(src) / "b").chmod(0)
    try:
        folder.names()
    except SourceError as error:
        found.put(("", str(error)))


def test_unreadable_files_are_rejects_and_unreadable_folders_are_an_error(tmp_path: Path) -> None:
    src = write(tmp_path / "src", small_jpegs("a/1.jpg", "b/2.jpg"))
    (src / "a/1.jpg").chmod(0)
    context = multiprocessing.get_context("spawn")  # dropped privileges cannot be restored
    found = context.Queue()
    child = context.Process(target=read_as_nobody, args=(str(src), found))
    child.start()
    said = [found.get(timeout=60) for _ in range(3)]
    child.join()
    (src / "b").chmod(0o755)
    assert said == [
        ("a/1.jpg", "cannot be read: Permission denied"),
        ("b/2.jpg", (src / "b/2.jpg").stat().st_size),
        ("", f"{src}/b: cannot be listed: Permission denied"),
    ]


# labels ---------------------------------------------------------------------------------------------------------------


def test_labels_are_the_numbers_of_the_folders(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "classes", small_jpegs("b/x/1.jpg", "a/2.jpg", "c/3.jpg") | {"empty/notes.txt": b""})
    run(capsys, src, tmp_path / "auto", code=4)
    run(capsys, src, tmp_path / "imagefolder", "--labels", "imagefolder", code=4)
    run(capsys, src, tmp_path / "none", "--labels", "none", code=4)
    for name in ("auto", "imagefolder"):
        assert labels(tmp_path / name) == {"a/2.jpg": 0, "b/x/1.jpg": 1, "c/3.jpg": 2}
        assert mx8.Dataset(tmp_path / name).metadata["classes"] == ["a", "b", "c"]
    found = samples(tmp_path / "none")
    assert [sorted(sample) for sample in found] == [["height", "image", "path", "width"]] * 3
    assert "classes" not in mx8.Dataset(tmp_path / "none").metadata


def test_a_folder_without_folders_has_no_labels(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "flat", small_jpegs("2.jpg", "1.jpg"))
    run(capsys, src, tmp_path / "out")
    assert [sample["path"] for sample in samples(tmp_path / "out")] == ["1.jpg", "2.jpg"]
    assert "label" not in samples(tmp_path / "out")[0]
    _, complained = run(capsys, src, tmp_path / "labelled", "--labels", "imagefolder", code=1)
    assert "expected a folder for each class, got 1.jpg, which is in no folder (--labels none" in complained


def test_pictures_beside_class_folders_are_refused_unless_labels_are_off(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "mixed", small_jpegs("1.jpg", "a/2.jpg"))
    _, complained = run(capsys, src, tmp_path / "out", code=1)
    assert "1.jpg, which is in no folder (--labels none converts them without labels)" in complained
    assert not (tmp_path / "out").exists()
    run(capsys, src, tmp_path / "out", "--labels", "none")
    assert len(samples(tmp_path / "out")) == 2


def test_folders_named_like_splits_are_not_taken_for_classes(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "splits", small_jpegs("train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg"))
    for how in ("auto", "imagefolder"):
        _, complained = run(capsys, src, tmp_path / "out", "--labels", how, code=1)
        assert "the splits train, val" in complained
        assert f"(convert each of them: {src}/train; --labels none converts all" in complained
    run(capsys, src / "train", tmp_path / "out")
    assert labels(tmp_path / "out") == {"a/1.jpg": 0, "b/2.jpg": 1}
    run(capsys, src, tmp_path / "all", "--labels", "none")
    assert len(samples(tmp_path / "all")) == 3


@pytest.mark.parametrize("text", ["dog\ncat\nowl\n", '["dog", "cat", "owl"]', "\ufeffdog\r\ncat\r\n\r\nowl"])
def test_a_list_of_classes_fixes_the_labels(text: str, tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("cat/1.jpg", "dog/2.jpg"))
    (tmp_path / "classes").write_text(text, newline="")
    run(capsys, src, tmp_path / "out", "--classes", str(tmp_path / "classes"))
    assert labels(tmp_path / "out") == {"cat/1.jpg": 1, "dog/2.jpg": 0}
    assert mx8.Dataset(tmp_path / "out").metadata["classes"] == ["dog", "cat", "owl"]


def test_a_folder_missing_from_the_list_of_classes_is_an_error_that_names_both(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("cat/1.jpg", "dog/2.jpg"))
    (tmp_path / "classes").write_text("dog\nowl")
    _, complained = run(capsys, src, tmp_path / "out", "--classes", str(tmp_path / "classes"), code=1)
    assert f"{src}: expected folders that --classes names: dog, owl, got cat" in complained
    (tmp_path / "classes").write_text("train\ntest")  # folders given explicitly are classes
    src = write(tmp_path / "vehicles", small_jpegs("train/1.jpg", "test/2.jpg"))
    run(capsys, src, tmp_path / "out", "--classes", str(tmp_path / "classes"))
    assert labels(tmp_path / "out") == {"test/2.jpg": 1, "train/1.jpg": 0}
    flat = write(tmp_path / "flat", small_jpegs("1.jpg"))
    _, complained = run(capsys, flat, tmp_path / "other", "--classes", str(tmp_path / "classes"), code=1)
    assert "expected a folder for each class" in complained
    _, complained = run(
        capsys, src, tmp_path / "other", "--labels", "none", "--classes", str(tmp_path / "classes"), code=1
    )
    assert "--classes cannot be used with --labels none" in complained


def test_lines_of_a_list_of_classes_end_only_with_a_line_feed(tmp_path: Path) -> None:
    names = ["[unknown]", "nel\x85x", "vt\x0bx", "ps\u2028x", "cat"]
    path = tmp_path / "classes"
    path.write_text("\n".join(names[:-1]) + "\r\n cat \n\n", newline="")
    assert class_names(str(path)) == tuple(names)


@pytest.mark.parametrize("place", ["src", "out", "classes"])
def test_a_tilde_with_an_unknown_user_is_an_ordinary_path(
    place: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    src, nowhere = write(tmp_path / "src", small_jpegs("cat/1.jpg")), "~nobody-of-that-name/x"
    if place == "out":
        run(capsys, src, Path(nowhere))
        assert labels(tmp_path / nowhere) == {"cat/1.jpg": 0}
    elif place == "src":
        _, complained = run(capsys, Path(nowhere), tmp_path / "out", code=1)
        assert f"error: {nowhere}: expected a folder" in complained
    else:
        _, complained = run(capsys, src, tmp_path / "out", "--classes", nowhere, code=2)
        assert f"{nowhere}: cannot be read" in complained


@pytest.mark.parametrize("place", ["src", "out"])
def test_a_path_with_a_nul_byte_is_an_error(place: str, tmp_path: Path, capsys: Capture) -> None:
    src, out = ("a\0b", str(tmp_path / "out")) if place == "src" else (str(tmp_path), "a\0b")
    assert main(["convert", "imagefolder", src, out]) == 1
    assert "expected a path, got 'a\\x00b'" in capsys.readouterr().err


def test_an_endless_or_deeply_nested_list_of_classes_ends_with_exit_code_2(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("cat/1.jpg"))
    (tmp_path / "deep").write_text("[" * 200_000)
    (tmp_path / "link").symlink_to("/dev/zero")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "fifo")
    said = {
        "deep": "expected a JSON list of names: nested too deeply",
        "link": "cannot be read: .*expected a regular file, got a device",
        "sparse": "cannot be read: .*expected at most 67108864 bytes, got 1099511627776",
        "fifo": "cannot be read: .*expected a regular file, got a FIFO",
    }
    for name, message in said.items():
        _, complained = run(capsys, src, tmp_path / "out", "--classes", str(tmp_path / name), code=2)
        assert re.search(message, complained)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"cat": 0}\n{"cat": 0}', '["cat", 3]', "[cat]", "cat\ndog\ncat", "\udce9"])
def test_an_invalid_list_of_classes_ends_with_exit_code_2(text: str, tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("cat/1.jpg"))
    (tmp_path / "classes").write_bytes(text.encode("utf-8", "surrogateescape"))
    _, complained = run(capsys, src, tmp_path / "out", "--classes", str(tmp_path / "classes"), code=2)
    assert "--classes" in complained
    assert str(tmp_path / "classes") in complained
    _, complained = run(capsys, src, tmp_path / "out", "--classes", str(tmp_path / "nowhere"), code=2)
    assert "No such file" in complained


def test_an_empty_list_of_classes_and_a_repeated_name_have_different_messages(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("cat/1.jpg"))
    for text, said in (("", "but the list is empty"), ("cat\ncat", "each class name once, got 'cat' several times")):
        (tmp_path / "classes").write_text(text)
        _, complained = run(capsys, src, tmp_path / "out", "--classes", str(tmp_path / "classes"), code=2)
        assert said in complained


def test_a_single_folder_of_folders_is_not_taken_for_one_class(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("photos/cat/1.jpg", "photos/dog/2.jpg"))
    _, complained = run(capsys, src, tmp_path / "out", code=1)
    assert f"convert {src}/photos; --labels imagefolder takes photos as the one class" in complained
    run(capsys, src, tmp_path / "out", "--labels", "imagefolder")
    assert set(labels(tmp_path / "out").values()) == {0}


def test_the_only_folder_of_a_tar_is_its_root_if_it_holds_only_folders(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "photos", small_jpegs("cat/1.jpg", "dog/2.jpg", "dog/deep/3.jpg") | {"dog/bad.jpg": b"bad"})
    (tmp_path / "classes").write_text("dog\ncat")
    for name, top in (("slim", "photos"), ("dotted", "./photos"), ("split", "train")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            tar.add(src, top)
        for options in ((), ("--classes", str(tmp_path / "classes"))):
            outs = [tmp_path / f"{name}-{len(options)}-{kind}" for kind in ("folder", "tar")]
            said, complained = run(capsys, src, outs[0], *options, code=4)
            found, too = run(capsys, tmp_path / f"{name}.tar", outs[1], *options, code=4)
            assert found == said
            assert rejects(complained).keys() == rejects(too).keys() == {"dog/bad.jpg"}
    run(capsys, tmp_path / "slim.tar", tmp_path / "one", "--labels", "imagefolder", code=4)
    assert mx8.Dataset(tmp_path / "one").metadata["classes"] == ["photos"]
    assert "photos/cat/1.jpg" in labels(tmp_path / "one")


def test_hints_about_folders_in_a_tar_work(tmp_path: Path, capsys: Capture) -> None:
    for number, (name, wanted) in enumerate((("train/a/1.jpg", "train"), ("all/photos/cat/1.jpg", "photos"))):
        src = write(tmp_path / str(number), small_jpegs(name, name.replace("train", "val")))
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            tar.add(src, "")
        if wanted == "train":
            _, complained = run(capsys, tmp_path / f"{number}.tar", tmp_path / "out", code=1)
            assert "convert each of them: train, unpacked from the tar" in complained
        else:
            _, complained = run(capsys, tmp_path / f"{number}.tar", tmp_path / "out", code=1)
            assert "convert photos, unpacked from the tar" in complained


@pytest.mark.parametrize("form", ["folder", "tar", "tar of one folder"])
def test_a_folder_without_files_is_an_error_unless_classes_are_given(
    form: str, tmp_path: Path, capsys: Capture
) -> None:
    src = write(tmp_path / "val", small_jpegs("a/1.jpg", "c/2.jpg") | {"d/bad.jpg": b"bad", ".hidden/1.txt": b""})
    (src / "b/deep").mkdir(parents=True)
    (src / "up").symlink_to(src if form == "folder" else "a/1.jpg")  # not a class
    if form != "folder":
        (src / "up").unlink()
        with tarfile.open(tmp_path / "val.tar", "w") as tar:
            tar.add(src, "" if form == "tar" else "top")
        src = tmp_path / "val.tar"
    _, complained = run(capsys, src, tmp_path / "out", code=1)
    assert f"{src}: expected files in the folder of each class, got none in b (" in complained
    assert "--classes FILE" in complained
    assert not (tmp_path / "out").exists()
    (tmp_path / "classes").write_text("a\nb\nc\nd")
    run(capsys, src, tmp_path / "out", "--classes", str(tmp_path / "classes"), code=4)
    assert labels(tmp_path / "out") == {"a/1.jpg": 0, "c/2.jpg": 2}
    run(capsys, src, tmp_path / "none", "--labels", "none", code=4)


def test_a_tar_whose_top_has_several_folders_or_is_a_class_keeps_its_paths(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("cat/more/1.jpg", "cat/other/2.jpg") | {"cat/notes.txt": b""})
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        tar.add(src, "")
    (src / "dog").mkdir()
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        tar.add(src, "")
    run(capsys, tmp_path / "one.tar", tmp_path / "root", code=4)
    assert mx8.Dataset(tmp_path / "root").metadata["classes"] == ["more", "other"]
    (tmp_path / "classes").write_text("cat\ndog")
    for name in ("one", "two"):
        run(capsys, tmp_path / f"{name}.tar", tmp_path / name, "--classes", str(tmp_path / "classes"), code=4)
        assert labels(tmp_path / name) == {"cat/more/1.jpg": 0, "cat/other/2.jpg": 0}
    _, complained = run(capsys, tmp_path / "two.tar", tmp_path / "out", "--labels", "imagefolder", code=1)
    assert "got none in dog" in complained


def test_several_folders_named_like_splits_beside_others_are_not_taken_for_classes(
    tmp_path: Path, capsys: Capture
) -> None:
    src = write(tmp_path / "src", small_jpegs("Train/cat/1.jpg", "Test/cat/2.jpg", "extra/3.jpg"))
    _, complained = run(capsys, src, tmp_path / "out", code=1)
    assert "the splits Test, Train" in complained
    src = write(tmp_path / "vehicles", small_jpegs("train/1.jpg", "car/2.jpg"))  # one alone is a class
    run(capsys, src, tmp_path / "out")


# selection of files ---------------------------------------------------------------------------------------------------


def test_files_that_are_not_pictures_are_rejects_and_hidden_files_are_ignored(tmp_path: Path, capsys: Capture) -> None:
    others = ("README.txt", "a/Thumbs.db", "a/labels.csv", "a/picture", "a/jpg")
    hidden = (".DS_Store", "a/._1.jpg", "a/.hidden.jpg", ".git/a.jpg")
    src = write(tmp_path / "src", small_jpegs("a/1.jpg", "b/2.jpg") | dict.fromkeys((*others, *hidden), b"no picture"))
    with tarfile.open(tmp_path / "src.tar", "w") as tar:
        tar.add(src, ".")
    for source in (src, tmp_path / "src.tar"):
        said, complained = run(capsys, source, tmp_path / f"out-{source.name}", code=4)
        assert said.rstrip().endswith("\t2 samples")
        assert complained.startswith("5 of 7 items could not be converted: see ")
        assert list(rejects(complained)) == sorted(others)
        assert mx8.Dataset(tmp_path / f"out-{source.name}").metadata["classes"] == ["a", "b"]


@pytest.fixture
def deep() -> Iterator[tuple[Path, Callable[[int], int]]]:
    """A folder, and a function that nests more folders in the innermost one, and opens the new innermost one."""
    root = Path(tempfile.mkdtemp(dir=FAST_ROOT))
    (root / "a").mkdir()
    here = os.open(root / "a", os.O_RDONLY)

    def deeper(count: int) -> int:
        nonlocal here
        for _ in range(count):  # one by one: a path may have 4,096 bytes
            os.mkdir("d", dir_fd=here)
            here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
            os.close(above)
        return here

    yield root, deeper
    os.close(here)
    subprocess.run(["rm", "-rf", str(root)], check=True)  # Python's own rmtree is recursive


def test_folders_may_be_as_deep_as_the_system_allows(
    deep: tuple[Path, Callable[[int], int]], tmp_path: Path, capsys: Capture
) -> None:
    src, deeper = deep
    write(src, small_jpegs("a/1.jpg"))
    folder = deeper(1_500)
    with open("2.jpg", "wb", opener=lambda path, flags: os.open(path, flags, dir_fd=folder)) as file:
        file.write(picture("JPEG"))
    run(capsys, src, tmp_path / "out")
    assert sorted(map(len, labels(tmp_path / "out"))) == [len("a/1.jpg"), len("a/2.jpg") + 2 * 1_500]
    deeper(1_000)
    _, complained = run(capsys, src, tmp_path / "other", code=1)
    assert "cannot be listed: File name too long" in complained


def test_a_file_larger_than_any_picture_is_a_reject_and_not_read(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("a/1.jpg", "a/2.jpg"))
    os.truncate(src / "a/2.jpg", 1 << 40)
    _, complained = run(capsys, src, tmp_path / "out", code=4)
    assert f"got {1 << 40}" in rejects(complained)["a/2.jpg"]


def test_control_characters_in_names_do_not_reach_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("a\x1b[31m/1\n.jpg", "2\x1b.jpg"))
    _, complained = run(capsys, src, tmp_path / "out", code=1)
    assert "\x1b" not in complained
    assert "got 2\\x1b.jpg, which is in no folder" in complained
    (src / "2\x1b.jpg").unlink()
    (src / "a\x1b[31m/bad\x1b.jpg").write_bytes(b"bad")
    _, complained = run(capsys, src, tmp_path / "out", code=4)
    assert list(rejects(complained)) == ["a\x1b[31m/bad\x1b.jpg"]
    assert labels(tmp_path / "out") == {"a\x1b[31m/1\n.jpg": 0}


def test_a_source_may_be_given_with_spaces_and_from_the_home_directory(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "my photos", small_jpegs("a/1.jpg"))
    run(capsys, Path("~/my photos"), Path("~/the data"))
    assert labels(tmp_path / "the data") == {"a/1.jpg": 0}


def test_a_symlink_to_itself_is_refused_as_source_and_as_destination(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "loop").symlink_to("loop")
    _, complained = run(capsys, tmp_path / "loop", tmp_path / "out", code=1)
    assert "symbolic links" in complained
    _, complained = run(capsys, write(tmp_path / "src", small_jpegs("a/1.jpg")), tmp_path / "loop", code=1)
    assert complained.startswith("error: ")
    assert str(tmp_path / "loop") in complained


# tar ------------------------------------------------------------------------------------------------------------------


def test_a_tar_and_its_folder_give_equal_snapshots(tmp_path: Path, capsys: Capture) -> None:
    files = small_jpegs("a/1.jpg", "a/deep/2.jpg", "b/3.jpg") | {
        "b/bad.jpg": b"bad",
        "a/._1.jpg": b"",
        "notes.txt": b"",
    }
    src = write(tmp_path / "src", files)
    (src / "b/hard.jpg").hardlink_to(src / "b/3.jpg")
    (src / "b/chain.jpg").symlink_to("soft.jpg")
    (src / "b/soft.jpg").symlink_to("../a/deep/2.jpg")
    for name, top in (("dotted", "."), ("bare", "")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            tar.add(src, top)
    from_folder, complained = run(capsys, src, tmp_path / "folder", code=4)
    assert [sample["path"] for sample in samples(tmp_path / "folder")] == [
        *("a/1.jpg", "a/deep/2.jpg", "b/3.jpg", "b/chain.jpg", "b/hard.jpg", "b/soft.jpg")
    ]
    wanted = rejects(complained)
    assert list(wanted) == ["b/bad.jpg", "notes.txt"]
    for name in ("dotted", "bare"):
        said, complained = run(capsys, tmp_path / f"{name}.tar", tmp_path / name, code=4)
        assert said == from_folder
        assert rejects(complained) == wanted


def test_a_broken_link_in_a_tar_is_a_reject(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("a/1.jpg"))
    (src / "a/2.jpg").symlink_to("/somewhere/else.jpg")
    with tarfile.open(tmp_path / "src.tar", "w") as tar:
        tar.add(src, ".")
    _, complained = run(capsys, tmp_path / "src.tar", tmp_path / "out", code=4)
    assert rejects(complained) == {"a/2.jpg": "cannot be read: a link whose target is not in the tar"}


def test_a_compressed_or_invalid_tar_is_refused(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("a/1.jpg"))
    with tarfile.open(tmp_path / "src.tar.gz", "w:gz") as tar:
        tar.add(src, ".")
    (tmp_path / "text.tar").write_text("no tar")
    for name in ("src.tar.gz", "text.tar"):
        _, complained = run(capsys, tmp_path / name, tmp_path / "out", code=1)
        assert "expected a folder, or an uncompressed tar, got a file that is neither" in complained
        assert "unpack a compressed tar, or a zip, first" in complained
    _, complained = run(capsys, tmp_path / "nowhere", tmp_path / "out", code=1)
    assert "expected a folder, or a .tar file, got none: No such file" in complained
    assert not (tmp_path / "out").exists()


# sizes ----------------------------------------------------------------------------------------------------------------


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Height and width of every sample. Asserts that they match its picture."""
    found = {}
    for sample in samples(root):
        with Image.open(io.BytesIO(sample["image"])) as image:
            assert image.size == (sample["width"], sample["height"])
        found[sample["path"]] = (sample["height"], sample["width"])
    return found


@pytest.mark.parametrize(
    ("options", "size", "turned"),
    [
        (("--max-side", "30"), (20, 30), (30, 20)),
        (("--min-side", "20"), (20, 30), (30, 20)),
        (("--min-side", "20", "--max-side", "15"), (10, 15), (15, 10)),
        (("--max-side", "60", "--min-side", "40"), (40, 60), (60, 40)),
        (("--max-side", "100"), (40, 60), (60, 40)),
        (("--max-side", "100", "--quality", "50"), (40, 60), (60, 40)),
        (("--max-side", "1"), (1, 1), (1, 1)),
    ],
)
def test_pictures_are_scaled_down_to_the_requested_size(
    tmp_path: Path, capsys: Capture, options: tuple[str, ...], size: tuple[int, int], turned: tuple[int, int]
) -> None:
    kept = size == (40, 60) and "--quality" not in options
    files = {"a.jpg": picture("JPEG"), "b.png": picture("PNG", "RGBA"), "turned.jpg": rotated()}
    if not kept:  # encoded again, it is no longer CMYK
        files["print.jpg"] = picture("JPEG", "CMYK")
    run(capsys, write(tmp_path / "src", files), tmp_path / "out", *options)
    assert sizes(tmp_path / "out") == {name: turned if name == "turned.jpg" else size for name in files}
    for sample in samples(tmp_path / "out"):
        same = untile(sample["image"]) == files[sample["path"]]
        assert same is (kept and sample["path"] != "turned.jpg")
        if not same:
            with Image.open(io.BytesIO(sample["image"])) as image:
                assert (image.format, image.mode) == ("JPEG", "RGB")
            assert is_tiled(sample["image"]) is bool(sample["height"] > 16)  # a single tile is not stored


def test_quality_applies_to_every_picture(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", {"a.jpg": picture("JPEG", quality=90), "b.png": picture("PNG")})
    found = []
    for quality in ("20", "80"):
        run(capsys, src, tmp_path / quality, "--quality", quality)
        found.append([len(sample["image"]) for sample in samples(tmp_path / quality)])
        metadata = mx8.Dataset(tmp_path / quality).metadata["imagefolder"]
        assert metadata == {"labels": "auto", "quality": int(quality), "tiles": True}
    assert all(coarse < fine for coarse, fine in zip(*found, strict=True))


def test_a_truncated_picture_is_a_reject_when_scaling_too(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", {"a.jpg": picture("JPEG"), "b.jpg": picture("JPEG")[:1_000]})
    _, complained = run(capsys, src, tmp_path / "out", "--max-side", "30", code=4)
    assert list(rejects(complained)) == ["b.jpg"]


def damaged(jpeg: bytes) -> bytes:
    """A JPEG with noise in the middle of its data."""
    middle = len(jpeg) // 2
    noise = bytes((byte * 7 + 13) % 255 for byte in jpeg[middle : middle + 40])
    return jpeg[:middle] + noise + jpeg[middle + 40 :]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--quality", "90"),
        ("--max-side", "30"),
        ("--min-side", "30"),
        ("--upright",),
        ("--rgb8",),
        ("--rgb8", "--quality", "90"),
        ("--format", "jpeg"),
        ("--format", "yuv420"),
        ("--format", "yuv420", "--quality", "90"),
        ("--no-tiles",),
    ],
    ids=" ".join,
)
def test_a_damaged_picture_is_a_reject_whatever_the_options(
    options: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    files = {
        "bad.jpg": damaged(picture("JPEG")),
        "cut.png": picture("PNG")[:-12],
        "print.jpg": damaged(picture("JPEG", "CMYK")),
        "turned.jpg": damaged(rotated()),
        "turned.png": encoded_with_orientation(smooth(64, 48), "PNG", 6)[:-12],
    }
    src = write(tmp_path / "src", small_jpegs("good.jpg") | files)
    _, complained = run(capsys, src, tmp_path / "out", *options, code=4)
    assert list(rejects(complained)) == sorted(files)


# upright --------------------------------------------------------------------------------------------------------------


def smooth(width: int, height: int) -> Image.Image:
    """A picture without symmetry, so that any wrong rotation changes it."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x // width, 255 * y // height, 255 * (x * y) // (width * height))
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def exif(orientation: int) -> Any:
    found = Image.Exif()
    found[0x0112] = orientation
    found[0x010E] = "a description"
    return found


def encoded_with_orientation(image: Image.Image, kind: str, orientation: int, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, exif=exif(orientation), **options)
    return out.getvalue()


def upright_pixels(data: bytes) -> npt.NDArray[np.int16]:
    """The pixels with the EXIF orientation applied."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(np.int16)


def raster(data: bytes) -> npt.NDArray[np.int16]:
    """The pixels without the EXIF orientation applied."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)


has_transform = pytest.mark.skipif(not hasattr(turbo.library, "tjTransform"), reason="there is no libturbojpeg")


@has_transform
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("options", [{"subsampling": "4:4:4"}, {"subsampling": "4:2:0"}, {"progressive": True}])
def test_a_jpeg_of_whole_blocks_is_rotated_without_loss(orientation: int, options: dict[str, Any]) -> None:
    source = encoded_with_orientation(smooth(64, 48), "JPEG", orientation, **options)
    found = upright_jpeg(source, orientation)
    assert found is not None
    with Image.open(io.BytesIO(found)) as image:
        assert image.getexif().get(0x0112) == 1
        assert image.getexif()[0x010E] == "a description"
    assert raster(found).shape == upright_pixels(source).shape
    assert np.abs(raster(found) - upright_pixels(source)).max() <= 4  # chroma upsampling and DCT rounding come later
    back = {6: 8, 8: 6}.get(orientation, orientation)
    again = upright_jpeg(with_orientation(found, back), back)
    assert again is not None
    assert np.array_equal(raster(again), raster(source))  # lossless


@has_transform
@pytest.mark.parametrize(("stuffing", "turned"), [(b"\xff" * 10_000, True), (b"\xff\xfe\0\2" * 5_000, False)])
def test_a_jpeg_with_an_oversized_head_is_rotated_without_loss_only_if_the_whole_head_is_copied(
    stuffing: bytes, turned: bool
) -> None:
    source = encoded_with_orientation(smooth(64, 48), "JPEG", 6, subsampling="4:4:4")
    found = upright_jpeg(source[:2] + stuffing + source[2:], 6)
    assert (found is not None) is turned
    if found is not None:
        assert found == upright_jpeg(source, 6)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with this orientation in its EXIF data."""
    entry = b"\x01\x12\0\x03\0\0\0\x01\0"
    at = jpeg.index(entry) + len(entry)
    return jpeg[:at] + bytes([orientation]) + jpeg[at + 1 :]


def test_rotated_pictures_become_upright_and_are_counted_and_others_are_kept(tmp_path: Path, capsys: Capture) -> None:
    files = {
        "blocks.jpg": encoded_with_orientation(smooth(64, 48), "JPEG", 6, subsampling="4:2:0"),
        "odd.jpg": encoded_with_orientation(smooth(61, 47), "JPEG", 8, quality=95),
        "grey.jpg": encoded_with_orientation(smooth(61, 47).convert("L"), "JPEG", 3, quality=95),
        "turned.png": encoded_with_orientation(smooth(60, 40).convert("RGBA"), "PNG", 5),
        "palette.png": encoded_with_orientation(smooth(60, 40).convert("P"), "PNG", 7),
        "turned.webp": encoded_with_orientation(smooth(60, 40), "WEBP", 6),
        "turned.tif": encoded_with_orientation(smooth(60, 40), "TIFF", 6),
        "upright.jpg": encoded_with_orientation(smooth(61, 47), "JPEG", 1),
        "nonsense.jpg": encoded_with_orientation(smooth(61, 47), "JPEG", 9),
        "plain.png": picture("PNG"),
    }
    cut = encoded_with_orientation(smooth(64, 48), "JPEG", 6)[:-30]
    src = write(tmp_path / "src", files | {"cut.jpg": cut})
    said, complained = run(capsys, src, tmp_path / "out", "--upright", code=4)
    assert list(rejects(complained)) == ["cut.jpg"]
    lossless = hasattr(turbo.library, "tjTransform")
    again = 2 if lossless else 3
    assert said.rstrip().endswith(f"\t10 samples\t7 upright\t{again} upright reencoded")
    assert mx8.Dataset(tmp_path / "out").metadata["conversion"]["upright"] == 7
    for sample in samples(tmp_path / "out"):
        name, data = sample["path"], untile(sample["image"])
        source = files[name]
        assert raster(data).shape[:2] == (sample["height"], sample["width"]), name
        if name in ("upright.jpg", "nonsense.jpg", "plain.png"):
            assert data == source
            continue
        assert np.array_equal(raster(data), upright_pixels(data)), name  # no rotation remains
        worst = np.abs(raster(data) - upright_pixels(source)).max()
        assert worst <= (16 if name.endswith(".jpg") else 0), name


@pytest.mark.parametrize("option", ["--quality 90", "--max-side 900", "--min-side 900", "--format yuv420"])
def test_options_that_encode_again_make_pictures_upright_and_their_help_says_so(
    option: str, tmp_path: Path, capsys: Capture
) -> None:
    src = write(tmp_path / "src", {"a.jpg": encoded_with_orientation(smooth(64, 48), "JPEG", 6)})
    run(capsys, src, tmp_path / "out", *option.split())
    assert [(sample["height"], sample["width"]) for sample in samples(tmp_path / "out")] == [(64, 48)]
    assert main(["convert", "imagefolder", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.partition("options:")[2].split())
    own = text.partition(f" {option.split()[0]} ")[2].partition(" --")[0]
    assert "the EXIF rotation" in own


def test_without_a_lossless_way_pictures_are_encoded_again(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turbo, "library", None)
    source = encoded_with_orientation(smooth(64, 48), "JPEG", 6)
    said, _ = run(capsys, write(tmp_path / "src", {"a.jpg": source}), tmp_path / "out", "--upright")
    assert said.rstrip().endswith("\t1 sample\t1 upright\t1 upright reencoded")
    (sample,) = samples(tmp_path / "out")
    assert np.abs(raster(sample["image"]) - upright_pixels(source)).max() <= 16


def test_the_first_picture_of_a_file_with_several_is_rotated(tmp_path: Path, capsys: Capture) -> None:
    source = encoded_with_orientation(
        smooth(64, 48), "MPO", 6, save_all=True, append_images=[smooth(64, 48).rotate(180)]
    )
    run(capsys, write(tmp_path / "src", {"a.jpg": source}), tmp_path / "out", "--upright")
    (sample,) = samples(tmp_path / "out")
    assert np.abs(raster(sample["image"]) - upright_pixels(source)).max() <= 16
    assert np.array_equal(raster(sample["image"]), upright_pixels(sample["image"]))
    with Image.open(io.BytesIO(sample["image"])) as image:
        assert image.format == "JPEG"  # not one that claims to hold several


def test_upright_pictures_can_be_scaled_and_stored_as_planes(tmp_path: Path, capsys: Capture) -> None:
    src = write(
        tmp_path / "src",
        {
            "a.jpg": encoded_with_orientation(smooth(64, 48), "JPEG", 6),
            "b.png": encoded_with_orientation(smooth(64, 48), "PNG", 6),
        },
    )
    said, _ = run(capsys, src, tmp_path / "small", "--upright", "--max-side", "32")
    assert said.rstrip().endswith("\t2 samples\t2 upright")
    assert sizes(tmp_path / "small") == {"a.jpg": (32, 24), "b.png": (32, 24)}
    said, _ = run(capsys, src, tmp_path / "jpeg", "--upright", "--format", "jpeg")
    assert sizes(tmp_path / "jpeg") == {"a.jpg": (64, 48), "b.png": (64, 48)}
    assert all(sample["image"].startswith(b"\xff\xd8") for sample in samples(tmp_path / "jpeg"))
    run(capsys, src, tmp_path / "planes", "--upright", "--format", "yuv420")
    found = {sample["path"]: yuv420.planes(sample["image"])[0].shape for sample in samples(tmp_path / "planes")}
    assert found == {"a.jpg": (64, 48), "b.png": (64, 48)}


def test_counts_include_parts_that_were_complete_before(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{i}.png": encoded_with_orientation(smooth(60, 40), "PNG", 6 if i % 2 else 1) for i in range(8)}
    src = write(tmp_path / "src", files)
    monkeypatch.setattr("mx8shards.convert.convert_in_parts.PART_ITEMS", 3)
    options = {"size_limit": "64mb", "compression": None}
    recipe, out = recipe_of("imagefolder", str(src), {"upright": True}), tmp_path / "out"
    source = recipe.open()
    part_items = PartItems(out, source.items()[:3])
    path = write_part(Job(recipe, out, options), source, part_items, basis_of(recipe, options, source)).path
    before = next(path.glob("*.mds")).stat().st_ino
    said, _ = run(capsys, src, tmp_path / "out", "--upright", "--workers", "2")
    assert said.rstrip().endswith("\t8 samples\t4 upright")
    assert before in [file.stat().st_ino for file in (tmp_path / "out").rglob("*.mds")]


NONSENSE = ("--quality 0", "--quality 101", "--quality good", "--max-side 0", "--min-side -3", "--labels some")


def test_planes_equal_the_planes_of_the_pictures(tmp_path: Path, capsys: Capture) -> None:
    files = {"a.jpg": picture("JPEG", subsampling="4:2:0"), "b.png": picture("PNG")}
    write(tmp_path / "src", files)
    run(capsys, tmp_path / "src", tmp_path / "out", "--format", "yuv420")
    with mx8.Dataset(tmp_path / "out") as dataset:
        assert [sample["image"] for sample in dataset] == [yuv420.encode(data) for data in files.values()]
        assert (dataset[0]["height"], dataset[0]["width"]) == (HEIGHT, WIDTH)


def test_planes_of_scaled_pictures_are_not_compressed_as_jpeg(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "src", {"a.png": picture("PNG")})
    run(capsys, tmp_path / "src", tmp_path / "out", "--format", "yuv420", "--max-side", "30")
    with mx8.Dataset(tmp_path / "out") as dataset:
        luma = yuv420.planes(dataset[0]["image"])[0]
    wanted = Image.fromarray(NOISE).resize((30, 20), Image.Resampling.LANCZOS).convert("YCbCr")
    assert np.array_equal(luma, np.asarray(wanted)[..., 0])


def test_format_jpeg_encodes_all_other_formats_as_jpeg(tmp_path: Path, capsys: Capture) -> None:
    files = {"a.jpg": picture("JPEG"), "b.png": picture("PNG")}
    write(tmp_path / "src", files)
    run(capsys, tmp_path / "src", tmp_path / "out", "--format", "jpeg", "--no-tiles")
    with mx8.Dataset(tmp_path / "out") as dataset:
        assert dataset[0]["image"] == files["a.jpg"]
        with Image.open(io.BytesIO(dataset[1]["image"])) as found:
            assert (found.format, found.size) == ("JPEG", (WIDTH, HEIGHT))


@pytest.mark.parametrize("text", NONSENSE)
def test_invalid_options_end_with_exit_code_2(tmp_path: Path, capsys: Capture, text: str) -> None:
    options = text.split()
    src = write(tmp_path / "src", small_jpegs("a/1.jpg"))
    _, complained = run(capsys, src, tmp_path / "out", *options, code=2)
    assert options[0] in complained
    assert not (tmp_path / "out").exists()


def test_parts_of_conversions_with_and_without_tiles_have_different_names(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", small_jpegs("a.jpg"))
    snapshots = [
        run(capsys, src, tmp_path / name, *options)[0].split("\t")[0]
        for name, options in (("1", ()), ("2", ("--no-tiles",)))
    ]
    assert snapshots[0] != snapshots[1]
    assert mx8.Dataset(tmp_path / "2").metadata["imagefolder"] == {"labels": "auto", "tiles": False}
    folders = [ImageFolder(src, tiles=tiles) for tiles in (True, False)]
    bases = [basis_of(recipe_of("imagefolder", src, {}), {}, folder) for folder in folders]
    assert len({part_name(*one, [("a.jpg",)]) for one in zip(bases, folders, strict=True)}) == 2


@pytest.mark.parametrize("workers", [2, 3])
def test_a_class_folder_that_appears_before_the_workers_start_shifts_no_label(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = write(tmp_path / "src", small_jpegs(*(f"{name}/{i}.jpg" for name in ("dog", "owl") for i in range(4))))
    real = convert_in_parts.map_in_processes

    def late(*arguments: Any) -> Any:
        write(src, small_jpegs("cat/1.jpg"))
        return real(*arguments)

    monkeypatch.setattr(convert_in_parts, "PART_ITEMS", 2)
    monkeypatch.setattr(convert_in_parts, "map_in_processes", late)
    job = Job(recipe_of("imagefolder", src, {}), tmp_path / "out")
    with pytest.raises(SourceError, match="imagefolder: the source changed while it was converted"):
        convert(job, workers=workers)
    assert not (tmp_path / "out/index.json").exists()
    monkeypatch.setattr(convert_in_parts, "map_in_processes", real)
    convert(job, workers=workers)
    assert labels(tmp_path / "out") == {
        name: ["cat", "dog", "owl"].index(name[:3]) for name in labels(tmp_path / "out")
    }
    assert len(labels(tmp_path / "out")) == 9


def test_a_tar_that_is_replaced_while_it_is_converted_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write(tmp_path / "old", small_jpegs(*(f"a/{i}.jpg" for i in range(6))))
    new = write(tmp_path / "new", small_jpegs(*(f"a/{i + 10}.jpg" for i in range(6))))
    src = tmp_path / "src.tar"
    for folder in (new, old):
        with tarfile.open(src.with_name(f"{folder.name}.tar"), "w") as tar:
            tar.add(folder, "")
    job = Job(recipe_of("imagefolder", src, {}), tmp_path / "out")
    real = convert_in_parts.map_in_processes

    def late(*arguments: Any) -> Any:
        os.replace(tmp_path / "new.tar", src)
        return real(*arguments)

    os.replace(tmp_path / "old.tar", src)
    monkeypatch.setattr(convert_in_parts, "PART_ITEMS", 2)
    monkeypatch.setattr(convert_in_parts, "map_in_processes", late)
    with pytest.raises(SourceError, match="changed while it was converted"):
        convert(job, workers=2)
    assert not (tmp_path / "out/index.json").exists()


def test_a_file_that_changes_while_its_part_is_written_is_an_error_and_the_command_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = write(tmp_path / "src", small_jpegs(*(f"a/{i}.jpg" for i in range(4))))
    job = Job(recipe_of("imagefolder", src, {}), tmp_path / "out")
    real = Folder.read

    def read(folder: Folder, name: str) -> bytes:
        found = real(folder, name)
        if name == "a/3.jpg":
            (src / name).write_bytes(picture("JPEG", quality=90) + b"more")
        return found

    monkeypatch.setattr(convert_in_parts, "PART_ITEMS", 2)
    monkeypatch.setattr(Folder, "read", read)
    with pytest.raises(SourceError, match=r"between a/2\.jpg and a/3\.jpg: the source"):
        convert(job)
    monkeypatch.setattr(Folder, "read", real)
    assert not (tmp_path / "out/index.json").exists()
    convert(job)
    assert untile(samples(tmp_path / "out")[3]["image"]).endswith(b"more")


# whole conversions ----------------------------------------------------------------------------------------------------


def test_the_number_of_workers_and_parts_does_not_change_the_snapshot(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = small_jpegs(*(f"{'abc'[i % 3]}/{i}.jpg" for i in range(20))) | {"b/bad.jpg": b"bad"}
    src = write(tmp_path / "src", files)
    monkeypatch.setattr("mx8shards.convert.convert_in_parts.PART_ITEMS", 6)
    found = [run(capsys, src, tmp_path / str(n), "--workers", str(n), code=4) for n in (1, 3)]
    assert found[0][0] == found[1][0]
    assert rejects(found[0][1]) == rejects(found[1][1])
    assert samples(tmp_path / "1") == samples(tmp_path / "3")


def test_a_folder_without_any_valid_picture_publishes_nothing(tmp_path: Path, capsys: Capture) -> None:
    src = write(tmp_path / "src", {"a/1.jpg": b"", "a/2.jpg": b"bad"})
    _, complained = run(capsys, src, tmp_path / "out", code=1)
    assert "none of 2 items could be converted: the file is empty" in complained
    assert not (tmp_path / "out/index.json").exists()
    _, complained = run(capsys, write(tmp_path / "none", {"notes.txt": b""}), tmp_path / "other", code=1)
    assert "expected pictures (.avif" in complained
    assert "got none among 1 files" in complained
    assert not (tmp_path / "other").exists()


def test_a_missing_package_is_an_error_and_makes_no_rejects(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    src = write(tmp_path / "src", {"a/1.jpg": picture("JPEG", progressive=True), "a/2.png": picture("PNG")})
    _, complained = run(capsys, src, tmp_path / "out", code=1)
    assert 'pip install "mx8shards[convert]"' in complained
    assert not (tmp_path / "out/index.json").exists()


def test_rgb8_converts_cmyk_and_16_bit_pictures_to_rgb(tmp_path: Path, capsys: Capture) -> None:
    files = {
        "a.jpg": picture("JPEG"),
        "grey16.png": png(16, 0, 1),
        "print.jpg": picture("JPEG", "CMYK"),
        "print.tif": picture("TIFF", "CMYK"),
        "rgb16.png": png(16, 2, 3),
    }
    src = write(tmp_path / "src", files)
    _, complained = run(capsys, src, tmp_path / "without", code=4)
    assert len(rejects(complained)) == 4
    assert all("--rgb8" in reason for reason in rejects(complained).values())
    run(capsys, src, tmp_path / "out", "--rgb8")
    kinds = {}
    for sample in samples(tmp_path / "out"):
        with Image.open(io.BytesIO(sample["image"])) as image:
            kinds[sample["path"]] = image.format, image.mode
    assert untile(samples(tmp_path / "out")[0]["image"]) == files["a.jpg"]
    assert kinds == {
        "a.jpg": ("JPEG", "RGB"),
        "grey16.png": ("PNG", "L"),
        "print.jpg": ("JPEG", "RGB"),
        "print.tif": ("PNG", "RGB"),
        "rgb16.png": ("PNG", "RGB"),
    }
    assert mx8.Dataset(tmp_path / "out").metadata["imagefolder"]["rgb8"] is True


def test_a_rotated_cmyk_picture_becomes_upright_and_is_scaled_by_its_upright_side(
    tmp_path: Path, capsys: Capture
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "src", {"a.jpg": picture("JPEG", "CMYK", exif=exif)})
    run(capsys, tmp_path / "src", tmp_path / "out", "--rgb8", "--max-side", "30")
    assert sizes(tmp_path / "out") == {"a.jpg": (30, 20)}


def test_decompression_bombs_are_rejects_with_reasons(tmp_path: Path, capsys: Capture) -> None:
    suffixes = {"progressive scans": "jpg", "EXIF bomb": "jpg", "EXIF directory bomb": "jpg", "frames": "gif"}
    suffixes |= {"empty chunks": "png", "tags": "tif", "TIFF directory bomb": "tif", "AVIF bomb": "avif"}
    files = {f"{name}.{suffix}": HOSTILE[name][0](1) for name, suffix in suffixes.items()}
    _, complained = run(capsys, write(tmp_path / "src", files | small_jpegs("a.jpg")), tmp_path / "out", code=4)
    report = rejects(complained)
    assert set(report) == set(files)
    for name, reason in report.items():
        assert HOSTILE[name.partition(".")[0]][1] in reason
    _, complained = run(capsys, tmp_path / "src", tmp_path / "small", "--max-side", "8", "--rgb8", code=4)
    assert rejects(complained) == report


def test_a_jpeg_too_large_to_decode_at_full_size_is_scaled_during_decoding(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_checks, "_MOST_BYTES", 12 * 75 * 50)  # an eighth of each side
    large = Image.fromarray(NOISE[::16, ::16]).resize((600, 400), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    large.save(out, "JPEG", quality=95)
    write(tmp_path / "src", {"a.jpg": out.getvalue()})
    run(capsys, tmp_path / "src", tmp_path / "out", "--max-side", "24")
    assert sizes(tmp_path / "out") == {"a.jpg": (16, 24)}
    with Image.open(io.BytesIO(samples(tmp_path / "out")[0]["image"])) as image:
        found = np.asarray(image).astype(int)
    assert np.abs(found - np.asarray(large.resize((24, 16), Image.Resampling.LANCZOS))).mean() < 8
    _, complained = run(capsys, tmp_path / "src", tmp_path / "none", "--quality", "50", code=1)
    assert "bytes of memory" in complained


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" %s></rdf:RDF></x:xmpmeta>"""


@pytest.mark.skipif(turbo.library is None, reason="there is no libturbojpeg")
@pytest.mark.parametrize(
    "text", [b'tiff:Orientation="6"/>', b"tiff:Make='x'><tiff:Orientation>6</tiff:Orientation></rdf:Description>"]
)
def test_the_xmp_orientation_of_an_upright_picture_is_upright(text: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.fromarray(NOISE[:32, :48].copy()).save(out, "JPEG", exif=exif, xmp=XMP % text)
    found = upright_jpeg(out.getvalue(), 6)
    assert found is not None
    assert XMP % text.replace(b"6", b"1") in found
    with Image.open(io.BytesIO(found)) as image:
        assert image.getexif().get(0x0112) == 1
        assert image.size == (32, 48)
