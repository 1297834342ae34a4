"""Is a dataset consistent after the disk was full or read-only, or permission was denied?"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mx8shards as mx8
from tests.crash.scenarios import samples, tree, write
from tests.crash.traced_processes import ROOT


class SmallDisk:
    """A tmpfs whose size can be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mount("tmpfs", "-t", "tmpfs", "-o", "size=4m")

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(self.path)], check=True, capture_output=True, text=True)

    def change(self, options: str) -> None:
        """Remount it with these options."""
        self._mount("-o", f"remount,{options}")

    def fill(self) -> Path:
        """Fill the disk. Returns the path of the file that fills it."""
        path = self.path / "filler"
        with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        return path

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)
        self.path.rmdir()


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    try:
        disk = SmallDisk(Path(tempfile.mkdtemp()))  # pytest cannot remove a mount that a killed run left
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing can be mounted here: {getattr(error, 'stderr', error)}")
    yield disk
    disk.close()


def is_whole(root: Path) -> bool:
    """Does a dataset pass verify, and is nothing staged?"""
    return mx8.verify(root, data=True).ok and not (root / ".mx8shards/staging").exists()


def error_of(act: Callable[[], object]) -> mx8.DiskError | None:
    """The error that a call raises, or None."""
    try:
        act()
    except mx8.DiskError as error:
        return error
    return None


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_disk_that_fills_up_during_any_step_of_a_publication_loses_nothing(
    compression: str | None, small_disk: SmallDisk, scratch: Path
) -> None:
    more = {"size_limit": "8kb", "compression": compression, "mode": "append", "threads": 2}
    write(scratch / "data", 0, 100, compression=compression)
    undisturbed = write(scratch / "data", 100, 4_000, **more)
    root = small_disk.path / "data"
    first = write(root, 0, 100, compression=compression)
    before = tree(root)
    refused = 0
    for size in range(0, 480, 24):
        used = os.statvfs(root)
        small_disk.change(f"size={(used.f_blocks - used.f_bfree) * 4 + size}k")
        error = error_of(lambda: write(root, 100, 4_000, **more))
        if error is None:
            break
        refused += 1
        assert error.errno == errno.ENOSPC
        assert "No space left on device" in str(error)
        assert tree(root) == before
        assert is_whole(root)
        with mx8.Dataset(root) as dataset:
            assert dataset.snapshot == first
    assert refused > 5
    with mx8.Dataset(root, verify="shard") as dataset:
        assert dataset.snapshot == undisturbed
        assert len(list(dataset)) == 4_000


def test_gc_frees_space_on_a_full_disk(small_disk: SmallDisk) -> None:
    root = small_disk.path / "data"
    write(root, 0, 3_000, size_limit="64kb")
    write(root, 0, 100, mode="overwrite", size_limit="64kb")
    (root / ".mx8shards/lock").unlink()  # there will be no space for its contents
    small_disk.fill()
    with pytest.raises(mx8.DiskError, match="No space left on device"):
        write(root, 100, 200, mode="append", size_limit="64kb")
    removed = mx8.gc(root, keep=0)
    assert removed.freed_bytes > 100_000
    assert os.statvfs(root).f_bfree * 4096 > 100_000
    assert is_whole(root)
    write(root, 100, 200, mode="append", size_limit="64kb")


def test_compressed_shards_are_readable_on_a_full_disk(small_disk: SmallDisk) -> None:
    root = small_disk.path / "data"
    write(root, 0, 1_000, size_limit="32kb", compression="zstd")
    small_disk.fill()
    with mx8.Dataset(root, verify="shard") as dataset:
        assert list(dataset) == list(samples(0, 1_000))
    assert [name for name in tree(root) if name.endswith(".tmp")] == []


def test_decompressed_copies_take_at_most_half_of_the_free_space_and_the_oldest_are_evicted_first(
    small_disk: SmallDisk,
) -> None:
    root = small_disk.path / "data"
    small_disk.change("size=8m")
    with mx8.Writer(root, columns={"data": "bytes"}, compression="zstd", size_limit="300kb", threads=1) as writer:
        for number in range(40):
            writer.write({"data": bytes([number]) * 256_000})
    cache = root / ".mx8shards/cache"
    disk = os.statvfs(root)
    with mx8.Dataset(root) as dataset:
        dataset[0], dataset[1]
        first, second = sorted(cache.glob("*.mds"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(second, ns=(0, 0))
        for number in [*range(2, 40), *range(40)]:
            assert dataset[number]["data"] == bytes([number]) * 256_000
            assert sum(path.stat().st_size for path in cache.iterdir()) <= disk.f_bavail * disk.f_frsize // 2
            assert first.exists() or not second.exists()
        assert not first.exists()
    assert mx8.verify(root, data=True).ok


def test_a_dataset_on_a_disk_that_became_read_only_can_be_read(small_disk: SmallDisk) -> None:
    root = small_disk.path / "data"
    write(root, 0, 100, compression="gz")
    small_disk.change("ro")
    with pytest.raises(mx8.DiskError, match="Read-only file system") as found:
        write(root, 100, 200, mode="append", compression="gz")
    assert found.value.errno == errno.EROFS
    with pytest.raises(mx8.DiskError, match="Read-only file system"):
        mx8.gc(root)
    with mx8.Dataset(root, verify="shard") as dataset:
        assert list(dataset) == list(samples(0, 100))
    small_disk.change("rw")
    write(root, 100, 200, mode="append", compression="gz")
    assert is_whole(root)


# no permissions (in a subprocess, because root may do anything) -------------------------------------------------------

UNPRIVILEGED = """
import json, os, sys
from pathlib import Path
import mx8shards as mx8
from tests.crash.child import warm_up
from tests.crash.scenarios import write, tree

warm_up()  # what is imported late may lie where nobody else may look
place = Path(sys.argv[1])
if os.getuid() == 0:
    os.chown(place, 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

def attempt(act):
    try:
        return act()
    except mx8.ShardsError as error:
        return f"{type(error).__name__}: {error}"

def append():
    return write(root, 3, 6, mode="append", compression="gz")

def read():
    with mx8.Dataset(root, verify="shard") as dataset:
        return [sample["label"] for sample in dataset]

found = {}
for closed, mode in json.loads(sys.argv[2]):
    root = place / str(len(found)) / "data"
    os.environ["XDG_CACHE_HOME"] = str(root.parent / "home")
    root.parent.mkdir()
    write(root, 0, 3, compression="gz")
    read()
    before = tree(root)
    path = root / closed
    open_again = path.stat().st_mode
    path.chmod(mode)
    attempts = [attempt(append), attempt(read)]
    path.chmod(open_again)
    same = {name: data for name, data in tree(root).items() if "/staging" not in name} == before
    found[f"{closed} {mode:o}"] = [*attempts, same, read(), len(attempt(append)), read()]
print(json.dumps(found))
"""

CLOSED = [
    *((".", mode) for mode in (0o000, 0o555)),
    *((".mx8shards", mode) for mode in (0o000, 0o555)),
    *((f".mx8shards/{name}", mode) for name in ("snapshots", "sidecars", "cache") for mode in (0o000, 0o555)),
    *((name, 0o000) for name in ("index.json", "shard.00000.mds.gz", ".mx8shards/lock")),
]


def test_lost_permissions_are_clear_errors_and_lose_nothing(scratch: Path) -> None:
    scratch.chmod(0o755)
    scratch.parent.chmod(0o755)
    place = scratch / "place"
    place.mkdir()
    command = [sys.executable, "-c", UNPRIVILEGED, str(place), json.dumps(CLOSED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(CLOSED)
    for name, (appended, read, same, read_again, length, read_at_last) in found.items():
        closed, mode = name.split()
        can_read = mode == "555" or closed in (".mx8shards/lock", ".mx8shards/cache", ".mx8shards/sidecars")
        can_append = closed in (".mx8shards/cache", "shard.00000.mds.gz")
        if can_append:
            assert appended.startswith("sha256:"), (name, appended)
            continue
        assert "Permission denied" in appended, (name, appended)
        assert appended.startswith(("DiskError", "DatasetNotFoundError")), (name, appended)
        assert read == [0, 1, 2] if can_read else "Permission denied" in read, (name, read)
        assert same, name
        assert (read_again, length, read_at_last) == ([0, 1, 2], 71, [0, 1, 2, 3, 4, 5]), name
