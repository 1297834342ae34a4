"""Do the kernels find and copy just the bytes that the slow, obvious reader finds?"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.format.columns import Columns
from mx8shards.kernels import gather
from mx8shards.kernels.jit import kernel
from mx8shards.shards.open_shard import Shards
from tests import reference

COLUMNS = {"a": "bytes", "b": "int", "c": "str", "d": "ndarray:uint16:3", "e": "bytes"}
SIZES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=40)


def write(root: Path, sizes: list[tuple[int, int, int]]) -> Shards:
    with mx8.Writer(root, columns=COLUMNS, size_limit=2_000) as writer:
        for number, (a, c, e) in enumerate(sizes):
            row = np.array([number, a, c], np.uint16)
            writer.write({"a": os.urandom(a), "b": number, "c": "é" * c, "d": row, "e": bytes([number]) * e})
    return mx8.Dataset(root)._door


def layout(columns: Columns) -> np.ndarray:
    rows = []
    for number, size in enumerate(columns.sizes):
        before = columns.sizes[:number]
        rows.append((sum(s for s in before if s), sum(s is None for s in before), -1 if size is None else size))
    return np.array(rows, np.int64)


class Batch:
    """Samples by shard and row, and where the kernels say that their columns lie."""

    def __init__(self, shards: Shards, sample_ids: np.ndarray) -> None:
        opened = [shards.open_shard(i) for i in range(shards.count)]
        self.maps = [shard.data for shard in opened]  # keeps the addresses valid
        self.bases = np.array([data.ctypes.data for data in self.maps], np.uint64)
        self.shards = np.searchsorted(shards.starts, sample_ids, side="right") - 1
        self.rows = sample_ids - shards.starts[self.shards]
        columns = opened[0].columns
        count, wide = len(sample_ids), len(columns.names)
        self.begins, self.ends = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.payload_begins, self.payload_sizes = np.zeros((count, wide), np.int64), np.zeros((count, wide), np.int64)
        self.status = np.full(count, 255, np.uint8)
        half = count // 2
        for start, stop in ((0, half), (half, count)):  # two ranges of rows, as two threads would take them
            gather.sample_spans(self.bases, self.shards, self.rows, start, stop, self.begins, self.ends)
            gather.payload_spans(
                *(self.bases, self.shards, self.begins, self.ends, columns.variable, columns.fixed_bytes),
                *(layout(columns), start, stop, self.payload_begins, self.payload_sizes, self.status),
            )

    def payloads(self, column: int) -> list[bytes]:
        sizes = np.ascontiguousarray(self.payload_sizes[:, column])
        begins = np.ascontiguousarray(self.payload_begins[:, column])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        out = np.full(offsets[-1] + 1, 171, np.uint8)
        half = len(sizes) // 2
        for start, stop in ((0, half), (half, len(sizes))):
            gather.copy_payloads(self.bases, self.shards, begins, sizes, offsets, start, stop, out)
        assert out[-1] == 171  # nothing was written beyond the last row
        return [out[a:b].tobytes() for a, b in pairwise(offsets)]


@settings(max_examples=20)  # each writes a dataset
@given(sizes=SIZES, seed=st.integers(0, 1_000))
def test_gathered_payloads_are_those_of_the_obvious_reader(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int, int]], seed: int
) -> None:
    root = tmp_path_factory.mktemp("gather") / "data"
    shards = write(root, sizes)
    wanted = reference.read_dataset(root)
    ids = np.random.default_rng(seed).integers(0, len(sizes), 2 * len(sizes))
    batch = Batch(shards, ids)
    assert not batch.status.any()
    for column, name in enumerate(sorted(COLUMNS)):
        assert batch.payloads(column) == [wanted[i][name] for i in ids]


def test_a_sample_whose_sizes_do_not_add_up_gets_a_status_and_no_bytes(tmp_path: Path) -> None:
    shards = write(tmp_path / "data", [(10, 1, 2), (20, 2, 3), (30, 3, 4)])
    path = tmp_path / "data" / "shard.00000.mds"
    data = bytearray(path.read_bytes())
    begin = int(shards.open_shard(0).table[1])
    data[begin] += 1  # sample 1 claims one byte more in column a
    path.write_bytes(data)
    batch = Batch(shards, np.arange(3))
    assert batch.status.tolist() == [gather.OK, gather.SIZES_DIFFER, gather.OK]
    assert batch.payload_sizes[1].tolist() == [0] * len(COLUMNS)
    assert batch.payloads(0)[1] == b""


def test_sizes_that_would_add_up_in_32_bits_are_refused(tmp_path: Path) -> None:
    shards = write(tmp_path / "data", [(8, 0, 8)])
    path = tmp_path / "data" / "shard.00000.mds"
    data = bytearray(path.read_bytes())
    begin = int(shards.open_shard(0).table[0])
    data[begin : begin + 4] = (0xFFFFFFFF).to_bytes(4, "little")
    data[begin + 8 : begin + 12] = (17).to_bytes(4, "little")
    path.write_bytes(data)
    assert Batch(shards, np.arange(1)).status.tolist() == [gather.SIZES_DIFFER]


def test_a_second_process_finds_the_compiled_kernels(tmp_path: Path, repository: Path) -> None:
    script = """
import numpy as np
from mx8shards.kernels import gather
empty = np.zeros(0, np.int64)
gather.sample_spans(np.zeros(0, np.uint64), empty, empty, 0, 0, empty, empty)
print(sum(gather.sample_spans.stats.cache_hits.values()))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    run = [sys.executable, "-c", script]
    hits = [subprocess.run(run, env=environment, cwd=repository, check=True, capture_output=True) for _ in range(2)]
    assert [int(done.stdout) for done in hits] == [0, 1]


@kernel
def _reads_beyond(values: np.ndarray, out: np.ndarray) -> None:
    out[0] = values[len(values) + out[0]]


@pytest.mark.skipif("NUMBA_BOUNDSCHECK" not in os.environ, reason="runs in the process below")
def test_a_kernel_that_reads_out_of_bounds_raises() -> None:
    with pytest.raises(IndexError):
        _reads_beyond(np.zeros(3, np.int64), np.zeros(1, np.int64))


@pytest.mark.skipif("NUMBA_BOUNDSCHECK" in os.environ, reason="this is that process")
def test_the_kernels_pass_under_bounds_checking(tmp_path: Path, repository: Path) -> None:
    # a cache of its own: a warm one ignores the switch, and the checked code would stay in it
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(run, env=environment, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "5 passed, 1 skipped" in done.stdout
