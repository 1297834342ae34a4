"""Do the addresses and sizes given to kernels stay valid while kernels use them?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.disk.map import map_file
from mx8shards.kernels import gather
from mx8shards.kernels.records import MAPPED, OK, ROW, SHARD, SIZES_DIFFER, SPAN
from mx8shards.loading.batch import Ragged
from mx8shards.shards.cached_attribute import cached_attribute
from mx8shards.shards.open_shard import Shards
from mx8shards.stages import DecoderContext, Output, Stage, Work
from tests.loader.leak_checks import SECONDS, ids_of, mapped, payload, time_limit, write

SAMPLES, BATCH = 40, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one shard."""
    return write(tmp_path_factory.mktemp("believed") / "data", SAMPLES, size_limit="1mb")


# maps -----------------------------------------------------------------------------------------------------------------


def test_two_threads_that_compute_an_attribute_at_once_get_one_value() -> None:
    both = threading.Barrier(2)

    class Computed:
        @cached_attribute
        def value(self) -> object:
            both.wait(SECONDS)
            return object()

    one = Computed()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: one.value, range(2))
    assert first is second is one.value


def addresses(root: Path) -> list[range]:
    """The address ranges at which the shard is mapped."""
    bounds = [line.split()[0].split("-") for line in mapped(root) if line.endswith(".mds")]
    return [range(int(begin, 16), int(end, 16)) for begin, end in bounds]


def base_of(loader: mx8.Loader) -> int:
    """The base address of the shard that kernels use."""
    return int(loader._assembly.plan.shard_table.records["base"][0])


@pytest.fixture
def mapped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make two threads map a shard at the same time."""
    both = threading.Barrier(2)

    def map_and_wait(descriptor: int, size_bytes: int) -> Any:
        found = map_file(descriptor, size_bytes)
        both.wait(SECONDS)
        return found

    monkeypatch.setattr("mx8shards.shards.shard.map_file", map_and_wait)


@pytest.mark.usefixtures("mapped_at_once")
def test_two_loaders_that_map_a_shard_at_once_share_one_map(data: Path) -> None:
    dataset = mx8.Dataset(data)
    dataset.shards.open_shard(0)
    loaders = [mx8.Loader(dataset, batch_size=BATCH, threads=1, output="numpy", io="mmap") for _ in range(2)]
    iterations = [iter(loader) for loader in loaders]
    firsts = [next(batches) for batches in iterations]
    (place,) = addresses(data)
    assert {base_of(loader) for loader in loaders} == {place.start}
    assert [ids_of(batch) for batch in firsts] == [list(range(BATCH))] * 2
    for batches in iterations:
        assert [i for batch in batches for i in ids_of(batch)] == list(range(BATCH, SAMPLES))
    for loader in loaders:
        loader.close()


@pytest.mark.usefixtures("mapped_at_once")
def test_a_loader_and_dataset_payload_share_one_map(data: Path) -> None:
    dataset = mx8.Dataset(data)
    dataset.shards.open_shard(0)
    with mx8.Loader(dataset, batch_size=BATCH, threads=1, output="numpy", io="mmap") as loader:
        batches = iter(loader)  # starts its planner
        found = dataset.payload(3, "blob")
        first = next(batches)
        (place,) = addresses(data)
        assert base_of(loader) == place.start
        assert np.frombuffer(found, np.uint8).ctypes.data in place
        assert bytes(found) == payload(3)
        assert [i for batch in (first, *batches) for i in ids_of(batch)] == list(range(SAMPLES))


def test_two_loaders_that_open_a_shard_at_once_each_keep_their_shard(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    opened = Shards._open_checked

    def open_and_wait(self: Shards, *arguments: Any) -> Any:
        found = opened(self, *arguments)
        both.wait(SECONDS)
        return found

    monkeypatch.setattr(Shards, "_open_checked", open_and_wait)
    dataset = mx8.Dataset(data)
    loaders = [mx8.Loader(dataset, batch_size=BATCH, threads=1, output="numpy", io="mmap") for _ in range(2)]
    iterations = [iter(loader) for loader in loaders]
    firsts = [next(batches) for batches in iterations]
    places = addresses(data)
    assert all(any(base_of(loader) == place.start for place in places) for loader in loaders)
    for first, batches in zip(firsts, iterations, strict=True):
        assert [i for batch in (first, *batches) for i in ids_of(batch)] == list(range(SAMPLES))
    for loader in loaders:
        loader.close()


# encodings ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MisdeclaredEncoding:
    """An encoding of bytes whose declared size, dtype or shape may be wrong."""

    dtype: str | None
    shape: tuple[int, ...] | None
    size_bytes: int | None
    name: str = "claims"
    unsafe: bool = False

    def encode(self, value: Any, /) -> bytes:
        return bytes(value)

    def decode(self, payload: bytes | memoryview, /) -> Any:
        return bytes(payload)


UNTRUE = {
    "of no fixed size": MisdeclaredEncoding("float32", (4,), None),
    "smaller": MisdeclaredEncoding("float32", (4,), 8),
    "larger": MisdeclaredEncoding("float32", (2,), 16),
    "objects": MisdeclaredEncoding("object", (2,), 16),
    "without a shape": MisdeclaredEncoding("uint8", None, 16),
    "without a dtype": MisdeclaredEncoding(None, (16,), 16),
}


@pytest.mark.parametrize("claims", UNTRUE.values(), ids=UNTRUE)
def test_payloads_of_inconsistent_size_are_never_stacked(tmp_path: Path, claims: MisdeclaredEncoding) -> None:
    mx8.register_encoding("claims", claims)
    rows = [bytes([i]) * (claims.size_bytes or 3 * i) for i in range(20)]
    with mx8.Writer(tmp_path, columns={"claimed": "claims", "number": "int"}) as writer:
        for i, row in enumerate(rows):
            writer.write({"claimed": row, "number": i})
    with mx8.Loader(mx8.Dataset(tmp_path), batch_size=8, threads=1, output="numpy") as loader:
        for batch in loader:
            assert isinstance(batch["claimed"], Ragged)
            assert list(batch["claimed"]) == [rows[i] for i in batch["number"].tolist()]


def test_payloads_of_consistent_size_are_stacked(tmp_path: Path) -> None:
    mx8.register_encoding("claims", MisdeclaredEncoding("<f4", (2, 2), 16))
    with mx8.Writer(tmp_path, columns={"claimed": "claims"}) as writer:
        for i in range(20):
            writer.write({"claimed": np.full(4, i, "<f4").tobytes()})
    with mx8.Loader(mx8.Dataset(tmp_path), batch_size=20, threads=1, output="numpy") as loader:
        (batch,) = loader
        assert np.array_equal(batch["claimed"], np.arange(20, dtype="<f4")[:, None, None].repeat(2, 1).repeat(2, 2))


# sizes ----------------------------------------------------------------------------------------------------------------

ROWS = 20_000
LARGE, SMALL = 60_000, 10


@contextmanager
def sizes_swapped_repeatedly(words: Any) -> Iterator[None]:
    """Swap the two sizes of a header repeatedly during the block."""
    ended = threading.Event()

    def exchange() -> None:
        one, other = np.array([LARGE, SMALL], "<u4").view("<u8"), np.array([SMALL, LARGE], "<u4").view("<u8")
        while not ended.is_set():
            words[:] = one
            words[:] = other

    writer = threading.Thread(target=exchange)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def test_the_sizes_used_are_the_checked_ones_even_if_the_file_changes() -> None:
    sample = np.zeros(8 + LARGE + SMALL + 8, np.uint8)
    aligned = sample[-sample.ctypes.data % 8 :][: 8 + LARGE + SMALL]
    shards = np.zeros(1, SHARD)
    shards[0] = (aligned.ctypes.data, 0, len(aligned), 0, 0)
    kinds = np.array([[2, 0]], np.int64)
    layouts = np.array([[[0, 0, -1], [0, 1, -1]]], np.int64)
    rows, spans = np.zeros(ROWS, ROW), np.zeros((ROWS, 2), SPAN)
    header, totals = np.zeros(8, np.uint8), np.zeros(2, np.int64)
    mixed = 0
    with time_limit(), sizes_swapped_repeatedly(aligned[:8].view("<u8")):
        while mixed < 5:
            rows["end"], rows["way"], rows["status"] = len(aligned), MAPPED, OK
            gather.payload_spans(shards, kinds, layouts, header, rows, spans, totals)
            good = rows["status"] == OK
            assert set(np.unique(rows["status"])) <= {OK, SIZES_DIFFER}
            sizes, begins = spans["size"][good], spans["begin"][good]
            assert np.all(sizes.sum(axis=1) == LARGE + SMALL)
            assert set(np.unique(sizes)) <= {LARGE, SMALL}
            assert np.all(begins[:, 0] == 8)
            assert np.all(begins[:, 1] == 8 + sizes[:, 0])
            assert not spans["size"][~good].any()
            assert totals.tolist() == spans["size"].sum(axis=0).tolist()
            mixed += len(np.unique(sizes[:, 0])) > 1


@dataclass(frozen=True)
class Shorten:
    """A decoder of a number that needs only the first bytes of the blob beside it."""

    most: int

    def stage(self, context: DecoderContext) -> Stage:
        return Shortening(context.column, self.most)


class Shortening(Stage):
    """Shrinks the spans of another column."""

    narrows = True

    def __init__(self, column: str, most: int) -> None:
        self.columns = (column,)
        self.outputs = {"kept": Output(np.dtype(np.int64), ())}
        self._most = most

    def narrow(self, work: Work) -> None:
        work.spans["size"][:, 0] = np.minimum(work.spans["size"][:, 0], self._most)

    def fill(self, work: Work, start: int, stop: int, scratch: Any) -> None:
        work.array("kept", self.outputs["kept"])[start:stop] = work.spans["size"][start:stop, 0]


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("most", [0, 7, 10_000])
def test_a_narrowed_ragged_column_has_only_the_bytes_of_its_rows(data: Path, io: Any, most: int) -> None:
    dataset = mx8.Dataset(data)
    options: dict[str, Any] = {"decode": {"number": Shorten(most)}, "io": io, "output": "numpy", "threads": 1}
    with mx8.Loader(dataset, batch_size=BATCH, **options) as loader:
        for batch in loader:
            blobs = [payload(i)[:most] for i in batch.sample_ids.tolist()]
            assert [bytes(blob) for blob in batch["blob"]] == blobs
            assert batch["blob"].values.tobytes() == b"".join(blobs)
            assert batch["blob"].offsets[-1] == len(batch["blob"].values)
            assert batch["kept"].tolist() == [len(blob) for blob in blobs]
