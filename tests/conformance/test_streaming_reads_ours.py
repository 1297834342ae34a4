"""Does mosaicml-streaming read what we write?"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from tests.conformance.streaming_peer import read_local, read_remote, write_ours
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

SPLITS = [None, "deep/er"]


@pytest.mark.parametrize("encoding", EXAMPLES)
def test_streaming_decodes_our_payloads(encoding: str, streaming: Any, tmp_path: Path) -> None:
    samples = [{"value": value} for value in EXAMPLES[encoding]]
    write_ours(tmp_path / "data", {"value": encoding}, samples, hashes=())
    wanted = samples_as_streaming_reads({"value": encoding}, samples)
    assert same(read_local(streaming, tmp_path / "data"), wanted)
    with mx8.Dataset(tmp_path / "data", allow_pickle=True) as dataset:
        assert same(list(dataset), samples_as_read({"value": encoding}, samples))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_streaming_reads_every_encoding_with_every_compression_split_and_hash(
    compression: str | None, split: str | None, streaming: Any, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    hashes = ["blake3", *STREAMING_HASHES]
    here = root / (split or "")
    write_ours(here, EVERY_COLUMN, EVERY_SAMPLE, compression=compression, hashes=hashes, size_limit=6000)
    wanted = samples_as_streaming_reads(EVERY_COLUMN, EVERY_SAMPLE)
    if compression is None:
        assert same(read_local(streaming, root, split), wanted)
    for name in [None, *STREAMING_HASHES]:
        found = read_remote(streaming, root, tmp_path / "cache", split=split, validate_hash=name)
        assert len(list(here.glob("shard.*"))) > 1
        assert same(found, wanted), name


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("name", STREAMING_HASHES)
def test_streaming_finds_damage_by_our_hashes(
    name: str, compression: str | None, streaming: Any, tmp_path: Path
) -> None:
    root = write_ours(tmp_path / "data", NUMBERED, numbered_samples(9), compression=compression, hashes=[name])
    (shard,) = root.glob("shard.*")
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(ValueError, match="Checksum failure"):
        read_remote(streaming, root, tmp_path / "cache", validate_hash=name)


@pytest.mark.parametrize("compression", [None, "zstd", "gz:0"])
def test_streaming_reads_appended_and_overwritten_datasets(
    compression: str | None, streaming: Any, tmp_path: Path
) -> None:
    root, samples = tmp_path / "data", numbered_samples(40)
    options = {"compression": compression, "size_limit": 700}
    write_ours(root, NUMBERED, samples[:15], **options)
    write_ours(root, NUMBERED, samples[15:], mode="append", **options)
    assert same(read_remote(streaming, root, tmp_path / "cache", validate_hash="xxh128"), as_numbered(samples))
    write_ours(root, NUMBERED, samples[::2], mode="overwrite", **options)
    assert same(read_remote(streaming, root, tmp_path / "cache", validate_hash="xxh128"), as_numbered(samples[::2]))


def as_numbered(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return samples_as_streaming_reads(NUMBERED, samples)


@pytest.mark.parametrize("split", [None, "val"])
def test_streaming_iterates_our_datasets_with_shuffling_and_workers(
    split: str | None, streaming: Any, tmp_path: Path
) -> None:
    root, samples = tmp_path / "data", numbered_samples(60)
    write_ours(root / (split or ""), NUMBERED, samples, compression="zstd", size_limit=900, metadata={"by": "us"})
    dataset = streaming.StreamingDataset(
        remote=str(root), local=str(tmp_path / "cache"), split=split, batch_size=4, shuffle=True
    )
    loader = streaming.StreamingDataLoader(dataset, batch_size=4, num_workers=2, collate_fn=list)
    assert sorted(sample["id"] for batch in loader for sample in batch) == list(range(60))


def test_streaming_reads_an_empty_dataset_beside_another(streaming: Any, tmp_path: Path) -> None:
    samples = [{"x": b"a" * 5000}, {"x": b"b" * 5000}]
    root = write_ours(tmp_path / "data", {"x": "bytes"}, samples, size_limit=1000, match_streaming=True)
    assert [entry.samples for entry in streaming.LocalDataset(str(root)).shards] == [0, 1, 1]
    assert read_local(streaming, root) == samples
    assert read_remote(streaming, root, tmp_path / "cache", validate_hash="xxh128") == samples


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("match_streaming", [False, True])
def test_streaming_opens_a_dataset_without_samples(
    match_streaming: bool, compression: str | None, streaming: Any, tmp_path: Path
) -> None:
    """Our empty dataset keeps its columns in a shard without samples. With match_streaming it has no shards, like
    streaming's own empty dataset, which streaming cannot open.
    """
    options = {"compression": compression, "match_streaming": match_streaming}
    root = write_ours(tmp_path / "data", NUMBERED, [], **options)
    if not match_streaming:
        assert read_local(streaming, root) == []
    write_ours(root, NUMBERED, numbered_samples(2), mode="append", **options)
    assert same(read_remote(streaming, root, tmp_path / "cache"), as_numbered(numbered_samples(2)))


def test_streaming_ignores_metadata_and_sidecars(streaming: Any, tmp_path: Path) -> None:
    root = write_ours(
        tmp_path / "data", NUMBERED, numbered_samples(5), metadata={"classes": ["ä", "b"], "nested": {"a": [1.5, None]}}
    )
    assert (root / ".mx8shards").is_dir()
    assert same(read_local(streaming, root), as_numbered(numbered_samples(5)))


def test_streaming_needs_only_the_index_and_the_shards(streaming: Any, tmp_path: Path) -> None:
    root = write_ours(tmp_path / "data", NUMBERED, numbered_samples(5))
    shutil.rmtree(root / ".mx8shards")
    assert same(read_local(streaming, root), as_numbered(numbered_samples(5)))


def test_numpy_integers_written_as_int_are_python_integers_in_streaming(streaming: Any, tmp_path: Path) -> None:
    root = write_ours(tmp_path / "data", {"x": "int"}, [{"x": np.int64(-5)}, {"x": np.uint8(200)}])
    assert same(read_local(streaming, root), [{"x": -5}, {"x": 200}])
