"""Are samples that come next read from the disk, and only these, and only if they are not in memory?"""

from __future__ import annotations

import gc
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mx8shards.disk.map import ReadFile
from mx8shards.kernels import memory
from mx8shards.streaming import MDSWriter, StreamingDataset
from mx8shards.streaming.reading_ahead import read_ahead
from tests.forked import forked
from tests.page_cache import drop, resident_bytes

COUNT, WINDOW = 4096, 128 << 10
PATIENCE_S = 60


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 16 MiB in four shards."""
    root = tmp_path_factory.mktemp("cold")
    with MDSWriter(out=str(root), columns={"x": "ndarray:int32:1024"}, size_limit="4200kb") as writer:
        for i in range(COUNT):
            writer.write({"x": np.full(1024, i, np.int32)})
    return root


@pytest.fixture
def cold(written: Path) -> Path:
    """The dataset, none of which is in memory."""
    if not memory.KNOWS_CACHE:
        pytest.skip("this system does not tell what is cached")
    gc.collect()  # pages that a dataset has mapped stay
    drop(written)
    if resident_bytes(written):
        pytest.skip("this file system forgets nothing")
    return written


def wait_until_resident(root: Path, size_bytes: int) -> None:
    """Wait until the disk has read at least this many bytes."""
    deadline = time.monotonic() + PATIENCE_S
    while resident_bytes(root) < size_bytes:
        assert time.monotonic() < deadline, (resident_bytes(root), size_bytes)
        time.sleep(0.01)


def test_the_disk_reads_the_windows_of_these_samples_and_little_else(cold: Path) -> None:
    dataset = StreamingDataset(local=str(cold))
    ids = np.array([40, 41, 1500, 2600, -1, 4000])  # windows of about 32 samples
    read_ahead(dataset._samples, ids)
    wait_until_resident(cold, 4 * WINDOW)
    assert resident_bytes(cold) < COUNT * 4096 // 2  # also the shards' offset tables, and what Linux reads after these


@pytest.mark.parametrize("overrides", [False, True])
def test_an_iteration_has_the_disk_read_what_comes_next(cold: Path, overrides: bool) -> None:
    class Mine(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            return super().__getitem__(at)["x"][0]

    dataset = (Mine if overrides else StreamingDataset)(
        local=str(cold), batch_size=8, shuffle=True, shuffle_algo="py1s"
    )
    samples = iter(dataset)
    next(samples)
    wait_until_resident(cold, 2048 * 4096)  # those of the first two runs; one page fault reads less
    assert sum(1 for _ in samples) == COUNT - 1


def test_what_is_in_memory_is_not_asked_for(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    prefetch = ReadFile.prefetch

    def counted(file: ReadFile, begin: int, size_bytes: int) -> None:
        asked.append(size_bytes)
        prefetch(file, begin, size_bytes)

    monkeypatch.setattr(ReadFile, "prefetch", counted)
    dataset = StreamingDataset(local=str(cold))
    dataset.__getitems__(list(range(0, COUNT, 40)))
    assert asked
    assert set(asked) == {WINDOW}
    for path in cold.glob("*.mds"):
        path.read_bytes()
    asked.clear()
    dataset.__getitems__(list(range(COUNT)))
    assert sum(1 for _ in dataset) == COUNT
    assert not asked


def test_an_error_is_left_to_the_reader(written: Path, tmp_path: Path) -> None:
    for path in written.iterdir():
        if path.is_file():
            os.link(path, tmp_path / path.name)
    (tmp_path / "shard.00001.mds").unlink()
    dataset = StreamingDataset(local=str(tmp_path))
    read_ahead(dataset._samples, np.arange(COUNT))
    with pytest.raises(Exception, match=r"shard\.00001\.mds"):
        dataset[1500]
    assert dataset[0]["x"][0] == 0


def test_a_shard_that_was_truncated_does_not_end_the_process(written: Path, tmp_path: Path) -> None:
    """Of datasets with many samples, offset tables are mapped. Reading a mapping beyond the end of its file ends it."""
    for path in (*written.glob("*.mds"), written / "index.json"):
        shutil.copy(path, tmp_path)
    dataset = StreamingDataset(local=str(tmp_path))
    dataset._samples.streams[0].shards._files.table_room = 0  # type: ignore[attr-defined]
    read_ahead(dataset._samples, np.arange(COUNT))
    for path in tmp_path.glob("*.mds"):
        os.truncate(path, 0)
    assert os.waitpid(forked(lambda: read_ahead(dataset._samples, np.arange(COUNT))), 0)[1] == 0
    with pytest.raises(Exception, match=r"shard\.00000\.mds"):
        dataset[0]


def test_no_samples_and_empty_ones_are_nothing_to_read(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path), columns={"x": "bytes"}) as writer:
        for _ in range(20):
            writer.write({"x": b""})
    dataset = StreamingDataset(local=str(tmp_path))
    read_ahead(dataset._samples, np.zeros(0, np.int64))
    assert [sample["x"] for sample in dataset] == [b""] * 20
