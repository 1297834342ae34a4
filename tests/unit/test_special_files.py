"""Does a FIFO, socket, device or directory in place of a file raise an error, without blocking?"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.convert.file_kinds import PICTURES
from mx8shards.convert.source_files import open_files
from mx8shards.disk import publish
from mx8shards.disk.files import open_regular, read_bounded
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DiskError, FormatError, ShardsError, SourceError

HANGS_AFTER_S = 120


@pytest.fixture(autouse=True)
def _timeout() -> Iterator[None]:
    """A call that never returns fails the test instead of blocking the run."""

    def stop(*_: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS_AFTER_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def put_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_directory(path: Path) -> None:
    path.mkdir()


def put_link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name(f"{path.name[:40]}~fifo"))
    path.symlink_to(f"{path.name[:40]}~fifo")


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": put_fifo,
    "socket": put_socket,
    "zeros": put_zeros,
    "directory": put_directory,
    "link to a fifo": put_link_to_a_fifo,
}
EVERY_KIND = pytest.mark.parametrize("put", KINDS.values(), ids=KINDS.keys())


def replace(path: Path, put: Callable[[Path], None]) -> None:
    path.unlink()
    put(path)


def write(root: Path, compression: str | None = None, **more: Any) -> str:
    with mx8.Writer(root, columns={"x": "int", "b": "bytes"}, compression=compression, **more) as writer:
        for i in range(5):
            writer.write({"x": i, "b": bytes(100)})
    assert writer.snapshot is not None
    return writer.snapshot


# the open functions ---------------------------------------------------------------------------------------------------


@EVERY_KIND
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_WRONLY])
def test_only_regular_files_are_opened(put: Callable[[Path], None], flags: int, tmp_path: Path) -> None:
    put(tmp_path / "it")
    with pytest.raises(OSError, match=r"expected a regular file, got a|Is a directory") as caught:
        open_regular(tmp_path / "it", flags=flags)
    assert caught.value.filename == str(tmp_path / "it")
    with pytest.raises(OSError, match=r"regular file|symbolic links|Is a directory"):
        open_regular(tmp_path / "it", flags=flags, follow=False)


def test_a_refused_file_leaves_no_descriptor(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "it")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="a FIFO"):
            ReadFile(tmp_path / "it")
    assert len(os.listdir("/proc/self/fd")) == before


def test_symlinks_are_followed_only_if_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_bounded(tmp_path / "link", 3) == b"abc"
    with pytest.raises(OSError, match="symbolic links"):
        read_bounded(tmp_path / "link", 3, follow=False)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_a_file_is_read_completely_up_to_the_limit(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert read_bounded(tmp_path / "file", size) == data
    assert read_bounded(tmp_path / "file", size + 1) == data
    if size:
        with pytest.raises(FormatError, match=f"at most {size - 1} bytes, got {size}"):
            read_bounded(tmp_path / "file", size - 1)


def test_files_of_unknown_size_are_limited_too() -> None:
    assert os.stat("/proc/self/maps").st_size == 0
    assert read_bounded("/proc/self/maps", 1 << 24).startswith(Path("/proc/self/maps").read_bytes()[:8])
    with pytest.raises(FormatError, match="at most 10 bytes, got more"):
        read_bounded("/proc/self/maps", 10)


def test_a_huge_sparse_file_is_refused_before_any_of_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match=f"expected at most 1000 bytes, got {1 << 40}"):
        read_bounded(tmp_path / "file", 1000)


# a dataset's files --------------------------------------------------------------------------------------------------


@EVERY_KIND
def test_an_index_must_be_a_regular_file(put: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root)
    replace(root / "index.json", put)
    with pytest.raises(ShardsError, match=r"data/index\.json.*(regular file|Is a directory)"):
        mx8.Dataset(root)
    with pytest.raises(ShardsError, match=r"regular file|Is a directory"):
        mx8.Writer(root, columns={"x": "int"}, mode="append")
    with pytest.raises(ShardsError, match=r"regular file|Is a directory"):
        mx8.verify(root)


@EVERY_KIND
def test_a_kept_index_must_be_a_regular_file(put: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "data"
    first = write(root)
    write(root, mode="append")
    replace(root / ".mx8shards/snapshots" / f"{first.removeprefix('sha256:')}.json", put)
    with pytest.raises(ShardsError, match=r"regular file|Is a directory"):
        mx8.Dataset(f"{root}@{first}")
    report = mx8.verify(root)
    assert [damage.reason for damage in report.damage] == ["unreadable"]
    assert len(mx8.Dataset(root)) == 10


def test_an_endless_kept_index_is_damage(tmp_path: Path) -> None:
    root = tmp_path / "data"
    first = write(root)
    write(root, mode="append")
    path = root / ".mx8shards/snapshots" / f"{first.removeprefix('sha256:')}.json"
    os.truncate(path, 1 << 40)
    report = mx8.verify(root)
    assert [(damage.reason, "at most" in damage.error) for damage in report.damage] == [("format", True)]


@EVERY_KIND
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_shard_must_be_a_regular_file(put: Callable[[Path], None], compression: str | None, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, compression)
    (shard,) = root.glob("shard.*")
    replace(shard, put)
    with mx8.Dataset(root) as dataset, pytest.raises(ShardsError, match=r"regular file|directory|symlink"):
        dataset[0]
    assert not mx8.verify(root).ok
    assert not mx8.verify(root, data=True).ok
    with pytest.raises(ShardsError, match=r"regular file|directory|symlink"):
        mx8.merge([root], tmp_path / "merged")


@EVERY_KIND
def test_a_sidecar_must_be_a_regular_file(put: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root)
    sidecars = list((root / ".mx8shards/sidecars").iterdir())
    assert sidecars
    for sidecar in sidecars:
        replace(sidecar, put)
    with mx8.Dataset(root) as dataset, pytest.raises(ShardsError, match=r"regular file|directory|symbolic links"):
        dataset.column("x")
    assert not mx8.verify(root).ok
    with pytest.raises(ShardsError, match=r"regular file|directory|symbolic links"):
        mx8.merge([root], tmp_path / "merged")


@EVERY_KIND
def test_a_decompressed_copy_must_be_a_regular_file(put: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, "zstd")
    with mx8.Dataset(root, cache_dir=tmp_path / "cache") as dataset:
        assert dataset[3]["x"] == 3
    (copy,) = (tmp_path / "cache").glob("*.mds")
    replace(copy, put)
    with mx8.Dataset(root, cache_dir=tmp_path / "cache") as dataset, pytest.raises(ShardsError, match=str(copy)):
        dataset[3]


@EVERY_KIND
def test_an_intent_and_a_lock_must_be_regular_files(put: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root)
    (root / ".mx8shards/staging").mkdir()
    put(root / ".mx8shards/staging/intent.json")
    with pytest.raises(DiskError, match=r"intent\.json.*(regular file|directory|symbolic links)"):
        mx8.Writer(root, columns={"x": "int", "b": "bytes"}, mode="append")
    other = tmp_path / "other"
    write(other)
    replace(other / ".mx8shards/lock", put)
    with pytest.raises(DiskError, match=r"lock.*(regular file|directory|symbolic links)"):
        mx8.Writer(other, columns={"x": "int", "b": "bytes"}, mode="append")


# a source's files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("put", [put_zeros, put_link_to_a_fifo], ids=["zeros", "link to a fifo"])
def test_a_picture_must_be_a_regular_file(put: Callable[[Path], None], tmp_path: Path) -> None:
    put(tmp_path / "it.jpg")
    with pytest.raises(SourceError, match="expected a regular file"):
        open_files(tmp_path).read("it.jpg")


def test_a_huge_sparse_picture_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "it.jpg").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SourceError, match=f"at most {PICTURES.most_bytes} bytes"):
        open_files(tmp_path).read("it.jpg")


@pytest.mark.parametrize("path", ["data/../outside", "data/a/../../outside/b", "outside"])
def test_no_directory_is_made_outside_the_one_that_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(FormatError, match=r"expected a path below .*, got a path that leads out of it"):
        publish.make_directories(tmp_path / path, below=tmp_path / "data")
    assert [found.name for found in tmp_path.iterdir()] == ["data"]
