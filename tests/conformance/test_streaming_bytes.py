"""Are our shard files equal to mosaicml-streaming's, byte for byte?"""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conformance.streaming_peer import files, write_ours, write_theirs
from tests.fast_directory import FAST_ROOT
from tests.reference import config, fixed_size, sample_bytes, shard_bytes
from tests.strategies import (
    COMPRESSIONS,
    EVERY_COLUMN,
    EVERY_SAMPLE,
    EXAMPLES,
    NUMBERED,
    STREAMING_HASHES,
    numbered_samples,
)

EVERY_LEVEL = [
    *(f"br:{level}" for level in range(12)),
    *(f"bz2:{level}" for level in range(1, 10)),
    *(f"gz:{level}" for level in range(10)),
    *(f"zstd:{level}" for level in range(1, 23)),
    *("br", "bz2", "gz", "snappy", "zstd"),
]


def write_both(streaming: Any, tmp_path: Path, columns: Any, samples: Any, **options: Any) -> tuple[Path, Path]:
    """Write with both writers and equal options, by default without hashes."""
    match = options.pop("match_streaming", True)
    options = {"hashes": [], **options}
    return (
        write_ours(tmp_path / "ours", columns, samples, match_streaming=match, **options),
        write_theirs(streaming, tmp_path / "theirs", columns, samples, **options),
    )


def without_our_keys(index: bytes) -> Any:
    """Our index without the keys that streaming does not write."""
    found = json.loads(index)
    del found["mx8shards"]
    for entry in found["shards"]:
        for info in filter(None, (entry["raw_data"], entry["zip_data"])):
            if "blake3" not in entry["hashes"]:
                del info["hashes"]["blake3"]
    return found


@pytest.mark.parametrize("encoding", EXAMPLES)
def test_payloads_equal_streamings(encoding: str, streaming: Any, tmp_path: Path) -> None:
    samples = [{"value": value} for value in EXAMPLES[encoding]]
    ours, theirs = write_both(streaming, tmp_path, {"value": encoding}, samples, hashes=["sha1"], match_streaming=False)
    assert files(ours) == files(theirs)


@pytest.mark.parametrize("hashes", [[], *(list(pair) for pair in pairwise(STREAMING_HASHES))], ids=str)
@pytest.mark.parametrize("match_streaming", [False, True])
def test_uncompressed_files_equal_streamings_with_all_hashes(
    hashes: list[str], match_streaming: bool, streaming: Any, tmp_path: Path
) -> None:
    options = {"hashes": hashes, "size_limit": 20_000, "match_streaming": match_streaming}
    ours, theirs = write_both(streaming, tmp_path, EVERY_COLUMN, EVERY_SAMPLE * 2, **options)
    assert files(ours) == files(theirs)
    assert len(files(ours)) > 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_files_and_the_index_equal_streamings(
    compression: str | None, streaming: Any, tmp_path: Path
) -> None:
    options = {"compression": compression, "hashes": list(STREAMING_HASHES), "size_limit": "5kb"}
    ours, theirs = write_both(streaming, tmp_path, EVERY_COLUMN, EVERY_SAMPLE, **options)
    assert files(ours) == files(theirs)
    index = (theirs / "index.json").read_bytes()
    assert without_our_keys((ours / "index.json").read_bytes()) == json.loads(index)


@pytest.mark.parametrize("compression", EVERY_LEVEL)
def test_compressed_files_equal_streamings_at_every_level(compression: str, streaming: Any, tmp_path: Path) -> None:
    ours, theirs = write_both(
        streaming, tmp_path, NUMBERED, numbered_samples(500, largest=300), compression=compression
    )
    assert files(ours) == files(theirs)


@pytest.mark.parametrize("compression", ["zstd:1", "zstd", "zstd:9", "zstd:22", "br:4", "bz2", "gz:1", "snappy"])
def test_compressed_files_of_several_megabytes_equal_streamings(
    compression: str, streaming: Any, tmp_path: Path
) -> None:
    """From 512 KiB on zstd divides its input into jobs, and differently with worker threads, which streaming uses."""
    rng = np.random.default_rng(5)
    text = rng.choice(np.frombuffer(b"abcdefgh  \n", np.uint8), 900_000).tobytes()
    samples = [{"x": text}, {"x": rng.bytes(600_000)}, {"x": bytes(1_000_000)}, {"x": text[:500_000]}]
    ours, theirs = write_both(streaming, tmp_path, {"x": "bytes"}, samples, compression=compression)
    assert files(ours) == files(theirs)


@pytest.mark.parametrize(
    "size_limit",
    [None, 0, 1000, "1kb", "0.5kb", "2KB", " 3 kb", "4mb", (1 << 32) - 1, "900", "900b", "0", "0kb"],
    ids=repr,
)
def test_shards_and_config_equal_streamings_for_every_form_of_the_size_limit(
    size_limit: int | str | None, streaming: Any, tmp_path: Path
) -> None:
    ours, theirs = write_both(streaming, tmp_path, NUMBERED, numbered_samples(100), size_limit=size_limit)
    assert files(ours) == files(theirs)


@pytest.mark.parametrize("size_limit", [-1, 1 << 32, "4gb", "1tb", "zb", "many", "1 000", "1.5"])
def test_invalid_size_limits_are_refused_by_both(size_limit: int | str, streaming: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - theirs has no type of its own
        write_ours(tmp_path / "ours", NUMBERED, [], size_limit=size_limit)
    with pytest.raises(ValueError):  # noqa: PT011
        write_theirs(streaming, tmp_path / "theirs", NUMBERED, [], size_limit=size_limit)


@pytest.mark.parametrize("count", [60, *(pytest.param(400, id=f"hunt{i}", marks=pytest.mark.hunt) for i in range(8))])
def test_samples_of_any_size_fill_equal_shards_under_any_limit(count: int, streaming: Any) -> None:
    @settings(max_examples=count)
    @given(
        sizes=st.lists(st.integers(0, 700), max_size=30),
        size_limit=st.none() | st.integers(0, 1500),
        compression=st.sampled_from([None, "zstd", "snappy"]),
    )
    @example(sizes=[5000, 5000, 5000], size_limit=1000, compression=None)
    @example(sizes=[1, 5000, 1, 1, 5000], size_limit=1000, compression=None)
    @example(sizes=[5000], size_limit=1, compression="zstd")
    def check(sizes: list[int], size_limit: int | None, compression: str | None) -> None:
        samples = [{"a": bytes([i % 251]) * size, "n": i % 256} for i, size in enumerate(sizes)]
        options = {"size_limit": size_limit, "compression": compression}
        with tempfile.TemporaryDirectory(dir=FAST_ROOT) as place:
            ours, theirs = write_both(streaming, Path(place), {"a": "bytes", "n": "uint8"}, samples, **options)
            assert files(ours) == files(theirs)

    check()


@pytest.mark.parametrize("surplus", [-1, 0, 1])
@pytest.mark.parametrize("match_streaming", [False, True])
def test_a_shard_may_be_exactly_as_long_as_the_limit(
    surplus: int, match_streaming: bool, streaming: Any, tmp_path: Path
) -> None:
    """The limit is the file size of three samples, and one byte less and more."""
    columns, payload = {"x": "bytes"}, {"x": b"12345678"}
    limit = 1000
    for _ in range(3):  # the file contains the digits of the limit
        head = json.dumps(config(columns, None, (), limit)).encode()
        limit = len(shard_bytes(head, [sample_bytes(columns, payload)] * 3)) + surplus
    options = {"size_limit": limit, "hashes": [], "match_streaming": match_streaming}
    ours, theirs = write_both(streaming, tmp_path, columns, [payload] * 6, **options)
    assert files(ours) == files(theirs)
    assert len(files(ours)) == (3 if surplus < 0 else 2)


def test_without_match_streaming_no_empty_shard_is_written_and_the_others_equal_streamings(
    streaming: Any, tmp_path: Path
) -> None:
    samples = [{"x": b"a" * 5000}, {"x": b"b" * 5000}]
    ours, theirs = write_both(
        streaming, tmp_path, {"x": "bytes"}, samples, size_limit=1000, hashes=[], match_streaming=False
    )
    assert list(files(ours).values()) == list(files(theirs).values())[1:]
    assert len(files(theirs)) == 3


def test_hashes_given_in_any_order_are_written_sorted_as_streaming_requires(streaming: Any, tmp_path: Path) -> None:
    ours = write_ours(tmp_path / "ours", NUMBERED, numbered_samples(3), hashes=["sha1", "md5"])
    theirs = write_theirs(streaming, tmp_path / "theirs", NUMBERED, numbered_samples(3), hashes=["md5", "sha1"])
    assert files(ours) == files(theirs)


def test_columns_of_any_order_and_name_are_written_as_in_streaming(streaming: Any, tmp_path: Path) -> None:
    columns = {
        "z": "int",
        "ä": "str",
        "A": "bytes",
        "a": "uint8",
        "\U0001f600": "str",
        "\0": "str",
        "\uffff": "str",
        " ": "int",
    }
    samples = [{name: {"int": 1, "uint8": 2, "str": name, "bytes": b"b"}[e] for name, e in columns.items()}]
    ours, theirs = write_both(streaming, tmp_path, columns, samples, match_streaming=False, hashes=[])
    assert files(ours) == files(theirs)


@pytest.mark.parametrize("encoding", [*EXAMPLES, "ndarray:int32: 2, 3", "ndarray:"])
def test_fixed_sizes_of_encodings_equal_streamings(encoding: str, streaming: Any) -> None:
    from mx8shards.format.encodings import get_encoding

    theirs = streaming.base.format.mds.encodings.get_mds_encoded_size(encoding)
    assert get_encoding(encoding).size_bytes == theirs == fixed_size(encoding)


def test_all_encodings_hashes_and_compressions_of_streaming_are_supported(streaming: Any) -> None:
    from mx8shards.format import compression, encodings, hashing

    assert streaming.base.format.mds.encodings.get_mds_encodings() == set(encodings._BUILT_IN)
    assert streaming.base.hashing.get_hashes() | {"blake3"} == set(hashing.HASHES)
    for text in streaming.base.compression.get_compressions():
        compression.parse(text)
