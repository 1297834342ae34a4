"""Is a batch measured before its memory is reserved, if sample lengths alone do not determine its size?"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.kernels.records import MAPPED, OK, REFUSED
from mx8shards.stages import RAGGED, DecoderContext, Stage, Work
from tests.batches import flat
from tests.loader.leak_checks import no_leaks

SAMPLES, BATCH, IMAGE = 64, 8, 60_000
LONG = 37  # the number of a sample with a long caption


def caption(number: int) -> str:
    return "long " * 50_000 if number == LONG else "short " * (number % 5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large images, captions of which one is long, and small thumbnails."""
    root = tmp_path_factory.mktemp("measured") / "data"
    columns = {"caption": "str", "image": "bytes", "number": "int", "thumb": "bytes"}
    with mx8.Writer(root, columns=columns, size_limit=300_000, threads=1) as writer:
        for i in range(SAMPLES):
            thumb = bytes([1 + i % 7, i]) + bytes([i]) * (i % 9)
            writer.write({"caption": caption(i), "image": bytes([i]) * IMAGE, "number": i, "thumb": thumb})
    return root


def loader_of(dataset: mx8.Dataset, **options: Any) -> mx8.Loader:
    return mx8.Loader(dataset, **{"batch_size": BATCH, "threads": 2, "output": "numpy"} | options)  # type: ignore[arg-type]


def taken(loader: mx8.Loader) -> tuple[list[list[int]], str]:
    """The numbers in all batches, whose captions are checked, and the error that ended the iteration."""
    found: list[list[int]] = []
    try:
        for batch in loader:
            found.append(batch["number"].tolist())
            assert [*batch["caption"]] == [caption(i) for i in found[-1]]
            assert loader.stats()["memory_high_water_bytes"] <= loader.stats()["memory_limit_bytes"]
    except mx8.LoaderError as error:
        return found, str(error)
    return found, ""


# a few columns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_small_columns_reserve_no_memory_for_large_columns_beside_them(data: Path, io: str, shuffle: bool) -> None:
    """The whole samples of three batches would need ten times this memory."""
    assert IMAGE * BATCH > 450_000
    with no_leaks(data):
        dataset = mx8.Dataset(data).select([i for i in range(SAMPLES) if i != LONG])
        with loader_of(dataset, io=io, shuffle=shuffle, columns=["caption", "number"], memory=300_000) as loader:
            for _ in range(2):
                found, error = taken(loader)
                assert (sorted(flat(found)), error) == ([i for i in range(SAMPLES) if i != LONG], "")
        dataset.close()
        del loader, dataset


def test_columns_beside_a_decoded_large_column_reserve_no_memory_for_it(data: Path) -> None:
    dataset = mx8.Dataset(data).select(range(LONG))
    with loader_of(dataset, decode={"image": Mean()}, columns=["caption", "image", "number"], memory="1mb") as loader:
        for batch in loader:
            assert batch["mean"].tolist() == [[i, IMAGE] for i in batch["number"].tolist()]
            assert [*batch["caption"]] == [caption(i) for i in batch["number"].tolist()]


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_step_that_does_not_fit_is_an_equal_error_on_all_ranks_and_the_suggested_memory_is_enough(
    data: Path, world_size: int, shuffle: bool
) -> None:
    dataset = mx8.Dataset(data)
    options = {"shuffle": shuffle, "columns": ["caption", "number"], "batch_size": 4, "world_size": world_size}
    ends = []
    for rank in range(world_size):
        with loader_of(dataset, rank=rank, memory=330_000, **options) as loader:
            ranks, numbers = range(world_size), range(len(loader))
            steps = [[i for r in ranks for i in loader.ids(epoch=0, step=k, rank=r)] for k in numbers]
            found, error = taken(loader)
            ends.append((len(found), error))
    assert len(set(ends)) == 1
    count, error = ends[0]
    assert "expected a batch that fits into" in error
    assert any(LONG in ids for ids in steps[max(0, count - 1) : count + 1])  # this batch, or the next one beside it
    named = int(re.findall(r"\(memory=(\d+) or a smaller batch_size\)", error)[0])
    assert named < IMAGE * BATCH * 2
    for rank in range(world_size):
        with loader_of(dataset, rank=rank, memory=named, **options) as loader:
            assert taken(loader)[1] == ""


def test_batches_are_not_measured_if_whole_samples_fit(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = mx8.Dataset(data)
    asked = []
    with loader_of(dataset, columns=["caption", "number"], memory="64mb") as loader:
        monkeypatch.setattr(type(loader._assembly.filler.finder), "measure", asked.append)
        assert taken(loader)[1] == ""
    assert not asked


@dataclass(frozen=True)
class Mean:
    """A decoder of the mean and number of an image's bytes."""

    def stage(self, context: DecoderContext) -> Stage:
        return Averaging(context)


class Averaging(Stage):
    """Computes mean and length of each image."""

    def __init__(self, context: DecoderContext) -> None:
        self.columns = (context.column,)
        self.outputs = {"mean": type(RAGGED)(np.dtype(np.int64), (2,))}
        self._number = context.number

    def fill(self, work: Work, start: int, stop: int, scratch: Any) -> None:
        means = work.array("mean", self.outputs["mean"])
        for i in range(start, stop):
            image = np.frombuffer(payload_of(work, i, self._number), np.uint8)
            means[i] = image.mean(), len(image)


def payload_of(work: Work, i: int, column: int) -> bytes:
    row, span = work.rows[i], work.spans[i, column]
    if row["way"] == MAPPED:
        return ctypes.string_at(int(work.shards[row["shard"]]["base"]) + int(span["begin"]), int(span["size"]))
    return os.pread(int(row["file"]), int(span["size"]), int(span["begin"]))


# sizes from heads -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Enlarge:
    """A decoder that repeats a payload; the first byte gives the thousands of repeats. It refuses `bad` samples."""

    bad: frozenset[int] = frozenset()
    late: bool = False  # refuse in `fill` instead of `measure`

    def stage(self, context: DecoderContext) -> Stage:
        return Enlarging(context, self)


class Enlarging(Stage):
    """Rows have the length that the first byte gives."""

    measures = True

    def __init__(self, context: DecoderContext, settings: Enlarge) -> None:
        self.columns = (context.column,)
        self.outputs = {"large": RAGGED}
        self.decoders = {"large": bytes}
        self._number = context.number
        self._settings = settings

    def measure(self, work: Work) -> Mapping[str, Any]:
        sizes = np.zeros(len(work.rows), np.int64)
        for i, row in enumerate(work.rows):
            if row["sample_id"] in self._settings.bad and not self._settings.late:
                work.rows["status"][i] = REFUSED
            if work.rows["status"][i] == OK:
                payload = payload_of(work, i, self._number)
                sizes[i] = 1000 * payload[0] * len(payload)
        return {"large": sizes}

    def fill(self, work: Work, start: int, stop: int, scratch: Any) -> None:
        region = work.region("large")
        offsets = work.whole[region.offsets :].view(np.uint8)[: 8 * len(work.rows) + 8].view(np.int64)
        values = work.array("large", RAGGED)
        for i in range(start, stop):
            if work.rows["sample_id"][i] in self._settings.bad:
                work.rows["status"][i] = REFUSED
            if work.rows["status"][i] == OK:
                payload = payload_of(work, i, self._number)
                values[offsets[i] : offsets[i + 1]] = np.frombuffer(payload * (1000 * payload[0]), np.uint8)


def enlarged(number: int) -> bytes:
    thumb = bytes([1 + number % 7, number]) + bytes([number]) * (number % 9)
    return thumb * 1000 * thumb[0]


OPTIONS: dict[str, Any] = {"columns": ["caption", "number", "thumb"], "batch_size": 4}


@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
def test_rows_have_the_measured_sizes_and_memory_is_bounded(data: Path, io: str) -> None:
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        with loader_of(dataset, decode={"thumb": Enlarge()}, shuffle=True, io=io, memory="1mb", **OPTIONS) as loader:
            seen = []
            for batch in loader:
                assert [*batch["large"]] == [enlarged(i) for i in batch["number"].tolist()]
                assert [*batch["caption"]] == [caption(i) for i in batch["number"].tolist()]
                assert loader.stats()["memory_high_water_bytes"] <= loader.stats()["memory_limit_bytes"]
                seen += batch["number"].tolist()
            assert sorted(seen) == list(range(SAMPLES))
        del batch, loader
        dataset.close()
        del dataset


@pytest.mark.parametrize("late", [False, True])
def test_rows_refused_while_measuring_or_decoding_are_skipped(data: Path, late: bool) -> None:
    bad = frozenset([3, 17, 40, 41, 42, 43])
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        decode = {"thumb": Enlarge(bad, late)}
        with loader_of(dataset, decode=decode, on_error="skip", memory="2mb", **OPTIONS) as loader:
            seen = []
            for batch in loader:
                assert [*batch["large"]] == [enlarged(i) for i in batch["number"].tolist()]
                seen += batch["number"].tolist()
            assert seen == [i for i in range(SAMPLES) if i not in bad]
        with loader_of(dataset, decode=decode, on_error="substitute", memory="2mb", **OPTIONS) as loader:
            seen = []
            for batch in loader:
                assert [*batch["large"]] == [enlarged(i) for i in batch["number"].tolist()]
                seen += batch["number"].tolist()
            assert len(seen) == SAMPLES
            assert not bad.intersection(seen)
        del batch, loader
        dataset.close()
        del dataset


def test_a_batch_too_large_for_memory_is_an_error_that_suggests_enough(data: Path) -> None:
    dataset = mx8.Dataset(data)
    error = ""
    with loader_of(dataset, decode={"thumb": Enlarge()}, memory="300kb", **OPTIONS) as loader:
        try:
            for _ in loader:
                pass
        except mx8.LoaderError as caught:
            error = str(caught)
    assert "expected a batch that fits into" in error
    named = int(re.findall(r"\(memory=(\d+) or a smaller batch_size\)", error)[0])
    with loader_of(dataset, decode={"thumb": Enlarge()}, memory=2 * named, **OPTIONS) as loader:
        assert sum(len(batch.sample_ids) for batch in loader) == SAMPLES


# fixed sizes without a dtype ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FixedSizeEncoding:
    """An encoding of fixed size without a dtype."""

    name: str = "lump"
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    size_bytes: int | None = 50_000
    unsafe: bool = False

    def encode(self, value: Any, /) -> bytes:
        return bytes(value)

    def decode(self, payload: bytes | memoryview, /) -> Any:
        return bytes(payload)


def test_fixed_size_columns_that_are_not_arrays_are_counted(tmp_path: Path) -> None:
    mx8.register_encoding("lump", FixedSizeEncoding())
    with mx8.Writer(tmp_path, columns={"lump": "lump", "text": "str"}) as writer:
        for i in range(20):
            writer.write({"lump": bytes([i]) * 50_000, "text": "x" * i})
    for columns in (["lump"], ["lump", "text"]):
        with loader_of(mx8.Dataset(tmp_path), columns=columns, memory="4mb") as loader:
            assert [row[0] for batch in loader for row in batch["lump"]] == list(range(20))
