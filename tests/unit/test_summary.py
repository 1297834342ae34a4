"""Are the counts, lengths and histograms of summary correct, with and without side-cars?"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.errors import FormatError
from mx8shards.maintain.info import info, list_shards
from mx8shards.maintain.statistics import BINS, describe
from mx8shards.maintain.summary import ColumnSummary
from tests.maintenance import edit_index, make_foreign, write


def columns(root: Path) -> dict[str, ColumnSummary]:
    return {column.name: column for column in mx8.summary(root).columns}


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_counts_and_sizes_match_the_files(tmp_path: Path, compression: str | None) -> None:
    snapshot = write(tmp_path, range(100), compression=compression)
    found = mx8.summary(tmp_path)
    sizes = sorted(path.stat().st_size for path in tmp_path.glob("shard.*"))
    assert (found.snapshot, found.sealed, found.samples, found.shards) == (snapshot, True, 100, len(sizes))
    assert found.stored_bytes == sum(sizes)
    assert found.stored_bytes_per_shard == (sizes[0], float(np.median(sizes)), sizes[-1])
    assert (found.raw_bytes == found.stored_bytes) is (compression is None)
    assert found.bytes_per_sample == found.raw_bytes / 100
    least, median, most = found.samples_per_shard
    assert 1 <= least <= median <= most


@pytest.mark.parametrize("foreign", [False, True])
def test_columns_of_numbers_are_described_from_sidecars_or_shards(tmp_path: Path, foreign: bool) -> None:
    write(tmp_path, range(100))
    if foreign:
        make_foreign(tmp_path)
    found = columns(tmp_path)
    label, score = found["label"].numbers, found["score"].numbers
    assert label is not None
    assert score is not None
    assert (label.minimum, label.maximum, label.mean) == (0, 9, 4.5)
    assert label.values == dict.fromkeys(range(10), 10)
    assert label.bins is None
    assert (score.minimum, score.maximum, score.mean, score.not_finite) == (0.0, 24.75, 12.375, 0)
    assert score.values is None
    assert score.bins is not None
    assert [count for _, _, count in score.bins] == [5] * 20
    assert (found["blob"].numbers, found["blob"].payload_bytes, found["label"].payload_bytes) == (None, None, 8)
    assert list(found) == ["blob", "label", "score", "text"]


@pytest.mark.parametrize(("encoding", "named"), [("int", True), ("uint8", True), ("float32", False), ("str", False)])
def test_only_integer_columns_have_class_names(
    tmp_path: Path, encoding: str, named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with mx8.Writer(tmp_path, columns={"label": encoding}, metadata={"classes": ["cat", "dog"]}) as writer:
        for value in ("0", "1") if encoding == "str" else (0, 1) if named else (0.25, 1.5):
            writer.write({"label": value})
    assert columns(tmp_path)["label"].classes == (("cat", "dog") if named else None)
    assert main(["summary", str(tmp_path)]) == 0
    assert ("cat" in capsys.readouterr().out) is named


def test_a_summary_can_be_written_as_json(tmp_path: Path) -> None:
    write(tmp_path, range(100))
    found = json.loads(json.dumps(mx8.summary(tmp_path).to_json(), allow_nan=False))
    label = next(column for column in found["columns"] if column["name"] == "label")
    assert label["numbers"]["values"] == [[i, 10] for i in range(10)]


def test_a_dataset_of_no_samples_has_a_summary(tmp_path: Path) -> None:
    write(tmp_path, range(0))
    found = mx8.summary(tmp_path)
    assert (found.samples, found.shards, found.samples_per_shard, found.bytes_per_sample) == (0, 1, (0, 0.0, 0), 0.0)
    assert [column.name for column in found.columns] == ["blob", "label", "score", "text"]
    assert all(column.numbers is None or column.numbers.mean is None for column in found.columns)


def test_a_pinned_link_summarises_that_snapshot(tmp_path: Path) -> None:
    old = write(tmp_path, range(30))
    write(tmp_path, range(30, 50), mode="append")
    assert mx8.summary(f"{tmp_path}@{old}").samples == 30
    assert mx8.summary(tmp_path).samples == 50


def test_columns_that_only_some_shards_have_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, range(30))
    with mx8.Writer(tmp_path / "more", columns={"label": "int", "other": "int"}) as writer:
        writer.write({"label": 77, "other": 1})
    (other,) = json.loads((tmp_path / "more" / "index.json").read_bytes())["shards"]
    other["raw_data"]["basename"] = "more/shard.00000.mds"
    make_foreign(tmp_path)
    edit_index(tmp_path, lambda index: index["shards"].append(other))
    found = columns(tmp_path)
    assert list(found) == ["label"]
    assert found["label"].numbers is not None
    assert found["label"].numbers.maximum == 77


def test_unsafe_columns_are_not_decoded(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path, columns={"x": "pkl", "y": "int"}, allow_pickle=True) as writer:
        writer.write({"x": {1, 2}, "y": 3})
    assert list(columns(tmp_path)) == ["x", "y"]


# lengths --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_lengths_are_measured_for_text_bytes_and_ragged_arrays(tmp_path: Path, compression: str | None) -> None:
    kinds = {"text": "str", "blob": "bytes", "tokens": "ndarray:uint16", "any": "ndarray", "fixed": "ndarray:int8:3"}
    with mx8.Writer(tmp_path, columns=kinds, size_limit=20_000, compression=compression) as writer:
        for i in range(100):
            arrays = {"tokens": np.zeros(i + 1, np.uint16), "any": np.zeros((2, i + 1)), "fixed": np.zeros(3, np.int8)}
            writer.write({"text": "é" * i, "blob": bytes(i), **arrays})
    found = columns(tmp_path)
    assert found["fixed"].lengths is None
    unit = {name: (column.lengths.unit, column.lengths.minimum) for name, column in found.items() if column.lengths}
    assert unit == {"text": ("bytes", 0), "blob": ("bytes", 0), "tokens": ("values", 1), "any": ("values", 2)}
    if compression is None:
        every = {name: column.lengths for name, column in found.items() if column.lengths}
        assert all(lengths.samples == 100 for lengths in every.values())
        assert (every["text"].maximum, every["text"].mean, every["blob"].median) == (198, 99.0, 49.5)
        assert (every["tokens"].maximum, every["any"].maximum) == (100, 200)


def test_lengths_of_many_samples_are_measured_on_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mx8shards.maintain.lengths.MOST_SAMPLES", 40)
    with mx8.Writer(tmp_path, columns={"text": "str"}, size_limit=400) as writer:
        for i in range(1000):
            writer.write({"text": "x" * (i % 10)})
    lengths = columns(tmp_path)["text"].lengths
    assert lengths is not None
    assert lengths.samples == 40
    assert 0 <= lengths.minimum <= lengths.mean <= lengths.maximum <= 9


def test_a_damaged_array_is_an_error_that_names_it(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path, columns={"x": "ndarray:uint16"}) as writer:
        writer.write({"x": b"\x04"})
    with pytest.raises(mx8.FormatError, match=r"shard\.00000\.mds: sample 0 of this shard, column 'x': "):
        mx8.summary(tmp_path)


# distributions --------------------------------------------------------------------------------------------------------


def test_up_to_64_values_are_counted_and_more_are_binned() -> None:
    few, many = describe(np.arange(640) % 64), describe(np.arange(650) % 65)
    assert few.values == dict.fromkeys(range(64), 10)
    assert few.bins is None
    assert many.values is None
    assert many.bins is not None
    assert sum(count for _, _, count in many.bins) == 650
    assert len(many.bins) == BINS


def test_bins_equal_numpys() -> None:
    numbers = np.random.Generator(np.random.Philox(1)).normal(size=3_000_000)
    counts, edges = np.histogram(numbers, BINS)
    bins = describe(numbers).bins
    assert bins is not None
    assert [count for _, _, count in bins] == counts.tolist()
    np.testing.assert_allclose([begin for begin, _, _ in bins], edges[:-1])
    assert describe(numbers).mean == pytest.approx(numbers.mean())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_that_are_not_finite_are_counted_and_left_out(dtype: str) -> None:
    numbers = np.array([1.0, math.nan, 3.0, math.inf, -math.inf], dtype)
    found = describe(numbers)
    assert (found.minimum, found.maximum, found.mean, found.not_finite) == (1.0, 3.0, 2.0, 3)
    assert found.values == {1.0: 1, 3.0: 1}
    nothing = describe(numbers[[1, 3]])
    assert (nothing.minimum, nothing.mean, nothing.not_finite, nothing.values) == (None, None, 2, {})


EXTREMES: dict[str, Any] = {
    "the ends of int64": np.array([-(2**63), 2**63 - 1, *range(100)], np.int64),
    "the ends of uint64": np.array([0, 2**64 - 1, *range(100)], np.uint64),
    "integers that are one float": np.array([2**62 + i for i in range(100)], np.int64),
    "the ends of float64": np.array([-1.7e308, 1.7e308, *range(100)], np.float64),
    "the ends of float16": np.array([65504.0, -65504.0, *range(100)], np.float16),
    "the least of float64": np.array([5e-324 * i for i in range(100)], np.float64),
}


@pytest.mark.parametrize("which", EXTREMES)
def test_extreme_numbers_are_described_and_each_is_in_a_bin(which: str) -> None:
    numbers = EXTREMES[which]
    found = describe(numbers)
    assert (found.minimum, found.maximum) == (numbers.min().item(), numbers.max().item())
    assert found.bins is not None
    assert sum(count for _, _, count in found.bins) == len(numbers)
    assert all(math.isfinite(begin) and begin <= end for begin, end, _ in found.bins)


# info and ls ----------------------------------------------------------------------------------------------------------


def test_info_describes_the_index_and_opens_no_shard(tmp_path: Path) -> None:
    old = write(tmp_path, range(50), metadata={"source": "web"}, hashes=("sha1", "blake3"))
    new = write(tmp_path, range(50, 60), mode="append", compression="zstd:5", hashes=("sha1",))
    sizes = {str(path.relative_to(tmp_path)): path.stat().st_size for path in tmp_path.glob("shard.*")}
    for path in tmp_path.glob("shard.*"):
        path.unlink()
    found = info(tmp_path)
    assert (found.snapshot, found.parent, found.sealed) == (new, old, True)
    assert found.columns == {"blob": "bytes", "label": "int", "score": "float32", "text": "str"}
    assert (found.samples, found.shards, found.stored_bytes) == (60, len(sizes), sum(sizes.values()))
    assert (found.compression, found.hashes, found.sidecars) == (("zstd:5",), ("blake3", "sha1"), ("blocks", "columns"))
    assert found.metadata == {"source": "web"}
    shards = list(list_shards(tmp_path))
    assert {shard.basename: shard.stored_bytes for shard in shards} == sizes
    assert [shard.start for shard in shards] == np.cumsum([0, *(shard.samples for shard in shards)])[:-1].tolist()
    assert {shard.compression for shard in shards} == {None, "zstd:5"}


def test_a_hash_missing_in_some_shards_is_not_listed(tmp_path: Path) -> None:
    write(tmp_path, range(50), hashes=("sha1",))
    make_foreign(tmp_path, hashes=("sha1",))
    write(tmp_path, range(50, 60), mode="append", hashes=("sha1", "md5"))
    assert info(tmp_path).hashes == ("sha1",)
    assert not info(tmp_path).sealed


def test_info_distinguishes_files_of_wrong_size_from_non_regular_files(tmp_path: Path) -> None:
    write(tmp_path, range(200))
    shards = sorted(tmp_path.glob("shard.*"))
    os.truncate(shards[0], 10)
    shards[1].rename(tmp_path / "elsewhere")
    shards[1].symlink_to("elsewhere")
    shards[2].unlink()
    os.mkfifo(shards[2])
    shards[3].unlink()
    found = info(tmp_path)
    assert found.resized == (shards[0].name,)
    assert found.irregular == (shards[1].name, shards[2].name)
    assert found.missing == (shards[3].name,)
    with pytest.raises(FormatError, match="a symlink"):  # §1.6
        mx8.Dataset(tmp_path)[int(mx8.Dataset(tmp_path).shards.starts[1])]
