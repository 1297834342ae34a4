"""Does mosaicml-streaming read what we uploaded through its own S3 path, and do we read what it uploaded?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.conformance.conftest import _streaming_leaves_nothing_behind  # noqa: F401  (a fixture that is used always)
from tests.conformance.streaming_peer import clock_at_zero, read_remote, write_theirs
from tests.remote.conftest import S3Server
from tests.strategies import (
    EVERY_COLUMN,
    EVERY_SAMPLE,
    NUMBERED,
    numbered_samples,
    same,
    samples_as_read,
    samples_as_streaming_reads,
)

pytest.importorskip("boto3")
# boto3 leaves its connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def write_ours(url: Any, samples: list[dict[str, Any]], **options: Any) -> None:
    settings: dict[str, Any] = {"columns": NUMBERED, "size_limit": 700, "allow_pickle": True, **options}
    with mx8.Writer(url, **settings) as writer:
        for sample in samples:
            writer.write(sample)


@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_they_read_what_we_uploaded(
    compression: str | None, split: str | None, streaming: Any, bucket: str, tmp_path: Path, s3_server: S3Server
) -> None:
    url = f"{bucket}/{split}" if split else bucket
    write_ours(url, EVERY_SAMPLE, columns=EVERY_COLUMN, compression=compression, size_limit=6000)
    before = s3_server.count("GET", "shard.")
    found = read_remote(streaming, bucket, tmp_path / "cache", split=split, validate_hash="xxh128")
    assert same(found, samples_as_streaming_reads(EVERY_COLUMN, EVERY_SAMPLE))
    assert s3_server.count("GET", "shard.") > before + 1


def test_they_read_what_we_appended_to_what_they_uploaded(streaming: Any, bucket: str, tmp_path: Path) -> None:
    samples = numbered_samples(40)
    upload_theirs(streaming, bucket, samples[:15], hashes=["xxh128"], size_limit=700)
    write_ours(bucket, samples[15:], mode="append")
    found = read_remote(streaming, bucket, tmp_path / "cache")
    assert same(found, samples_as_streaming_reads(NUMBERED, samples))
    with mx8.Dataset(bucket, local=tmp_path / "ours") as dataset:
        assert same(list(dataset), samples_as_read(NUMBERED, samples))


def upload_theirs(streaming: Any, url: str, samples: list[dict[str, Any]], columns: Any = None, **options: Any) -> None:
    """What MDSWriter does with a URL: it writes into a temporary directory and uploads each file as it is finished."""
    columns = dict(columns or NUMBERED)
    with clock_at_zero(), streaming.MDSWriter(out=url, columns=columns, **options) as writer:
        for sample in samples:
            writer.write(sample)


@pytest.mark.parametrize("hashes", [[], ["xxh128"], ["sha256"]])
@pytest.mark.parametrize("compression", [None, "zstd", "gz"])
def test_we_read_what_they_uploaded(
    compression: str | None, hashes: list[str], streaming: Any, bucket: str, tmp_path: Path
) -> None:
    options = {"compression": compression, "hashes": hashes, "size_limit": 6000}
    upload_theirs(streaming, bucket, EVERY_SAMPLE, EVERY_COLUMN, **options)
    for verify in ("structure", "shard"):
        with mx8.Dataset(bucket, local=tmp_path / "cache", allow_pickle=True, verify=verify) as dataset:
            assert same(list(dataset), samples_as_read(EVERY_COLUMN, EVERY_SAMPLE))
            assert dataset.sealed == (hashes == ["sha256"])
            link = f"{bucket}@{dataset.snapshot}"
    with mx8.Dataset(link, local=tmp_path / "another", allow_pickle=True) as dataset:
        assert same(list(dataset), samples_as_read(EVERY_COLUMN, EVERY_SAMPLE))


def test_we_and_they_use_one_cache_directory_after_another(streaming: Any, bucket: str, tmp_path: Path) -> None:
    """A cache of theirs has files of the right names, of which ours are told apart by their hashes."""
    write_ours(bucket, numbered_samples(40))
    theirs = write_theirs(streaming, tmp_path / "theirs", NUMBERED, numbered_samples(3))
    assert theirs.is_dir()
    with mx8.Dataset(bucket, local=tmp_path / "cache") as dataset:
        assert same(list(dataset), samples_as_read(NUMBERED, numbered_samples(40)))
    found = read_remote(streaming, bucket, tmp_path / "cache", validate_hash="xxh128")
    assert same(found, samples_as_streaming_reads(NUMBERED, numbered_samples(40)))
