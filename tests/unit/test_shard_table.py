"""Are rows copied from the memory map only where that is safe and fast, and read with pread elsewhere?"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.kernels import memory, residency
from mx8shards.kernels.jit import NOTHING, array, kernel
from mx8shards.kernels.records import FAULT, MAPPED, READ, ROW, SHARD, UNKNOWN
from mx8shards.loading.planning import shard_table
from mx8shards.loading.planning.shard_table import IOS, ShardTable, mincore_is_reliable
from tests.fast_directory import FAST_ROOT

WINDOW = residency.WINDOW_BYTES
PAGE = residency.PAGE_BYTES
needs_cache_calls = pytest.mark.skipif(not memory.KNOWS_CACHE, reason="this system does not tell what is cached")


class Files:
    """Mapped files of zeros, with their kernel records."""

    def __init__(self, place: Path, *sizes: int, reliable: bool = False) -> None:
        self.reliable = np.full(len(sizes), reliable)
        self.paths = [place / f"{i}" for i in range(len(sizes))]
        self.descriptors, self.maps = [], []
        self.table = np.zeros(len(sizes), SHARD)
        windows = 0
        for i, (path, size) in enumerate(zip(self.paths, sizes, strict=True)):
            path.write_bytes(bytes(size))
            self.descriptors.append(os.open(path, os.O_RDONLY))
            self.maps.append(np.memmap(path, np.uint8, "r"))
            self.table[i] = (self.maps[i].ctypes.data, 0, size, windows, 0)
            windows += -(-size // WINDOW)
        self.verdicts = np.zeros(windows, np.uint8)
        self.populated = np.zeros(len(self.verdicts), bool)
        self.counts = np.zeros(4, np.int64)

    def rows(self, *spans: tuple[int, int, int]) -> np.ndarray:
        rows = np.zeros(len(spans), ROW)
        for row, (i, begin, end) in zip(rows, spans, strict=True):
            row["shard"], row["begin"], row["end"], row["file"] = i, begin, end, self.descriptors[i]
        return rows

    def choose(self, rows: np.ndarray, cold: int = READ) -> list[int]:
        residency.choose_ways(self.table, rows, self.verdicts, cold, self.counts)
        assert self.counts.tolist() == np.bincount(rows["way"], minlength=4).tolist()
        return list(rows["way"].tolist())

    def judge(self, rows: np.ndarray) -> list[int]:
        self.choose(rows)
        scratch = np.zeros(residency.PROBE_BYTES, np.uint8)
        residency.judge_windows(self.table, self.reliable, rows, scratch, self.populated, self.verdicts)
        return self.choose(rows)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


@pytest.fixture(params=[False, True], ids=["asked twice", "reliable"])
def files(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Files]:
    made = Files(tmp_path, 2 * WINDOW + 10, 3 * PAGE + 5, reliable=request.param)
    yield made
    made.close()


def test_a_row_is_mapped_if_all_of_its_windows_are_cached_and_read_otherwise(files: Files) -> None:
    rows = files.rows(
        (0, 0, 1), (0, WINDOW - 1, WINDOW + 1), (0, WINDOW, 2 * WINDOW), (0, 0, 2 * WINDOW + 10), (1, 9, 10)
    )
    assert files.choose(rows) == [UNKNOWN] * 5
    files.verdicts[:] = [MAPPED, READ, UNKNOWN, MAPPED]
    assert files.choose(rows) == [MAPPED, READ, READ, UNKNOWN, MAPPED]
    files.verdicts[:] = [MAPPED, MAPPED, READ, READ]
    assert files.choose(rows) == [MAPPED, MAPPED, MAPPED, READ, READ]
    assert files.choose(rows, FAULT) == [MAPPED, MAPPED, MAPPED, FAULT, FAULT]


def test_a_row_without_bytes_needs_no_window(files: Files) -> None:
    assert files.choose(files.rows((0, 2 * WINDOW + 10, 2 * WINDOW + 10), (0, 0, 0))) == [MAPPED, MAPPED]


def test_rows_of_unmapped_shards_are_read(files: Files) -> None:
    files.table[1]["base"] = 0
    for cold in (READ, FAULT):
        assert files.choose(files.rows((1, 0, 0), (1, 5, 9)), cold) == [READ, READ]


def test_only_windows_that_rows_need_are_queried(files: Files) -> None:
    assert files.judge(files.rows((0, WINDOW, WINDOW + 1), (1, 0, 3))) == [MAPPED, MAPPED]
    assert files.verdicts.tolist() == [UNKNOWN, MAPPED, UNKNOWN, MAPPED]


def test_the_residency_of_a_window_is_kept_until_it_is_reset(files: Files) -> None:
    rows = files.rows((1, 0, 3))
    files.verdicts[3] = READ
    assert files.judge(rows) == [READ]
    files.verdicts[3] = UNKNOWN
    assert files.judge(rows) == [MAPPED]


@needs_cache_calls
def test_bytes_just_written_are_in_the_page_cache_and_mapped(files: Files) -> None:
    assert files.judge(files.rows((0, 5, 2 * WINDOW + 10), (1, 0, 3 * PAGE + 5))) == [MAPPED, MAPPED]


@needs_cache_calls
@pytest.mark.skipif(FAST_ROOT is None, reason="there is no file system in memory")
def test_a_file_system_in_memory_is_always_cached() -> None:
    """If it does not support RWF_NOWAIT reads, mincore decides."""
    with tempfile.TemporaryDirectory(dir=FAST_ROOT) as place:
        files = Files(Path(place), WINDOW + 5)
        assert files.judge(files.rows((0, 0, WINDOW + 5))) == [MAPPED]
        files.close()


@needs_cache_calls
def test_rows_outside_the_page_cache_are_read(files: Files, tmp_path: Path) -> None:
    for descriptor in files.descriptors:
        os.fsync(descriptor)
    del files.maps[:]
    os.posix_fadvise(files.descriptors[0], 0, 0, os.POSIX_FADV_DONTNEED)
    files.maps.append(np.memmap(files.paths[0], np.uint8, "r"))
    files.table[0]["base"] = files.maps[0].ctypes.data
    pages = np.zeros(WINDOW // PAGE, np.uint8)
    libc = ctypes.CDLL(None)
    libc.mincore(
        ctypes.c_void_p(int(files.table[0]["base"])), ctypes.c_size_t(WINDOW), ctypes.c_void_p(pages.ctypes.data)
    )
    if (pages & 1).any():
        pytest.skip("this file system keeps its pages")
    assert files.judge(files.rows((0, 7, 9), (0, WINDOW, WINDOW + 9))) == [READ, READ]


@needs_cache_calls
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a while")
def test_mincore_is_used_only_where_it_is_reliable() -> None:
    """For users who neither own a file nor may write it, mincore reports all pages as cached."""
    with tempfile.TemporaryDirectory() as place:
        _query_as_nobody(Path(place))


def _query_as_nobody(place: Path) -> None:
    place.chmod(0o755)
    found = {}
    owners = {"root's": (0, 0o644), "nobody's": (65534, 0o444), "everybody's": (0, 0o666)}
    files = Files(place, *([8 * PAGE] * len(owners)))
    for path, descriptor, (uid, mode) in zip(files.paths, files.descriptors, owners.values(), strict=True):
        os.chown(path, uid, -1)
        path.chmod(mode)
        os.fsync(descriptor)
    del files.maps[:]
    for descriptor in files.descriptors:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    maps = [mmap.mmap(descriptor, 8 * PAGE, prot=mmap.PROT_READ) for descriptor in files.descriptors]
    os.seteuid(65534)
    try:
        for name, path, mapped in zip(owners, files.paths, maps, strict=True):
            pages, address = np.zeros(8, np.uint8), np.frombuffer(mapped, np.uint8).ctypes.data
            arguments = ctypes.c_void_p(address), ctypes.c_size_t(8 * PAGE), ctypes.c_void_p(pages.ctypes.data)
            assert ctypes.CDLL(None).mincore(*arguments) == 0
            found[name] = (mincore_is_reliable(path), int(pages.sum()))
    finally:
        os.seteuid(0)
        files.close()
    if any(pages for name, (_, pages) in found.items() if name != "root's"):
        pytest.skip("this file system keeps its pages")
    assert found == {"root's": (False, 8), "nobody's": (True, 0), "everybody's": (True, 0)}


@kernel(NOTHING, array(SHARD), array(ROW), array(np.bool_))
def _populate(shards: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(rows)):
        begin, end = rows[i]["begin"], rows[i]["end"]
        out[i] = residency.populate(shards[rows[i]["shard"]]["base"] + np.uint64(begin), end - begin)


def test_populating_bytes_works_unless_the_file_was_truncated(files: Files) -> None:
    rows = files.rows((0, 7, 9), (0, WINDOW - 1, WINDOW + PAGE), (0, WINDOW + PAGE, WINDOW + PAGE + 1), (1, 0, 0))
    found = np.zeros(4, bool)
    _populate(files.table, rows, found)
    assert found.all()
    os.truncate(files.paths[0], WINDOW + PAGE)
    _populate(files.table, rows, found)
    assert found.tolist() == [True, True, False, True]


def test_a_window_of_a_truncated_file_is_read_without_a_sigbus(files: Files) -> None:
    """Populating a missing page returns an error, where an access would be a SIGBUS."""
    os.truncate(files.paths[0], WINDOW + PAGE)
    assert files.judge(files.rows((0, 0, 9), (0, WINDOW, WINDOW + 9))) == [MAPPED, READ]
    os.truncate(files.paths[1], 0)
    assert files.judge(files.rows((1, 3 * PAGE, 3 * PAGE + 5))) == [READ]


@needs_cache_calls
def test_readahead_is_requested_only_for_rows_that_will_be_read(files: Files) -> None:
    """Readahead affects only the cache, so it must not fail for any spans and descriptors."""
    rows = files.rows((0, 3, 2 * WINDOW), (1, 0, 0), (1, 5, 9), (1, 5, 9))
    rows["way"] = [READ, FAULT, READ, MAPPED]
    rows["file"][2:] = -1
    before = rows.copy()
    residency.advise_samples(rows, 1 << 30)
    assert (rows == before).all()


# tables of a dataset -------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with mx8.Writer(tmp_path / "data", columns={"a": "bytes", "b": "int"}, size_limit=4_000) as writer:
        for i in range(40):
            writer.write({"a": bytes([i]) * 500, "b": i})
    return tmp_path / "data"


@pytest.mark.parametrize("io", IOS)
def test_rows_have_their_spans_and_the_requested_io_mode(io: str, root: Path) -> None:
    dataset = mx8.Dataset(root)
    found = ShardTable(dataset.shards, io)  # type: ignore[arg-type]
    found.begin_epoch()
    rows = found.find(np.array([7, 0, 39, 7]))
    assert rows["sample_id"].tolist() == [7, 0, 39, 7]
    held = found.prepare(rows)
    assert set(rows["way"].tolist()) == {"mmap": {MAPPED}, "pread": {READ}}.get(io, set(rows["way"].tolist()))
    assert bool(held) == (READ in rows["way"])
    for row in rows:
        shard = dataset.shards.open_shard(int(row["shard"]))
        assert shard.size_bytes >= row["end"]
        assert row["end"] - row["begin"] == 4 + 500 + 8
        assert shard.data[row["begin"] + 4 + 500 - 1] == row["sample_id"]


def test_each_epoch_checks_every_file_again(root: Path) -> None:
    found = ShardTable(mx8.Dataset(root).shards, "mmap")
    found.begin_epoch()
    found.prepare(found.find(np.arange(40)))
    path = root / "shard.00000.mds"
    os.truncate(path, path.stat().st_size - 1)
    found.find(np.arange(40))  # within an epoch nothing is checked twice
    found.begin_epoch()
    with pytest.raises(mx8.FormatError, match=r"data/shard\.00000\.mds: expected .* as when it was opened"):
        found.find(np.arange(40))


def test_shards_are_opened_only_when_one_of_their_samples_is_needed(root: Path) -> None:
    for path in sorted(root.glob("*.mds"))[1:]:
        path.unlink()
    found = ShardTable(mx8.Dataset(root).shards, "auto")
    found.begin_epoch()
    found.prepare(found.find(np.arange(3)))
    with pytest.raises(mx8.DatasetNotFoundError, match=r"shard\.00005\.mds"):
        found.find(np.array([39]))


def test_the_time_in_which_evicted_files_are_provided_is_not_that_of_opening_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = mx8.Dataset(root).shards
    found = ShardTable(shards, "pread")
    found.begin_epoch()
    rows = found.find(np.arange(3))
    now = 0.0

    def provide(numbers: Iterable[int]) -> dict[int, Exception]:
        nonlocal now
        now += 100
        return {}

    monkeypatch.setattr(shard_table, "clock", lambda: now)
    monkeypatch.setattr(shards, "awaits", lambda i: "unpack")
    before_s = found.files_s
    found.prepare(rows, provide=provide)
    assert (now, found.files_s) == (100, before_s)
