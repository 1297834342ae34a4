"""Is each compressed shard unpacked once, within its size limits, and into a directory with free space?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests import reference
from tests.strategies import NUMBERED, numbered_samples, same, samples_as_read

WANTED = samples_as_read(NUMBERED, numbered_samples(60))
CODECS = ["zstd", "gz", "bz2", "br", "snappy"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("written") / "data")


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "data")


def write(root: Path, **options: Any) -> Path:
    options = {"columns": NUMBERED, "size_limit": 700, "compression": "zstd", **options}
    with mx8.Writer(root, **options) as writer:
        for sample in numbered_samples(60):
            writer.write(sample)
    return root


def cached(directory: Path) -> list[str]:
    """The files below a directory, except CACHEDIR.TAG."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG")


def test_decompressed_shards_are_cached_beside_the_data_one_file_each(root: Path) -> None:
    dataset = mx8.Dataset(root)
    shards = len(list(root.glob("*.zstd")))
    assert not (root / ".mx8shards" / "cache").exists()
    assert same(dataset[0], WANTED[0])
    assert len(cached(root / ".mx8shards" / "cache")) == 1
    assert same(list(dataset), WANTED)
    assert same(list(mx8.Dataset(root)), WANTED)
    assert len(cached(root / ".mx8shards" / "cache")) == shards > 5
    assert not any(name.endswith(".tmp") for name in cached(root))
    assert same(list(mx8.Dataset(root)), WANTED)


@pytest.mark.parametrize("codec", ["zstd:1", "gz:1", "bz2:1", "br:1"])
def test_memory_for_unpacking_does_not_grow_with_the_shard(codec: str, tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"x": "bytes"}, size_limit="64mb", compression=codec) as writer:
        for _ in range(500):
            writer.write({"x": os.urandom(20_000)})
    dataset = mx8.Dataset(tmp_path / "data")
    tracemalloc.start()
    try:
        dataset.payload(499, "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20  # of ten megabytes


@pytest.mark.parametrize("codec", CODECS)
def test_the_cached_file_is_the_raw_shard(codec: str, tmp_path: Path) -> None:
    root = write(tmp_path / "data", compression=codec, size_limit=None)
    list(mx8.Dataset(root))
    (kept,) = (root / ".mx8shards" / "cache").glob("*.mds")
    (stored,) = root.glob("shard.*")
    assert kept.read_bytes() == reference.decompress(codec, stored.read_bytes())


def test_with_cache_dir_nothing_is_written_beside_the_data(root: Path, tmp_path: Path) -> None:
    before = cached(root)
    with mx8.Dataset(root, cache_dir=tmp_path / "my" / "cache") as dataset:
        assert same(list(dataset), WANTED)
    assert cached(root) == before
    assert len(cached(tmp_path / "my" / "cache")) == len(list(root.glob("*.zstd")))


def test_a_cached_shard_is_not_decompressed_again(root: Path) -> None:
    list(mx8.Dataset(root))
    before = {path: path.stat().st_mtime_ns for path in (root / ".mx8shards" / "cache").iterdir()}
    with mx8.Dataset(root) as dataset:
        list(dataset)
    assert {path: path.stat().st_mtime_ns for path in (root / ".mx8shards" / "cache").iterdir()} == before


def test_a_cache_that_was_emptied_is_filled_again(root: Path) -> None:
    list(mx8.Dataset(root))
    shutil.rmtree(root / ".mx8shards" / "cache")
    assert same(list(mx8.Dataset(root)), WANTED)


def test_equal_shards_of_two_snapshots_are_decompressed_once(root: Path) -> None:
    list(mx8.Dataset(root))
    before = cached(root / ".mx8shards" / "cache")
    with mx8.Writer(root, columns=NUMBERED, compression="zstd", mode="append") as writer:
        writer.write(numbered_samples(1)[0])
    assert same(list(mx8.Dataset(root)), [*WANTED, WANTED[0]])
    assert len(cached(root / ".mx8shards" / "cache")) == len(before) + 1


def test_the_cached_copy_of_a_changed_shard_is_not_used(tmp_path: Path) -> None:
    """Without hashes in the index, only the file itself shows the change."""
    columns, cache = {"x": "bytes"}, tmp_path / "cache"
    reference.write_dataset(tmp_path / "data", columns, [[{"x": b"old"}]], compression="gz:0")
    assert mx8.Dataset(tmp_path / "data", cache_dir=cache)[0] == {"x": b"old"}
    reference.write_dataset(tmp_path / "other", columns, [[{"x": b"new"}]], compression="gz:0")
    os.rename(tmp_path / "other" / "shard.00000.mds.gz", tmp_path / "data" / "shard.00000.mds.gz")
    assert mx8.Dataset(tmp_path / "data", cache_dir=cache)[0] == {"x": b"new"}


def test_a_cache_is_tagged_so_that_backups_skip_it(root: Path, tmp_path: Path) -> None:
    for cache, options in ((root / ".mx8shards" / "cache", {}), (tmp_path / "mine", {"cache_dir": tmp_path / "mine"})):
        list(mx8.Dataset(root, **options))
        assert (cache / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    mx8.gc(root, keep=0)
    assert same(list(mx8.Dataset(root)), WANTED)
    assert mx8.verify(root, data=True).ok


# eviction and removal -------------------------------------------------------------------------------------------------


def test_evicted_copies_are_decompressed_again(root: Path) -> None:
    cache = root / ".mx8shards" / "cache"
    with mx8.Dataset(root) as dataset:
        assert same(list(dataset), WANTED)
        payload = dataset.payload(0, "id")
        before = bytes(payload)
        shutil.rmtree(cache)
        assert bytes(payload) == before  # a map stays valid after its file is unlinked
        for shard in filter(None, dataset._shards._open):
            shard.file = None  # as happens if more shards are open than descriptors are allowed
        assert same(list(dataset), WANTED)
        assert len(cached(cache)) == len(list(root.glob("*.zstd")))


# the raw file that Streaming leaves -----------------------------------------------------------------------------------


def write_raw_files(root: Path) -> list[Path]:
    """Streaming's cache with keep_zip=True has both forms of each shard."""
    found = []
    for stored in sorted(root.glob("*.zstd")):
        found.append(stored.with_suffix(""))
        found[-1].write_bytes(reference.decompress("zstd", stored.read_bytes()))
    return found


def test_a_shard_whose_raw_file_exists_is_not_cached(root: Path) -> None:
    write_raw_files(root)
    assert same(list(mx8.Dataset(root, verify="shard")), WANTED)
    assert not (root / ".mx8shards" / "cache").exists()
    for stored in root.glob("*.zstd"):
        stored.unlink()  # with keep_zip=False only the raw files are left
    assert same(list(mx8.Dataset(root)), WANTED)


def test_a_raw_file_of_wrong_size_or_type_is_ignored(root: Path, tmp_path: Path) -> None:
    first, second, third, *_ = write_raw_files(root)
    first.write_bytes(first.read_bytes()[:-1])
    second.rename(tmp_path / "elsewhere")
    second.symlink_to(tmp_path / "elsewhere")
    third.unlink()
    third.mkdir()
    assert same(list(mx8.Dataset(root)), WANTED)
    assert len(cached(root / ".mx8shards" / "cache")) == 3


def test_a_damaged_raw_file_is_found(root: Path) -> None:
    first, *_ = write_raw_files(root)
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    with pytest.raises(mx8.IntegrityError):
        list(mx8.Dataset(root, verify="shard"))
    assert [damage.file for damage in mx8.verify(root, data=True).damage] == [first.name]


@pytest.mark.parametrize("name", [".mx8shards", ".mx8shards/cache"])
def test_a_symlink_in_place_of_the_cache_is_not_followed(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "victim").mkdir()
    if name == ".mx8shards":
        shutil.rmtree(root / name)
    (root / name).symlink_to(tmp_path / "victim")
    assert same(list(mx8.Dataset(root)), WANTED)
    assert list((tmp_path / "victim").iterdir()) == []
    assert len(cached(tmp_path / "home" / "mx8shards" / "shards")) == len(list(root.glob("*.zstd")))


# other processes ------------------------------------------------------------------------------------------------------

READER = """
import os, sys
import mx8shards as mx8
from mx8shards.disk import operations
from tests.strategies import NUMBERED, numbered_samples, same, samples_as_read

root, log = sys.argv[1:3]
descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)

def before(name, arguments):
    if name == "rename":
        os.write(descriptor, f"{arguments[1].name}\\n".encode())

operations.before = before
sys.stdin.readline()
assert same(list(mx8.Dataset(root)), samples_as_read(NUMBERED, numbered_samples(60)))
"""


def test_four_concurrent_processes_decompress_each_shard_once(root: Path, tmp_path: Path, repository: Path) -> None:
    log = tmp_path / "renames"
    log.touch()
    command = [sys.executable, "-c", READER, str(root), str(log)]
    readers = [subprocess.Popen(command, cwd=repository, stdin=subprocess.PIPE, text=True) for _ in range(4)]
    for reader in readers:  # each waits for a line, so that they start together
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    for reader in readers:
        with reader:
            assert reader.wait(120) == 0
    renamed = log.read_text().split()
    assert sorted(renamed) == cached(root / ".mx8shards" / "cache")
    assert len(renamed) == len(list(root.glob("*.zstd")))


# limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("claim", [8 + 4 + 1, 1000, 4_000_000])
def test_a_shard_that_decompresses_to_another_size_than_the_index_declares_is_refused(
    claim: int, codec: str, tmp_path: Path
) -> None:
    """A million zeros, with a declared size that is too small or too large."""
    root = reference.write_dataset(tmp_path / "data", {"x": "bytes"}, [[{"x": bytes(1_000_000)}]], compression=codec)
    index = reference.read_index(root)
    index["shards"][0]["raw_data"]["bytes"] = claim
    reference.write_index(root, index)
    message = rf"^data/shard\.00000\.mds\.{codec}: expected {claim} bytes when decompressed, got "
    with mx8.Dataset(root) as dataset, pytest.raises(mx8.FormatError, match=message):
        dataset[0]
    assert cached(root / ".mx8shards" / "cache") == []


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("change", ["cut short", "longer", "other"])
def test_a_damaged_compressed_file_is_an_error_that_names_it_and_leaves_no_files(
    change: str, codec: str, tmp_path: Path
) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "bytes"}, [[{"x": b"abc" * 100}]], compression=codec)
    (stored,) = root.glob("shard.*")
    data = stored.read_bytes()
    stored.write_bytes({"cut short": data[:-5], "longer": data + b"12345", "other": b"\xff" * len(data)}[change])
    for tell_truth in (False, True):
        if tell_truth:
            index = reference.read_index(root)
            index["shards"][0]["zip_data"]["bytes"] = stored.stat().st_size
            reference.write_index(root, index)
        with mx8.Dataset(root) as dataset, pytest.raises(mx8.FormatError, match=rf"^data/shard\.00000\.mds\.{codec}: "):
            dataset[0]
    assert cached(root / ".mx8shards") == []


def test_an_invalid_raw_shard_is_refused_after_decompression(tmp_path: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "bytes"}, [[{"x": b"abc"}]])
    reference.write_dataset(tmp_path / "zip", {"x": "bytes"}, [[{"x": b"abc"}]], compression="zstd")
    index = reference.read_index(tmp_path / "zip")
    raw = bytearray((root / "shard.00000.mds").read_bytes())
    raw[0] = 7
    packed = reference.compress("zstd", bytes(raw))
    (tmp_path / "zip" / "shard.00000.mds.zstd").write_bytes(packed)
    index["shards"][0]["raw_data"]["bytes"] = len(raw)
    index["shards"][0]["zip_data"]["bytes"] = len(packed)
    reference.write_index(tmp_path / "zip", index)
    with pytest.raises(mx8.FormatError, match=r"sample count: expected 1 \(the index\), got 7"):
        mx8.Dataset(tmp_path / "zip")[0]


# read-only directories ------------------------------------------------------------------------------------------------

UNPRIVILEGED = """
import os, sys
import mx8shards as mx8
from tests.privileges import give_up_privileges
from tests.strategies import NUMBERED, numbered_samples, same, samples_as_read
give_up_privileges()
os.environ["XDG_CACHE_HOME"] = sys.argv[2]
dataset = mx8.Dataset(sys.argv[1])
"""


@pytest.fixture
def unwritable(root: Path) -> Iterator[Path]:
    everything = [root, *root.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield root
    for path in everything:
        path.chmod(0o755)


def run(code: str, repository: Path, *arguments: Path) -> str:
    command = [sys.executable, "-c", UNPRIVILEGED + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_read_only_datasets_use_the_users_cache_directory(unwritable: Path, tmp_path: Path, repository: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    before = cached(unwritable)
    code = "assert same(list(dataset), samples_as_read(NUMBERED, numbered_samples(60)))\nprint(dataset.snapshot)"
    assert run(code, repository, unwritable, home)
    shards = len(list(unwritable.glob("*.zstd")))
    assert len(cached(home / "mx8shards" / "shards")) == shards
    assert cached(unwritable) == before
    assert run(code, repository, unwritable, home)


def test_without_any_writable_cache_the_error_names_cache_dir(
    unwritable: Path, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "home").mkdir(mode=0o555)
    code = """
try:
    dataset[0]
except mx8.DiskError as error:
    print(error)
"""
    said = run(code, repository, unwritable, tmp_path / "home")
    assert "shard.00000.mds.zstd: no directory can hold the decompressed shard" in said
    assert "Permission denied" in said
    assert "cache_dir=" in said


def test_unreadable_copies_of_another_user_are_decompressed_again(root: Path, tmp_path: Path, repository: Path) -> None:
    list(mx8.Dataset(root))
    for path in (root / ".mx8shards" / "cache").iterdir():
        path.chmod(0)
    code = "assert same(list(dataset), samples_as_read(NUMBERED, numbered_samples(60)))\nprint(dataset.snapshot)"
    assert run(code, repository, root, tmp_path / "home")
    assert len(cached(tmp_path / "home" / "mx8shards" / "shards")) == len(list(root.glob("*.zstd")))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a home")
def test_a_user_without_a_home_directory_uses_the_cache_beside_the_data(
    root: Path, tmp_path: Path, repository: Path
) -> None:
    """As in a container with an arbitrary user id. That user may not read Python's files, so all is imported before."""
    code = f"""
import os
import mx8shards as mx8
from tests.strategies import NUMBERED, numbered_samples, same, samples_as_read
list(mx8.Dataset({str(tmp_path / "other")!r}))
del os.environ["XDG_CACHE_HOME"], os.environ["HOME"]
os.setuid(54321)
assert same(list(mx8.Dataset({str(root)!r})), samples_as_read(NUMBERED, numbered_samples(60)))
"""
    shutil.copytree(root, tmp_path / "other")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o777)
    for path in root.parents:
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o755)
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(cached(root / ".mx8shards" / "cache")) == len(list(root.glob("*.zstd")))


def test_uncompressed_shards_need_no_cache(tmp_path: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "bytes"}, [[{"x": b"abc"}]])
    before = cached(root)
    assert list(mx8.Dataset(root, verify="shard")) == [{"x": b"abc"}]
    assert cached(root) == before


def test_a_wrong_hash_in_an_index_cannot_poison_a_shared_cache(tmp_path: Path) -> None:
    honest, hostile, cache = tmp_path / "honest", tmp_path / "hostile", tmp_path / "cache"
    write(honest, size_limit=None)
    write(hostile, size_limit=None, metadata={"other": True})
    index = json.loads((honest / "index.json").read_bytes())
    (entry,) = index["shards"]
    raw = bytearray(reference.decompress("zstd", (honest / entry["zip_data"]["basename"]).read_bytes()))
    raw[-1] ^= 1
    frame = reference.compress("zstd", bytes(raw)).ljust(entry["zip_data"]["bytes"], b"\0")
    (hostile / entry["zip_data"]["basename"]).write_bytes(frame[: entry["zip_data"]["bytes"]])
    with pytest.raises(mx8.IntegrityError, match="blake3"):
        mx8.Dataset(hostile, cache_dir=cache)[0]
    assert cached(cache) == []
    assert same(list(mx8.Dataset(honest, cache_dir=cache)), WANTED)


@pytest.mark.parametrize("size", [0, 1000])
def test_a_copy_of_wrong_size_is_decompressed_again(size: int, root: Path) -> None:
    assert same(list(mx8.Dataset(root)), WANTED)
    for path in (root / ".mx8shards" / "cache").glob("*.mds"):
        os.truncate(path, size)
    assert same(list(mx8.Dataset(root)), WANTED)
    assert mx8.verify(root, data=True).ok
