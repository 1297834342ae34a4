"""Are files memory-mapped and read correctly?"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mx8shards.disk.map import ReadFile, map_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 100)
    return tmp_path / "file"


def maps_of(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def descriptors_of(path: Path) -> int:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link) == str(path) for link in links if link.is_symlink())


def test_a_map_is_read_only_and_needs_no_descriptor(path: Path) -> None:
    file = ReadFile(path)
    data = map_file(file.descriptor, file.size_bytes)
    del file
    assert descriptors_of(path) == 0
    assert bytes(data) == path.read_bytes()
    assert not data.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        data.setflags(write=True)
    with pytest.raises((ValueError, TypeError)):
        data.data[0] = 1


def test_a_map_is_unmapped_with_its_last_view(path: Path) -> None:
    file = ReadFile(path)
    data = map_file(file.descriptor, file.size_bytes)
    view = data[100:].view("<u2")[::2].data
    assert maps_of(path) == 1
    del data
    gc.collect()
    assert maps_of(path) == 1
    assert view[0] == int.from_bytes(path.read_bytes()[100:102], "little")
    del view
    gc.collect()
    assert maps_of(path) == 0


def test_reads_beyond_the_end_are_shortened(path: Path) -> None:
    file = ReadFile(path)
    whole = path.read_bytes()
    assert file.size_bytes == len(whole) == 25_600
    assert file.read(0, 10) == whole[:10]
    assert file.read(25_590, 100) == whole[-10:]
    assert file.read(30_000, 5) == b""
    assert file.read(7, 0) == b""
    os.truncate(path, 100)
    assert (file.size_bytes, file.read(90, 20)) == (100, whole[90:100])


def test_a_read_file_is_closed_with_its_last_reference(path: Path) -> None:
    file = ReadFile(path)
    assert descriptors_of(path) == 1
    del file
    assert descriptors_of(path) == 0
    with pytest.raises(FileNotFoundError):
        ReadFile(path.with_name("nothing"))


def test_a_read_file_does_not_follow_symlinks(path: Path) -> None:
    path.with_name("link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        ReadFile(path.with_name("link"))


def test_a_failing_mmap_is_a_disk_error(tmp_path: Path, repository: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(8 << 30)
    code = f"""
import numpy
from mx8shards.disk.map import ReadFile, map_file
from mx8shards.errors import DiskError
from tests.property.mutations import limit_memory
limit_memory()
file = ReadFile({str(tmp_path / "huge")!r})
try:
    map_file(file.descriptor, file.size_bytes)
except DiskError as error:
    print(error, error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.stdout == "map failed: Cannot allocate memory 12\n", done.stderr


def test_arrays_of_a_map_can_be_shared_by_threads_and_views(path: Path) -> None:
    file = ReadFile(path)
    data = map_file(file.descriptor, file.size_bytes)
    assert np.shares_memory(data, np.frombuffer(data.data, np.uint8))
    assert not np.shares_memory(data, map_file(file.descriptor, file.size_bytes))
