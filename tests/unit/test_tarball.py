"""Are the files in a tar read correctly, and damaged or hostile tars refused?"""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from mx8shards.convert import source_files, tarball
from mx8shards.convert.file_kinds import PICTURES
from mx8shards.convert.source_files import Folder, user_path
from mx8shards.convert.tarball import Tar
from mx8shards.errors import SettingError, SourceError

BLOCK = 512
SPARSE = {
    "old GNU": ("--format=gnu",),
    "PAX 0.0": ("--format=posix", "--sparse-version=0.0"),
    "PAX 0.1": ("--format=posix", "--sparse-version=0.1"),
    "PAX 1.0": ("--format=posix", "--sparse-version=1.0"),
}


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    """A tar header of 512 bytes, with any declared size."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def file(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + padded(data)


def pax(**records: str) -> bytes:
    """A PAX header with these records, for the header that follows."""
    text = b""
    for key, value in records.items():
        rest = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(rest)
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        text += str(length).encode() + rest
    return header("pax", len(text), tarfile.XHDTYPE) + padded(text)


END = bytes(2 * BLOCK)
GOOD = file("good", b"good" * 300)


def made(tmp_path: Path, *pieces: bytes) -> Path:
    path = tmp_path / "made.tar"
    path.write_bytes(b"".join(pieces))
    return path


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
@pytest.mark.parametrize("kind", SPARSE)
def test_a_sparse_file_is_expanded(kind: str, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("few", "many", "ends in a hole", "a hole alone", "whole")}
    for name, runs, size in (
        ("few", ((0, b"begin"), (1 << 20, b"middle"), (3 << 20, b"end")), (3 << 20) + 3),
        ("many", tuple((i << 16, bytes([i + 1]) * 5_000) for i in range(40)), 40 << 16),
        ("ends in a hole", ((4096, b"x" * 4096),), 1 << 20),
        ("a hole alone", (), 1 << 20),
        ("whole", ((0, b"whole"),), 5),
    ):
        with open(files[name], "wb") as out:
            for offset, data in runs:
                out.seek(offset)
                out.write(data)
            out.truncate(size)
    path = tmp_path / "sparse.tar"
    done = subprocess.run(
        ["tar", "-S", *SPARSE[kind], "-cf", str(path), "-C", str(tmp_path), *files],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this tar does not write sparse files: {done.stderr}")
    if os.stat(files["few"]).st_blocks * BLOCK < 1 << 20:  # the file system has holes
        assert path.stat().st_size < 3 << 20
    tar = Tar(path)
    assert tar.names() == sorted(files)
    for name, original in files.items():
        assert tar.read(name) == original.read_bytes(), name


SPARSE_RECORDS = {
    "overlapping runs": "0,10,5,10",
    "runs backwards": "100,10,0,10",
    "a run behind the end": "990,20",
    "a run that begins before the file": "-5,10",
    "more than is stored": "0,900000",
}


@pytest.mark.parametrize("name", SPARSE_RECORDS)
def test_a_damaged_sparse_map_rejects_only_that_file(name: str, tmp_path: Path) -> None:
    size = "1000000" if name == "more than is stored" else "1000"
    records = {"GNU_sparse_map": SPARSE_RECORDS[name], "GNU_sparse_size": size, "GNU_sparse_name": "bad"}
    tar = Tar(made(tmp_path, GOOD, pax(**records), file("stored", bytes(20)), file("last", b"last"), END))
    assert tar.names() == ["bad", "good", "last"]
    with pytest.raises(SourceError, match="a sparse file"):
        tar.read("bad")
    assert (tar.read("good"), tar.read("last")) == (b"good" * 300, b"last")


def test_listing_a_sparse_file_of_any_size_takes_no_memory(tmp_path: Path) -> None:
    records = {"GNU_sparse_map": "0,10", "GNU_sparse_size": str(1 << 50), "GNU_sparse_name": "bad"}
    tar = Tar(made(tmp_path, pax(**records), file("stored", bytes(10)), GOOD, END))
    with pytest.raises(SourceError, match=f"expected at most {PICTURES.most_bytes} bytes, got {1 << 50}"):
        tar.read("bad")
    assert tar.read("good") == b"good" * 300


def chain(length: int) -> bytes:
    """A file preceded by this many headers that give its name."""
    return b"".join(header("././@LongLink", 5, tarfile.GNUTYPE_LONGNAME) + padded(b"name") for _ in range(length))


def sparse(blocks: int, size: int = 1 << 20) -> bytes:
    """A sparse file in GNU's old format whose map takes this many extra blocks, each with 21 runs of one byte."""
    head = bytearray(header("bad", 21 * blocks, tarfile.GNUTYPE_SPARSE))
    head[482], head[483:495] = 1, tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    more = b""
    for block in range(blocks):
        runs = b"".join(
            tarfile.itn(2 * (21 * block + i) + 2, 12, tarfile.GNU_FORMAT) + tarfile.itn(1, 12, tarfile.GNU_FORMAT)
            for i in range(21)
        )
        more += runs + bytes([block < blocks - 1]) + bytes(7)
    return bytes(head) + more + padded(bytes([7]) * (21 * blocks))


BROKEN = {
    "a negative size": ((header("bad", -BLOCK), END), "'bad' has a negative size"),
    "a small negative size": ((header("bad", -1), END), "'bad' has a negative size"),
    "a size of exbibytes": ((header("bad", 1 << 60), END), "'bad' to end at byte"),
    "a size that no file has": ((header("bad", 1 << 80), END), "'bad' to end at byte"),
    "a negative PAX size": ((pax(size="-512"), file("bad", b"x"), END), "'bad' has a negative size"),
    "a huge PAX size": ((pax(size="9" * 30), file("bad", b"x"), END), "'bad' to end at byte"),
    "a PAX size of 5,000 digits": (
        (pax(size="9" * 5000), header("bad", 0), b"x" * BLOCK, END),
        "not the header of a file",
    ),
    "a PAX size that is no number": ((pax(GNU_sparse_size="x", GNU_sparse_map="0,1"), GOOD, END), "a damaged one"),
    "a PAX header of gibibytes": ((header("pax", 1 << 32, tarfile.XHDTYPE), END), "headers of at most"),
    "a PAX header of a negative size": ((header("pax", -BLOCK, tarfile.XHDTYPE), END), "headers of at most"),
    "a name of gibibytes": ((header("n", 1 << 32, tarfile.GNUTYPE_LONGNAME), END), "headers of at most"),
    "a map of holes of mebibytes": ((sparse(3_000), END), "headers of at most"),
    "names of names": ((chain(2_000), GOOD, END), "headers of at most"),
    "a name of nothing": ((chain(1), END), "a damaged one"),
    "no end": ((), "the tar is cut short"),
    "an end of one byte": ((b"\0",), "the tar is cut short"),
    "half a header": ((header("bad", 0)[:300],), "the tar is cut short"),
    "a damaged header": ((header("bad", 0).replace(b"bad", b"BAD"), GOOD, END), "bytes that are not the header"),
    "half a file": ((GOOD[:700],), "'good' to end at byte"),
    "a tar behind the tar": ((END, bytes(8 * BLOCK), GOOD, END), "another tar after its end"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_tar_that_is_damaged_after_a_member_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    pieces, message = BROKEN[name]
    path = made(tmp_path, GOOD, *pieces)
    with pytest.raises(SourceError, match=message) as found:
        Tar(path)
    assert str(found.value).startswith(f"{path}: ")
    assert "tar -x" in str(found.value)  # the hint


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in ("no end", "a tar behind the tar")])
def test_a_tar_that_is_damaged_at_its_beginning_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        Tar(made(tmp_path, *BROKEN[name][0]))


def test_other_bytes_after_the_end_marker_are_ignored(tmp_path: Path) -> None:
    assert Tar(made(tmp_path, GOOD, END, b"something else" * 1000)).names() == ["good"]
    assert Tar(made(tmp_path, GOOD, END, bytes(3 << 20))).names() == ["good"]


def test_names_of_any_bytes_are_listed(tmp_path: Path) -> None:
    names = ["a\x1b[31mb", "line\nbreak", "caf\udce9", "n" * 5_000, "été"]
    path = tmp_path / "names.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"data"))
    tar = Tar(path)
    assert tar.names() == sorted(names)
    assert {tar.read(name) for name in names} == {b"data"}


def test_links_are_resolved_and_loops_are_rejected_with_a_reason(tmp_path: Path) -> None:
    def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
        return header(name, 0, kind, linkname=target)

    links = (link("itself", "itself"), link("a", "b"), link("b", "a"), link("hard", "good", tarfile.LNKTYPE))
    replaced = (link("replaced", "nowhere"), file("replaced", b"new"), header("pipe", 0, tarfile.FIFOTYPE))
    tar = Tar(made(tmp_path, GOOD, *links, *replaced, END))
    assert tar.read("hard") == b"good" * 300
    assert tar.read("replaced") == b"new"
    for name in ("itself", "a", "b"):
        with pytest.raises(SourceError, match="a link whose target is not in the tar"):
            tar.read(name)
    with pytest.raises(SourceError, match="expected a regular file"):
        tar.read("pipe")


def test_a_member_whose_path_leads_outside_is_rejected_with_a_reason(tmp_path: Path) -> None:
    names = ["../photos/1.jpg", "a/../../2.jpg", "..", "./.hidden", "/3.jpg"]
    tar = Tar(made(tmp_path, *(file(name, b"data") for name in names), GOOD, END))
    assert tar.names() == ["..", "../2.jpg", "../photos/1.jpg", "3.jpg", "good"]
    for name in ("../2.jpg", "../photos/1.jpg"):
        with pytest.raises(SourceError, match="its path leads out of the tar"):
            tar.read(name)
    assert tar.read("3.jpg") == b"data"


def test_the_number_of_runs_of_all_sparse_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "_MOST_RUNS", 21 * 5)
    good = tmp_path / "good.tar"
    good.write_bytes(sparse(3) + GOOD + END)
    whole = Tar(good).read("bad")
    assert (len(whole), whole[:6], whole.count(7)) == (1 << 20, b"\0\0\7\0\7\0", 63)
    good.write_bytes(sparse(6) + GOOD + END)
    tar = Tar(good)
    with pytest.raises(SourceError, match="expected at most 105 runs in all sparse files, got more"):
        tar.read("bad")
    assert tar.read("good") == b"good" * 300


def test_global_headers_are_not_copied_for_each_file(tmp_path: Path) -> None:
    record = b"".join(b"%d k%05d=v\n" % (12, i) for i in range(15_000))
    headers = header("pax", len(record), tarfile.XGLTYPE) + padded(record)
    seen: list[int] = []
    files = b"".join(pax(comment="x") + file(f"{i}", b"x") for i in range(300))

    class Counting(dict[str, str]):
        def copy(self) -> Counting:
            seen.append(len(self))
            return Counting(self)

    path = made(tmp_path, headers, files, END)
    real = tarfile.TarFile.__init__

    def begin(tar: tarfile.TarFile, *arguments: object, **options: object) -> None:
        options["format"], options["pax_headers"] = tarfile.PAX_FORMAT, Counting()
        real(tar, *arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tarfile.TarFile, "__init__", begin)
        assert len(Tar(path).names()) == 300
    assert sum(size > 10_000 for size in seen) < 10  # for 300 files


def test_a_tar_inside_a_tar_is_read_without_extraction_and_only_up_to_its_size(tmp_path: Path) -> None:
    inner = GOOD + file("other", b"other") + END
    path = made(tmp_path, file("a.tar", inner), file("b.tar", inner[: -len(END)]), file("c", b"c"), END)
    outer = Tar(path)
    assert outer.names() == ["a.tar", "b.tar", "c"]
    tar = Tar(path, *outer.place("a.tar"))
    assert tar.names() == ["good", "other"]
    assert tar.read("good") == b"good" * 300
    with pytest.raises(SourceError, match="the tar is cut short"):
        Tar(path, *outer.place("b.tar"))


def test_a_tar_that_changes_after_it_was_listed_is_an_error(tmp_path: Path) -> None:
    path = made(tmp_path, GOOD, END)
    tar = Tar(path)
    assert tar.stamp("good") == tar.stamp("good")
    made(tmp_path, file("good", b"evil" * 300), END)
    with pytest.raises(SourceError, match="the tar changed while it was converted"):
        tar.stamp("good")
    with pytest.raises(SourceError, match="the tar changed while it was converted"):
        tar.stamp("new")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.ETIMEDOUT])
def test_a_system_error_is_not_a_reject(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path, GOOD, END)
    tar, folder = Tar(path), Folder(tmp_path)

    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(tarball, "open_regular", fail)
    monkeypatch.setattr(source_files, "read_bounded", fail)
    for source, name in ((tar, "good"), (folder, "made.tar")):
        with pytest.raises(OSError, match="made") as found:
            source.read(name)
        assert found.value.errno == number
        assert not isinstance(found.value, SourceError)


def test_running_out_of_file_descriptors_is_not_a_reject(tmp_path: Path) -> None:
    folder = Folder(made(tmp_path, GOOD).parent)
    held: list[int] = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        with pytest.raises(OSError, match="Too many open files") as found:
            folder.read("made.tar")
        assert not isinstance(found.value, SourceError)
    finally:
        for descriptor in held:
            os.close(descriptor)


def test_a_tilde_with_an_unknown_user_is_kept_and_a_nul_byte_is_refused() -> None:
    assert user_path("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    assert user_path("~/x") == Path.home() / "x"
    with pytest.raises(SettingError, match="expected a path"):
        user_path("a\0b")
