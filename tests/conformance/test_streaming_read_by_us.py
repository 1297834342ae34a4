"""Do we read what mosaicml-streaming writes?"""

from __future__ import annotations

import json
import shutil
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.conformance.streaming_peer import clock_at_zero, read_local, write_theirs
from tests.reference import read_dataset
from tests.strategies import (
    COMPRESSIONS,
    EVERY_COLUMN,
    EVERY_SAMPLE,
    EXAMPLES,
    NUMBERED,
    STREAMING_HASHES,
    numbered_samples,
    same,
    samples_as_read,
    samples_as_streaming_reads,
)

SEALING = {"blake2b", "blake2s", "sha256", "sha3_256", "sha3_512", "sha512"}


@pytest.mark.parametrize("encoding", EXAMPLES)
def test_we_decode_payloads_of_streaming(encoding: str, streaming: Any, tmp_path: Path) -> None:
    samples = [{"value": value} for value in EXAMPLES[encoding]]
    root = write_theirs(streaming, tmp_path / "data", {"value": encoding}, samples)
    with mx8.Dataset(root, allow_pickle=True) as dataset:
        assert same(list(dataset), samples_as_read({"value": encoding}, samples))
        assert [bytes(dataset.payload(i, "value")) for i in range(3)] == [s["value"] for s in read_dataset(root)]


@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_we_read_every_encoding_of_streaming_with_every_compression_and_split(
    compression: str | None, split: str | None, streaming: Any, tmp_path: Path
) -> None:
    root = tmp_path / "data" / (split or "")
    write_theirs(streaming, root, EVERY_COLUMN, EVERY_SAMPLE, compression=compression, size_limit=6000)
    with mx8.Dataset(root, allow_pickle=True) as dataset:
        assert same(list(dataset), samples_as_read(EVERY_COLUMN, EVERY_SAMPLE))
        assert dataset.columns == EVERY_COLUMN
        assert dataset.metadata == {}
        assert not dataset.sealed


@pytest.mark.parametrize(
    ("name", "compression"),
    [*((name, None) for name in STREAMING_HASHES), *zip(STREAMING_HASHES, cycle(COMPRESSIONS[1:]), strict=False)],
)
def test_we_find_damage_by_the_hashes_of_streaming(
    name: str, compression: str | None, streaming: Any, tmp_path: Path
) -> None:
    root = write_theirs(
        streaming, tmp_path / "data", NUMBERED, numbered_samples(9), compression=compression, hashes=[name]
    )
    with mx8.Dataset(root, verify="shard") as dataset:
        assert same(list(dataset), samples_as_read(NUMBERED, numbered_samples(9)))
        assert dataset.sealed == (name in SEALING)
    (shard,) = root.glob("shard.*")
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    with mx8.Dataset(root, verify="shard") as dataset, pytest.raises(mx8.IntegrityError, match=name):
        list(dataset)


@pytest.mark.parametrize("size_limit", [None, 0, 1 << 20, "100kb", 700])
def test_we_read_datasets_with_every_form_of_the_size_limit(
    size_limit: int | str | None, streaming: Any, tmp_path: Path
) -> None:
    root = write_theirs(streaming, tmp_path / "data", NUMBERED, numbered_samples(50), size_limit=size_limit)
    assert same(list(mx8.Dataset(root)), samples_as_read(NUMBERED, numbered_samples(50)))


def test_we_read_the_empty_shards_that_streaming_writes_before_an_oversized_sample(
    streaming: Any, tmp_path: Path
) -> None:
    samples = [{"x": b"a" * 5000}, {"x": b"b" * 5000}, {"x": b"c" * 5000}]
    root = write_theirs(streaming, tmp_path / "data", {"x": "bytes"}, samples, size_limit=1000)
    entries = json.loads((root / "index.json").read_bytes())["shards"]
    assert [entry["samples"] for entry in entries] == [0, 1, 1, 1]
    with mx8.Dataset(root) as dataset:
        assert list(dataset) == samples
        assert dataset[-3] == samples[0]
        assert [bytes(dataset.payload(i, "x")) for i in range(3)] == [sample["x"] for sample in samples]


def test_we_read_a_streaming_dataset_without_samples(streaming: Any, tmp_path: Path) -> None:
    root = write_theirs(streaming, tmp_path / "data", {"x": "int"}, [])
    with mx8.Dataset(root) as dataset:
        assert (len(dataset), list(dataset), dataset.columns) == (0, [], {})


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_we_read_the_index_of_streamings_merge(compression: str | None, streaming: Any, tmp_path: Path) -> None:
    root, samples = tmp_path / "data", numbered_samples(30)
    for part in range(3):
        some = samples[part * 10 : part * 10 + 10]
        write_theirs(streaming, root / f"part{part}", NUMBERED, some, compression=compression, size_limit=600)
    streaming.base.util.merge_index(str(root))
    with mx8.Dataset(root) as dataset:
        assert same(list(dataset), samples_as_read(NUMBERED, samples))
        assert dataset.column("id").tolist() == list(range(30))
        assert [bytes(dataset.payload(i, "name")) for i in (29, 0)] == [b"#29", b"#0"]


@pytest.mark.parametrize("how", ["named", "found"])
def test_we_read_an_index_that_streaming_merged_from_our_parts(how: str, streaming: Any, tmp_path: Path) -> None:
    """Without given names, streaming's merge takes every .json below the root for an index, also our kept snapshots."""
    root, samples = tmp_path / "data", numbered_samples(20)
    for part in range(2):
        with mx8.Writer(root / f"{part}", columns=NUMBERED) as writer:
            for sample in samples[part * 10 : part * 10 + 10]:
                writer.write(sample)
        if how == "found":
            shutil.rmtree(root / f"{part}" / ".mx8shards")
    if how == "named":
        streaming.base.util.merge_index([str(root / f"{part}" / "index.json") for part in range(2)], str(root))
    else:
        streaming.base.util.merge_index(str(root))
    with mx8.Dataset(root) as dataset:
        assert same(list(dataset), samples_as_read(NUMBERED, samples))
        assert dataset.sealed
    assert same(read_local(streaming, root), samples_as_streaming_reads(NUMBERED, samples))


def test_nested_parts_with_equal_names_after_streamings_merge_are_refused(streaming: Any, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for part in ("g0/0", "g1/0"):
        write_theirs(streaming, root / part, NUMBERED, numbered_samples(3))
    streaming.base.util.merge_index(str(root))
    with pytest.raises(mx8.FormatError, match=r"at \$\.shards\[1\]\.raw_data\.basename: .*0/shard\.00000\.mds"):
        mx8.Dataset(root)


def test_raw_files_that_streaming_decompressed_do_not_disturb_us(streaming: Any, tmp_path: Path) -> None:
    root = write_theirs(streaming, tmp_path / "data", NUMBERED, numbered_samples(9), compression="zstd")
    theirs = streaming.StreamingDataset(local=str(root), batch_size=1, shuffle=False)
    assert theirs[0]["id"] == 0
    assert list(root.glob("*.mds"))
    assert same(list(mx8.Dataset(root)), samples_as_read(NUMBERED, numbered_samples(9)))


@pytest.mark.parametrize("name", ["json", "csv", "tsv", "xsv"])
def test_shards_of_streamings_other_formats_are_an_error_that_names_the_format(
    name: str, streaming: Any, tmp_path: Path
) -> None:
    writer = getattr(streaming, f"{name.upper()}Writer")
    extra = {"separator": "|"} if name == "xsv" else {}
    with clock_at_zero(), writer(out=str(tmp_path / "data"), columns={"x": "int"}, **extra) as out:
        out.write({"x": 3})
    with pytest.raises(mx8.FormatError, match=rf'at \$\.shards\[0\]\.format: expected "mds", got "{name}"'):
        mx8.Dataset(tmp_path / "data")
