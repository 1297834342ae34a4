"""Is every hash algorithm correct, in one call and in pieces?"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mx8shards.errors import FormatError
from mx8shards.format.hashing import CONTENT_HASHES, HASHES, hash_hex, hasher, hex_length

SPEC = Path(__file__).parents[2] / "format_spec"
VECTORS = SPEC / "vectors" / "hashes.json"
REGISTRY = SPEC / "encodings.md"
EVERY_HASH = pytest.mark.parametrize("name", HASHES)


def vectors() -> Any:
    return json.loads(VECTORS.read_text())


def test_the_hash_names_are_streamings_seventeen_and_blake3() -> None:
    assert len(HASHES) == 18
    assert set(HASHES) == set(vectors()["hashes"])
    assert list(HASHES) == sorted(HASHES)


@EVERY_HASH
def test_hashes_match_the_spec_vectors(name: str) -> None:
    inputs = [bytes.fromhex(text) for text in vectors()["inputs"]]
    expected = vectors()["hashes"][name]
    found = [hash_hex(name, data) for data in inputs]
    assert len(found) >= 3
    assert found == list(expected)


@EVERY_HASH
def test_hashing_in_pieces_equals_hashing_at_once(name: str) -> None:
    data = bytes(range(256)) * 700
    pieces = hasher(name)
    for begin in range(0, len(data), 50_001):
        pieces.update(memoryview(data)[begin : begin + 50_001])
    assert pieces.hexdigest() == hash_hex(name, data) == hash_hex(name, memoryview(data))


@EVERY_HASH
def test_a_hash_is_lowercase_hex_of_its_length(name: str) -> None:
    found = hash_hex(name, b"mx8")
    assert len(found) == hex_length(name)
    assert set(found) <= set("0123456789abcdef")


def test_content_hashes_are_those_that_the_registry_marks_as_sealing() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (yes)? ?\|", REGISTRY.read_text(), re.MULTILINE)
    hashes = [(name, int(length), sealing) for name, length, sealing in rows if name in HASHES]
    assert {name: length for name, length, _ in hashes} == {name: hex_length(name) for name in HASHES}
    assert {name for name, _, sealing in hashes if sealing} == CONTENT_HASHES


@pytest.mark.parametrize("name", ["sha1024", "", "SHA256", "shake_128", "crc32c", None, ["sha256"]])
def test_an_unknown_hash_is_an_error_that_lists_the_known_ones(name: Any) -> None:
    for function in (hasher, hex_length, lambda name: hash_hex(name, b"")):
        with pytest.raises(FormatError, match=r"expected one of blake2b, .*, xxh64, got") as caught:
            function(name)
        assert caught.value.found == repr(name)


def test_md5_and_sha1_equal_hashlibs() -> None:
    assert hash_hex("md5", b"abc") == hashlib.md5(b"abc").hexdigest()
    assert hash_hex("sha1", b"abc") == hashlib.sha1(b"abc").hexdigest()


def test_neither_blake3_nor_xxhash_is_imported_before_it_is_used() -> None:
    script = """
import sys
from mx8shards.format import hashing
assert not {"blake3", "xxhash"} & set(sys.modules)
hashing.hash_hex("xxh64", b""), hashing.hash_hex("blake3", b"")
assert {"blake3", "xxhash"} <= set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
