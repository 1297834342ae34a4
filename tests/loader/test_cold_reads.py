"""Which bytes are read from files that are not in the page cache, and how many files are open?"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.kernels import memory, turbo
from mx8shards.media.tiles import tile
from tests import pictures
from tests.fast_directory import fast_directory
from tests.jpegs import encoded, noise
from tests.loader.child_process import ChildProcess
from tests.loader.leak_checks import shards, time_limit, write
from tests.page_cache import drop, resident_bytes

SAMPLES, PAYLOAD = 32, 128 << 10


@pytest.fixture(scope="module")
def many() -> Iterator[Path]:
    """A dataset of 400 shards."""
    with fast_directory() as place:
        root = write(place / "data", 400, size_limit=200, hashes=())
        assert len(shards(root)) == 400
        yield root


@pytest.mark.parametrize("io", ["auto", "pread"])
def test_a_batch_may_use_more_shards_than_the_open_file_limit(child_process: ChildProcess, many: Path, io: str) -> None:
    with time_limit():
        child_process.start("few_files", data=str(many), io=io, most=256)
        assert child_process.read_rest() == (["batches 400"] * 2, 0), child_process.errors
    assert child_process.errors == ""


@pytest.mark.skipif(not memory.KNOWS_CACHE, reason="this system does not tell what is cached")
@pytest.mark.parametrize("columns", [["number"], ["head", "number"]], ids=len)
@pytest.mark.parametrize("io", ["auto", "pread", "mmap"])
def test_unselected_columns_are_not_read_from_disk(tmp_path: Path, io: Any, columns: list[str]) -> None:
    kinds = {"blob": "bytes", "head": "bytes", "number": "int"}
    with mx8.Writer(tmp_path, columns=kinds, size_limit=8 * PAYLOAD, threads=1) as writer:
        for i in range(SAMPLES):
            writer.write({"blob": bytes(PAYLOAD), "head": bytes([i]) * 9, "number": i})
    drop(tmp_path)
    if resident_bytes(tmp_path) > SAMPLES * mmap.PAGESIZE:
        pytest.skip("this file system forgets nothing")
    with mx8.Loader(mx8.Dataset(tmp_path), batch_size=8, columns=columns, io=io, threads=2, output="numpy") as loader:
        for batch in loader:
            assert sorted(batch) == columns
            assert np.array_equal(batch["number"], batch.sample_ids)
            if "head" in columns:
                assert [bytes(head) for head in batch["head"]] == [bytes([i]) * 9 for i in batch["number"].tolist()]
    assert resident_bytes(tmp_path) < SAMPLES * PAYLOAD // 4


@pytest.mark.skipif(turbo.library is None, reason="without libturbojpeg, whole payloads are read")
@pytest.mark.skipif(not memory.KNOWS_CACHE, reason="this system does not tell what is cached")
@pytest.mark.parametrize("io", ["auto", "pread", "mmap"])
def test_only_the_tiles_that_crops_touch_are_read_from_disk(tmp_path: Path, io: Any) -> None:
    tiled = [tile(encoded(noise(900, 700, seed), quality=92)) for seed in range(4)]
    crop = mx8.RandomResizedCrop(48, scale=(0.02, 0.05))
    found = []
    for name in ("warm", "cold"):
        pictures.write(tmp_path / name, tiled * 4, size_limit="8mb", hashes=()).close()
        if name == "cold":
            drop(tmp_path / name)
            if resident_bytes(tmp_path / name) > 64 * mmap.PAGESIZE:
                pytest.skip("this file system forgets nothing")
        options: dict[str, Any] = {"batch_size": 8, "decode": {"image": crop}, "threads": 2, "output": "numpy"}
        with mx8.Loader(mx8.Dataset(tmp_path / name), **options, io=io if name == "cold" else "auto") as loader:
            found.append(np.concatenate([batch["image"].copy() for batch in loader]))
    assert np.array_equal(*found)
    assert resident_bytes(tmp_path / "cold") < sum(map(len, tiled * 4)) // 2


@pytest.mark.skipif(not memory.KNOWS_CACHE, reason="this system does not tell what is cached")
@pytest.mark.parametrize("io", ["auto", "pread", "mmap"])
def test_cold_and_cached_reads_give_equal_batches(tmp_path: Path, io: Any) -> None:
    data = write(tmp_path / "data", 60)
    options: dict[str, Any] = {"batch_size": 8, "io": io, "threads": 2, "output": "numpy"}
    with mx8.Loader(mx8.Dataset(data), **options) as loader:
        cached = [(batch["number"].tolist(), batch["blob"].values.tobytes()) for batch in loader]
    drop(data)
    with mx8.Loader(mx8.Dataset(data), **options) as loader:
        assert [(batch["number"].tolist(), batch["blob"].values.tobytes()) for batch in loader] == cached
