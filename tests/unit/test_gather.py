"""Do the gather kernels find and copy the bytes that the reference reader finds?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.errors import FormatError
from mx8shards.format.arrays import CODES, DynamicArray
from mx8shards.format.columns import MAX_BYTES, Columns
from mx8shards.format.encodings import get_encoding
from mx8shards.kernels import gather, memory
from mx8shards.kernels.jit import INT, MEMORY, NOTHING, array, kernel
from mx8shards.kernels.records import (
    MAPPED,
    OK,
    OUT_OF_SHARD,
    READ,
    READ_FAILED,
    REFUSED,
    ROW,
    SHARD,
    SIZES_DIFFER,
    SPAN,
)
from mx8shards.shards.open_shard import Shards
from tests import reference
from tests.fast_directory import FAST_ROOT

Array = np.ndarray[Any, Any]

COLUMNS = {"a": "bytes", "b": "int", "c": "str", "d": "ndarray:uint16:3", "e": "bytes"}
MORE = {"B": "bytes", "Z": "uint8", "aa": "float32", "cc": "bytes"}  # columns that only the second dataset has
SIZES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=40)
WANTED = st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True).map(sorted)
WAYS = pytest.mark.parametrize("way", [MAPPED, READ], ids=["mapped", "read"])


def write(root: Path, sizes: list[tuple[int, int, int]], more: Sequence[str] = ()) -> Path:
    extra: dict[str, Any] = {"B": b"before", "Z": 7, "aa": 0.5, "cc": b""}
    columns = COLUMNS | {name: MORE[name] for name in more}
    with mx8.Writer(root, columns=columns, size_limit=2_000, threads=1) as writer:
        for number, (a, c, e) in enumerate(sizes):
            row = np.array([number, a, c], np.uint16)
            sample = {"a": os.urandom(a), "b": number, "c": "é" * c, "d": row, "e": bytes([number]) * e}
            writer.write(sample | {name: extra[name] for name in more})
    return root


def layout(columns: Columns, wanted: Sequence[str]) -> list[tuple[int, int, int]]:
    """The rows of the kernels' layout table: for each wanted column, what precedes it in a sample, and its size."""
    lines = []
    for name in wanted:
        number = columns.names.index(name)
        before, size = columns.sizes[:number], columns.sizes[number]
        lines.append((sum(s for s in before if s), sum(s is None for s in before), -1 if size is None else size))
    return lines


class KernelRecords:
    """The opened shards of some datasets as kernel records; each dataset has its own layout."""

    def __init__(self, *roots: Path) -> None:
        snapshots = [s for root in roots for s in mx8.Dataset(root).shards.snapshots]
        self.shards = Shards(snapshots, verify="structure", cache_dir=None)
        self.opened = [self.shards.open_shard(i) for i in range(self.shards.count)]
        self.files = [shard.open_file() for shard in self.opened]
        self.heads = [np.array(shard.head(mapped=False)) for shard in self.opened]
        self.table = np.zeros(self.shards.count, SHARD)
        self.kinds: list[Columns] = []
        for i, shard in enumerate(self.opened):
            if shard.columns not in self.kinds:
                self.kinds.append(shard.columns)
            kind = self.kinds.index(shard.columns)
            self.table[i] = (shard.data.ctypes.data, self.heads[i].ctypes.data, shard.size_bytes, 0, kind)

    def gather(
        self, sample_ids: Array, wanted: Sequence[str], way: int, *, parts: int = 2, large_bytes: int = MAX_BYTES
    ) -> Gathered:
        """Gather a batch of these samples in parts, as several threads would."""
        found = Gathered(np.zeros(len(sample_ids), ROW), np.zeros((len(sample_ids), len(wanted)), SPAN))
        gather.locate(self.shards.starts, sample_ids, found.rows)
        gather.sample_spans(self.table, found.rows)
        found.rows["way"] = way
        found.rows["file"] = [self.files[i].descriptor for i in found.rows["shard"]]
        kinds = np.array([(kind.variable, kind.fixed_bytes) for kind in self.kinds], np.int64)
        layouts = np.array([layout(kind, wanted) for kind in self.kinds], np.int64)
        header = np.zeros(max(kind.header_bytes for kind in self.kinds), np.uint8)
        totals = np.full(len(wanted), -1, np.int64)
        gather.payload_spans(self.table, kinds, layouts, header, found.rows, found.spans, totals)
        assert totals.tolist() == found.spans["size"].sum(axis=0).tolist()
        self._copy(found, wanted, totals, parts, large_bytes)
        return found

    def _copy(self, found: Gathered, wanted: Sequence[str], totals: Array, parts: int, large_bytes: int) -> None:
        """Copy into one array per column, with guard bytes after the last row."""
        count = len(found.rows)
        sizes = [reference.fixed_size(COLUMNS[name]) for name in wanted]
        values = [
            np.full((count * s if s else total) + 1, 171, np.uint8) for s, total in zip(sizes, totals, strict=True)
        ]
        offsets = [np.full(count + 1, -7, np.int64) for _ in wanted]
        lines = [
            (number, values[number].ctypes.data, 0 if size else offsets[number].ctypes.data, size or 0)
            for number, size in enumerate(sizes)
        ]
        targets = np.array(lines, np.int64)
        gather.write_offsets(found.spans, targets)
        bounds = [count * part // parts for part in range(parts + 1)]
        for start, stop in reversed(list(pairwise(bounds))):
            gather.copy_payloads(self.table, found.spans, targets, start, stop, large_bytes, found.rows)
        for name, size, column, ends in zip(wanted, sizes, values, offsets, strict=True):
            assert column[-1] == 171  # nothing was written beyond the last row
            ends = np.arange(count + 1) * size if size else ends
            found.payloads[name] = [column[ends[i] : ends[i + 1]].tobytes() for i in range(count)]


class Gathered:
    """Rows, spans and payloads of one batch."""

    def __init__(self, rows: Array, spans: Array) -> None:
        self.rows = rows
        self.spans = spans
        self.payloads: dict[str, list[bytes]] = {}

    @property
    def status(self) -> list[int]:
        return list(self.rows["status"].tolist())


@settings(max_examples=25)  # each writes two datasets
@given(
    sizes=st.tuples(SIZES, SIZES), wanted=WANTED, more=st.sets(st.sampled_from(sorted(MORE))), seed=st.integers(0, 99)
)
def test_gathered_payloads_equal_those_of_the_reference_reader(
    tmp_path_factory: pytest.TempPathFactory, sizes: Any, wanted: list[str], more: set[str], seed: int
) -> None:
    place = Path(FAST_ROOT or tmp_path_factory.getbasetemp()) / f"gather-{os.getpid()}"
    try:
        roots = [write(place / "one", sizes[0]), write(place / "two", sizes[1], sorted(more))]
        samples = [sample for root in roots for sample in reference.read_dataset(root)]
        known = KernelRecords(*roots)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    ids = np.random.default_rng(seed).integers(0, len(samples), 2 * len(samples))
    for way, large_bytes in ((MAPPED, MAX_BYTES), (MAPPED, 20), (READ, MAX_BYTES)):
        found = known.gather(ids, wanted, way, parts=1 + seed % 3, large_bytes=large_bytes)
        assert set(found.status) == {OK}
        for name in wanted:
            assert found.payloads[name] == [samples[i][name] for i in ids]


@kernel(NOTHING, MEMORY, MEMORY, INT)
def _copy_past_caches(to: Array, source: Array, size: int) -> None:
    memory.copy_past_caches(np.uint64(to.ctypes.data), np.uint64(source.ctypes.data), np.uint64(size))
    memory.wait_for_copies()


def array_payloads(encoding: str) -> st.SearchStrategy[bytes]:
    """Payloads of arrays, many of them with one byte changed or truncated."""
    dtype = st.sampled_from([encoding.partition(":")[2] or name for name in CODES])
    shape = st.lists(st.sampled_from([1, 2, 3, 70, 300]), min_size=1, max_size=3).filter(lambda s: np.prod(s) < 5_000)
    whole = st.tuples(dtype, shape).map(lambda made: get_encoding(encoding).encode(np.zeros(made[1], made[0])))
    changed = st.tuples(whole, st.integers(0, 6), st.integers(0, 255)).map(
        lambda made: made[0][: made[1]] + bytes([made[2]]) + made[0][made[1] + 1 :]
    )
    return whole | changed | st.tuples(whole, st.integers(0, 8)).map(lambda made: made[0][: made[1]]) | st.binary()


@pytest.mark.parametrize("encoding", ["ndarray", "ndarray:uint8", "ndarray:uint16", "ndarray:float64"])
@settings(max_examples=200)
@given(data=st.data())
def test_array_headers_are_refused_exactly_where_the_codec_refuses_the_payload(
    encoding: str, data: st.DataObject
) -> None:
    codec = get_encoding(encoding)
    assert isinstance(codec, DynamicArray)
    payloads = data.draw(st.lists(array_payloads(encoding), min_size=1, max_size=6))
    values = np.frombuffer(b"".join(payloads) + b"\0", np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(payload) for payload in payloads])]).astype(np.int64)
    rows = np.zeros(len(payloads), ROW)
    itemsize = np.dtype(codec.dtype_name).itemsize if codec.dtype_name else 0
    gather.check_arrays(values.ctypes.data, offsets.ctypes.data, itemsize, 0, len(rows), rows)
    for payload, row in zip(payloads, rows, strict=True):
        try:
            codec.decode(payload)
        except FormatError:
            assert row["status"] == REFUSED
        else:
            assert row["status"] == OK


@given(to=st.integers(0, 127), source=st.integers(0, 127), size=st.integers(0, 500))
def test_copies_that_bypass_the_cpu_caches_are_exact(to: int, source: int, size: int) -> None:
    given_bytes = np.random.default_rng(size).integers(0, 256, 700, dtype=np.uint8)
    found = np.full(700, 171, np.uint8)
    _copy_past_caches(found[to:], given_bytes[source:], size)
    assert found.tolist() == [171] * to + given_bytes[source : source + size].tolist() + [171] * (700 - to - size)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.data())
def test_every_sample_is_located_in_its_shard(counts: list[int], data: st.DataObject) -> None:
    """Also with empty shards, which contain no sample."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    if not starts[-1]:
        return
    ids = np.array(data.draw(st.lists(st.integers(0, int(starts[-1]) - 1), max_size=12)), np.int64)
    rows = np.zeros(len(ids), ROW)
    gather.locate(starts, ids, rows)
    for row, sample_id in zip(rows, ids, strict=True):
        assert row["sample_id"] == sample_id
        assert starts[row["shard"]] + row["begin"] == sample_id
        assert 0 <= row["begin"] < counts[row["shard"]]


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=5))
def test_unseen_shards_are_listed_once_per_mark(batches: list[list[int]]) -> None:
    marks, count, out = np.zeros(6, np.int64), np.zeros(1, np.int64), np.zeros(6, np.int64)
    for mark in (1, 2):
        seen: set[int] = set()
        for batch in batches:
            rows = np.zeros(len(batch), ROW)
            rows["shard"] = batch
            gather.list_unseen(rows, mark, marks, count, out)
            assert out[: count[0]].tolist() == [i for i in dict.fromkeys(batch) if i not in seen]
            seen |= set(batch)


FIXED = {"b": "int", "d": "ndarray:uint16:3", "u": "uint8"}


@given(
    wanted=st.lists(st.sampled_from(sorted(FIXED)), min_size=1, unique=True),
    statuses=st.lists(st.sampled_from([OK, OK, OUT_OF_SHARD]), max_size=20),
    changes=st.lists(st.sampled_from([0, 0, -1, 1, 1 << 40]), max_size=20),
)
def test_spans_of_columns_of_fixed_size_are_found_without_reading_samples(
    wanted: list[str], statuses: list[int], changes: list[int]
) -> None:
    columns = Columns.of(FIXED)
    shards = np.zeros(2, SHARD)  # nothing is mapped, so an access would be a SIGSEGV
    shards["kind"] = [1, 0]
    kinds = np.array([(0, 999), (columns.variable, columns.fixed_bytes)], np.int64)
    layouts = np.array([layout(columns, wanted)] * 2, np.int64)
    rows = np.zeros(min(len(statuses), len(changes)), ROW)
    rows["status"] = statuses[: len(rows)]
    rows["begin"] = 50 + 15 * np.arange(len(rows))
    rows["end"] = rows["begin"] + columns.fixed_bytes + changes[: len(rows)]
    found = []
    for fixed in (False, True):
        mine, spans, totals = rows.copy(), np.zeros((len(rows), len(wanted)), SPAN), np.zeros(len(wanted), np.int64)
        if fixed:
            gather.fixed_spans(shards, kinds, layouts, mine, spans, totals)
        else:
            gather.payload_spans(shards, kinds, layouts, np.empty(0, np.uint8), mine, spans, totals)
        sample_ids, bad = np.zeros(len(rows), np.int64), np.zeros(1, np.int64)
        gather.count_failed(mine, sample_ids, bad)
        assert bad[0] == np.count_nonzero(mine["status"])
        found.append((mine.tolist(), spans.tolist(), totals.tolist()))
    assert found[0] == found[1]
    assert all((row["status"] == OK) == (s == OK and not c) for row, s, c in zip(mine, statuses, changes, strict=False))


# changed and damaged data --------------------------------------------------------------------------------------------


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Overwrite the file in place, so that the map and the open file change."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A dataset of three samples in one shard."""
    return write(tmp_path / "data", [(10, 1, 2), (20, 2, 3), (30, 3, 4)]) / "shard.00000.mds"


def sample_offsets(path: Path) -> list[int]:
    return np.frombuffer(path.read_bytes()[4:20], "<u4").tolist()


@WAYS
@pytest.mark.parametrize("change", [1, 255], ids=["one more", "many more"])
def test_a_sample_with_inconsistent_sizes_gets_a_status_and_no_bytes(way: int, change: int, shard: Path) -> None:
    known = KernelRecords(shard.parent)
    wanted = reference.read_dataset(shard.parent)
    at = sample_offsets(shard)[1]
    overwrite(shard, at, bytes([(shard.read_bytes()[at] + change) % 256]))  # sample 1 claims other bytes in column a
    found = known.gather(np.arange(3), sorted(COLUMNS), way)
    assert found.status == [OK, SIZES_DIFFER, OK]
    assert found.spans["size"][1].tolist() == [0] * len(COLUMNS)
    assert found.payloads["a"] == [wanted[0]["a"], b"", wanted[2]["a"]]
    assert found.payloads["e"] == [wanted[0]["e"], b"", wanted[2]["e"]]


@WAYS
def test_sizes_that_add_up_only_modulo_32_bits_are_refused(way: int, tmp_path: Path) -> None:
    shard = write(tmp_path / "data", [(8, 0, 8)]) / "shard.00000.mds"
    known = KernelRecords(shard.parent)
    begin = int(np.frombuffer(shard.read_bytes()[4:8], "<u4")[0])
    overwrite(shard, begin, (0xFFFFFFFF).to_bytes(4, "little"))
    overwrite(shard, begin + 8, (17).to_bytes(4, "little"))
    assert known.gather(np.arange(1), sorted(COLUMNS), way).status == [SIZES_DIFFER]


@WAYS
@pytest.mark.parametrize("begin", [0xFFFFFFFF, 1 << 31, None], ids=["the most", "half", "beyond the end by one"])
def test_an_offset_that_changed_after_the_check_gets_a_status(way: int, begin: int | None, shard: Path) -> None:
    """With many shards the table stays mapped instead of copied, so the file may change after the check."""
    known = KernelRecords(shard.parent)
    head = known.heads[0][4:20].view(np.uint32)
    head[1] = begin or shard.stat().st_size + 1
    found = known.gather(np.arange(3), sorted(COLUMNS), way)
    assert found.status == [OUT_OF_SHARD, OUT_OF_SHARD, OK]
    assert found.spans["size"][:2].tolist() == [[0] * len(COLUMNS)] * 2
    assert [found.rows[1]["begin"], found.rows[1]["end"]] == [0, 0]


@WAYS
def test_a_sample_too_short_for_its_size_header_gets_a_status(way: int, shard: Path) -> None:
    known = KernelRecords(shard.parent)
    head = known.heads[0][4:20].view(np.uint32)
    head[1] = head[0] + 11  # of three sizes, four bytes each
    assert known.gather(np.arange(1), ["a"], way).status == [SIZES_DIFFER]
    head[1] = head[0]
    assert known.gather(np.arange(1), ["a"], way).status == [SIZES_DIFFER]


@pytest.mark.parametrize("left", [0, 1, 4, 14], ids="{} bytes of the sample left".format)
def test_reading_a_truncated_file_gives_a_status(left: int, shard: Path) -> None:
    """With a map it would be a SIGBUS, which is why maps are populated before access."""
    known = KernelRecords(shard.parent)
    wanted = reference.read_dataset(shard.parent)
    os.truncate(shard, sample_offsets(shard)[2] + left)
    found = known.gather(np.arange(3), sorted(COLUMNS), READ)
    assert found.status == [OK, OK, READ_FAILED]
    assert found.payloads["a"][:2] == [wanted[0]["a"], wanted[1]["a"]]


def test_reading_an_unreadable_descriptor_gives_a_status(shard: Path) -> None:
    known = KernelRecords(shard.parent)
    rows, spans = known.gather(np.arange(3), ["a"], READ).rows, np.zeros((3, 1), SPAN)
    values, offsets = np.full(99, 171, np.uint8), np.zeros(4, np.int64)
    spans["size"] = 10
    rows["status"] = [OK, SIZES_DIFFER, OK]
    rows["file"] = [-1, -1, known.files[0].descriptor]
    targets = np.array([(0, values.ctypes.data, offsets.ctypes.data, 0)], np.int64)
    gather.write_offsets(spans, targets)
    assert offsets.tolist() == [0, 10, 20, 30]
    gather.copy_payloads(known.table, spans, targets, 0, 3, MAX_BYTES, rows)
    assert rows["status"].tolist() == [READ_FAILED, SIZES_DIFFER, OK]
    assert values[10:20].tolist() == [171] * 10  # a row that is not OK is not read
    assert values[20:30].tobytes() == shard.read_bytes()[:10]


@settings(max_examples=60)
@given(data=st.data())
def test_no_tables_or_headers_make_kernels_read_beyond_the_shard(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The result is a status, or spans inside the shard. Other spans would read foreign memory."""
    place = Path(FAST_ROOT or tmp_path_factory.getbasetemp()) / f"hostile-{os.getpid()}"
    try:
        shard = write(place, [(10, 1, 2), (20, 2, 3), (30, 3, 4)]) / "shard.00000.mds"
        known = KernelRecords(place)
        size = shard.stat().st_size
        head = known.heads[0][4:20].view(np.uint32)
        word = st.sampled_from([0, 1, 4, size - 1, size, size + 1, 1 << 31, (1 << 32) - 1]) | st.integers(0, size)
        for at in data.draw(st.lists(st.integers(0, 3), max_size=4)):
            head[at] = data.draw(word)
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, (size - 4) // 4)) * 4
            overwrite(shard, at, data.draw(word).to_bytes(4, "little"))
        bytes_now = shard.read_bytes()
        for way in (MAPPED, READ):
            found = known.gather(np.array([0, 1, 2, 1]), sorted(COLUMNS), way)
            for row, spans in zip(found.rows, found.spans, strict=True):
                if row["status"] == OK:
                    assert (row["begin"] <= spans["begin"]).all()
                    assert (spans["begin"] + spans["size"] <= row["end"]).all()
                    assert row["end"] <= size
                else:
                    assert not spans["size"].any()
            for number, name in enumerate(sorted(COLUMNS)):
                for i, (begin, length) in enumerate(found.spans[:, number].tolist()):
                    if found.status[i] == OK:
                        assert found.payloads[name][i] == bytes_now[begin : begin + length]
    finally:
        shutil.rmtree(place, ignore_errors=True)


# compilation ---------------------------------------------------------------------------------------------------------


def test_a_second_process_uses_the_cached_kernels(tmp_path: Path, repository: Path) -> None:
    script = """
import numpy as np
from mx8shards.kernels import feistel, gather
print(sum(kernel.load() for kernel in (gather.sample_spans, feistel.walk)))
words = np.zeros(10, np.uint64)
feistel.walk(words[:1], np.uint64(1), np.uint64(1), np.uint64(0), words, words[:1])
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    run = [sys.executable, "-c", script]
    runs = [subprocess.run(run, env=environment, cwd=repository, check=True, capture_output=True) for _ in range(2)]
    assert [int(done.stdout) for done in runs] == [2, 0]


def test_kernels_are_recompiled_if_a_kernel_that_they_call_changed(tmp_path: Path, repository: Path) -> None:
    shutil.copytree(repository / "mx8shards", tmp_path / "mx8shards", ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import numpy as np
from mx8shards.kernels import gather
from mx8shards.kernels.records import ROW, SHARD
print(gather.sample_spans.load())
gather.sample_spans(np.zeros(0, SHARD), np.zeros(0, ROW))
"""
    compiled = []
    for change in ("", "# another line", ""):
        with (tmp_path / "mx8shards/kernels/memory.py").open("a") as file:
            file.write(change)
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
        compiled.append(done.stdout.strip())
    assert compiled == ["True", "True", "False"]


@kernel(NOTHING, array(np.int64), array(np.int64))
def _reads_beyond(values: Array, out: Array) -> None:
    out[0] = values[len(values) + out[0]]


@pytest.mark.skipif("NUMBA_BOUNDSCHECK" not in os.environ, reason="runs in the process of test_bounds_checks")
def test_bounds_checking_makes_an_out_of_bounds_read_an_error() -> None:
    with pytest.raises(IndexError):
        _reads_beyond(np.zeros(3, np.int64), np.zeros(1, np.int64))
