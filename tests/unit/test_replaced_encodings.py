"""Do datasets open whose writer replaced a built-in encoding under its own name (column_sizes null for uint8)?"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.codec import Codec
from mx8shards.format.encodings import replace_encoding

LATENTS = [np.arange(6, dtype="<u2"), np.arange(3, dtype="<u2"), np.array([7], "<u2")]


def write_by_hand(root: Path, encoding: str, payloads: list[bytes]) -> Path:
    """A dataset with one variable-size column `x` under the name of this encoding, as imagenet.int8 has it."""
    samples = [struct.pack("<I", len(payload)) + payload for payload in payloads]
    begins = np.cumsum([4 * (len(samples) + 2), *map(len, samples)]).astype("<u4")
    data = np.uint32(len(samples)).tobytes() + begins.tobytes() + b"".join(samples)
    root.mkdir()
    (root / "shard.00000.mds").write_bytes(data)
    entry = {"column_encodings": [encoding], "column_names": ["x"], "column_sizes": [None], "compression": None}
    entry |= {"format": "mds", "hashes": [], "samples": len(samples), "size_limit": None, "version": 2}
    entry |= {"raw_data": {"basename": "shard.00000.mds", "bytes": len(data), "hashes": {}}, "zip_data": None}
    (root / "index.json").write_text(json.dumps({"shards": [entry], "version": 2}))
    return root


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    return write_by_hand(tmp_path / "latents", "uint16", [latent.tobytes() for latent in LATENTS])


class Halves(Codec):
    """Payloads are texts of numbers, each half of the value."""

    def pack(self, value: Any) -> bytes:
        return str(value // 2).encode()

    def unpack(self, payload: bytes | memoryview) -> int:
        return 2 * int(bytes(payload))


@pytest.fixture
def halves() -> Iterator[None]:
    replace_encoding("uint16", Halves)
    yield
    replace_encoding("uint16", None)


def test_a_number_of_any_size_decodes_to_the_array_that_its_bytes_hold(latents: Path) -> None:
    with mx8.Dataset(latents) as dataset:
        for found, expected in zip(dataset, LATENTS, strict=True):
            assert found["x"].dtype == expected.dtype
            np.testing.assert_array_equal(found["x"], expected)


def test_a_loader_gives_such_a_column_as_ragged_rows(latents: Path) -> None:
    pytest.importorskip("torch")
    with mx8.Dataset(latents) as dataset, mx8.Loader(dataset, batch_size=3) as loader:
        (batch,) = loader
        for i, expected in enumerate(LATENTS):
            np.testing.assert_array_equal(batch["x"][i], expected)


def test_an_array_of_fixed_shape_gets_one_more_dimension(tmp_path: Path) -> None:
    pairs = np.arange(6, dtype="<i4").reshape(3, 2)
    root = write_by_hand(tmp_path / "pairs", "ndarray:int32:2", [pairs.tobytes()])
    with mx8.Dataset(root) as dataset:
        np.testing.assert_array_equal(dataset[0]["x"], pairs)


def test_bytes_that_hold_no_such_numbers_are_an_error_with_a_hint(tmp_path: Path) -> None:
    root = write_by_hand(tmp_path / "odd", "uint16", [b"abc"])
    with mx8.Dataset(root) as dataset, pytest.raises(mx8.FormatError, match=r"multiple of 2 bytes.*_encodings"):
        dataset[0]


def test_a_replaced_encoding_reads_and_writes_its_own_payloads(tmp_path: Path, halves: None) -> None:
    with mx8.Writer(tmp_path / "data", columns={"x": "uint16"}) as writer:
        writer.write({"x": 14})
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert dataset[0] == {"x": 14}
        assert bytes(dataset.payload(0, "x")) == b"7"


def test_a_replaced_encoding_also_reads_columns_of_the_built_in_size(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"x": "uint16"}) as writer:
        writer.write({"x": b"12"})
    replace_encoding("uint16", Halves)
    try:
        with mx8.Dataset(tmp_path / "data") as dataset:
            assert dataset[0] == {"x": 24}
    finally:
        replace_encoding("uint16", None)
