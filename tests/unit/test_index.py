"""Is a valid index.json parsed, and an invalid one refused with the place of the error?

The vectors of format_spec break each rule separately; these tests cover values, sizes and combinations.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.format.entries import FileInfo, MdsEntry
from mx8shards.format.hashing import HASHES, hex_length
from mx8shards.format.index import Index, index_bytes, parse_index
from mx8shards.format.shard_bytes import ShardKind
from mx8shards.format.sidecar_bytes import Sidecar
from tests import reference
from tests.strategies import COMPRESSIONS, ENCODINGS, columns

COLUMNS = {"id": "int", "text": "str"}


def entry(number: int = 0, **changes: Any) -> dict[str, Any]:
    name = f"shard.{number:05}.mds"
    raw = {"basename": name, "bytes": 1000 + number, "hashes": {"sha1": f"{number:040x}"}}
    config = reference.config(COLUMNS, None, ["sha1"], 1 << 26)
    return config | {"samples": number % 7, "raw_data": raw, "zip_data": None} | changes


def zipped(number: int = 0) -> dict[str, Any]:
    found = entry(number, compression="zstd:7")
    packed = {"basename": f"shard.{number:05}.mds.zstd", "bytes": 50 + number, "hashes": {"md5": f"{number:032x}"}}
    return found | {"zip_data": packed}


def index(*entries: dict[str, Any], **top: Any) -> bytes:
    return json.dumps({"version": 2, "shards": list(entries)} | top).encode()


OURS = {"spec": 1, "metadata": {}, "sidecars": []}


# values ---------------------------------------------------------------------------------------------------------------


def test_an_index_is_stored_in_arrays_and_returns_single_entries() -> None:
    given_ = [entry(0), zipped(1), entry(2), zipped(3)]
    found = parse_index(index(*given_))
    assert [found.entry(i).to_json() for i in range(4)] == given_
    assert found.samples.tolist() == [0, 1, 2, 3]
    assert found.starts.tolist() == [0, 0, 1, 3, 6]
    assert found.starts.dtype == np.int64
    assert found.compressed.tolist() == [False, True, False, True]
    assert found.stored_bytes.tolist() == [1000, 51, 1002, 53]
    assert found.entry(1).stored.basename == "shard.00001.mds.zstd"
    assert len(found.kinds) == 2
    assert not found.sealed


@st.composite
def entries(draw: st.DrawFn) -> list[MdsEntry]:
    def hashes() -> dict[str, str]:
        names = draw(st.lists(st.sampled_from([*HASHES, "unknown_1", "zz"]), max_size=3, unique=True))
        return {
            name: "0f" * (hex_length(name) // 2) if name in HASHES else "?" * draw(st.integers(1, 256))
            for name in names
        }

    from mx8shards.format.columns import Columns

    made = []
    shared = Columns.of(draw(columns(ENCODINGS)), allow_pickle=True)
    for i in range(draw(st.integers(0, 5))):
        compression = draw(st.sampled_from(COMPRESSIONS))
        limit = draw(st.sampled_from([None, 0, 1 << 40, "64mb"]))
        kind = ShardKind(shared, compression, tuple(sorted(draw(st.sets(st.sampled_from(HASHES), max_size=2)))), limit)
        samples = draw(st.integers(0, 1 << 29))
        raw = FileInfo(f"a/{i}.mds", draw(st.integers(8 + 4 * samples, (1 << 32) - 1)), hashes())
        packed = FileInfo(f"a/{i}.zip", draw(st.integers(0, 1 << 32)), hashes()) if compression else None
        made.append(MdsEntry(kind, samples, raw, packed))
    return made


METADATA = st.dictionaries(
    st.text(max_size=5), st.none() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False)
)


@settings(max_examples=50)
@given(entries(), METADATA)
def test_a_written_index_reads_back_equal(made: list[MdsEntry], metadata: dict[str, Any]) -> None:
    parent = "sha256:" + "0a" * 32
    shards = len(made)
    sidecars = [
        Sidecar(kind="blocks", blake3="ab" * 32, size_bytes=8, start=i, stop=i + 1, block_bytes=1 << 20 - 6 * i)
        for i in range(min(shards, 2))
    ]
    extra = {"theirs": [1.5, {"a": None}], "zz": "ü"}
    data = index_bytes(made, metadata=metadata, sidecars=sidecars, parent=parent, extra=extra)
    found = parse_index(data)
    assert [found.entry(i) for i in range(found.shards)] == made
    assert (found.metadata, found.sidecars, found.parent) == (metadata, tuple(sidecars), parent)
    assert found.extra == extra
    assert data == json.dumps(json.loads(data), sort_keys=True).encode("ascii")
    every = map(found.entry, range(found.shards))
    again = index_bytes(every, metadata=metadata, sidecars=found.sidecars, parent=parent, extra=found.extra)
    assert again == data


def test_an_index_of_a_hundred_thousand_shards_is_parsed_correctly() -> None:
    count = 100_000
    text = json.dumps(entry(0)).replace("shard.00000", "shard.%05d").replace('"samples": 0', '"samples": %d')
    text = text.replace('"bytes": 1000', '"bytes": %d').replace(f'"{0:040x}"', '"%040x"')
    shards = ", ".join(text % (1000, i, 50_000 + i, i) for i in range(count))
    assert json.loads(text % (1000, 7, 50_007, 7))["raw_data"]["hashes"] == {"sha1": f"{7:040x}"}
    found = parse_index(f'{{"shards": [{shards}], "version": 2}}'.encode())
    assert found.shards == count
    assert found.starts[-1] == 1000 * count
    assert (found.raw.size_bytes == 50_000 + np.arange(count)).all()
    for i in (0, 1, 54_321, count - 1):
        info = FileInfo(f"shard.{i:05}.mds", 50_000 + i, {"sha1": f"{i:040x}"})
        assert found.entry(i).raw == info
    assert len(found.kinds) == 1


def test_sums_do_not_overflow() -> None:
    most = (1 << 30) - 3  # empty samples, as many as offsets below 4 GiB allow
    raw = {"bytes": (1 << 32) - 1, "hashes": {}}
    shards = [entry(i, samples=most, raw_data=raw | {"basename": f"{i}"}) for i in range(9)]
    found = parse_index(index(*shards))
    assert found.starts[-1] == 9 * most > 1 << 32
    assert found.stored_bytes.sum() == 9 * ((1 << 32) - 1)


@pytest.mark.parametrize(
    ("top", "accepted"),
    [
        ({}, True),
        ({"anything": [1.5, None, {"deep": [[]]}], "other": "x"}, True),
        ({"mx8shards": OURS}, True),
        ({"mx8shards": OURS | {"metadata": {"a": [1.5]}, "unknown": 7}}, True),
        ({"mx8shards": OURS | {"sidecars": [{"kind": "of tomorrow", "start": -1}]}}, True),
        ({"mx8shards": OURS | {"spec": 2}}, False),
        ({"mx8shards": OURS | {"metadata": []}}, False),
        ({"mx8shards": OURS | {"parent": None}}, False),
        ({"mx8shards": {"spec": 1}}, False),
        ({"mx8shards": None}, False),
        ({"version": "2"}, False),
        ({"version": True}, False),
        ({"shards": {}}, False),
    ],
    ids=str,
)
def test_the_top_level_allows_foreign_keys_and_validates_ours(top: dict[str, Any], accepted: bool) -> None:
    if accepted:
        assert isinstance(parse_index(index(entry(), **top)), Index)
    else:
        with pytest.raises(mx8.FormatError, match=r"^index\.json: at \$\."):
            parse_index(index(entry(), **top))


BREACHES: dict[str, tuple[Any, str]] = {
    "version": ({"version": 1}, r"$.shards[3].version: expected 2, got 1"),
    "format": ({"format": "csv"}, r'$.shards[3].format: expected "mds", got "csv"'),
    "samples": ({"samples": -1}, r"$.shards[3].samples: expected an integer from 0 to 4294967295, got -1"),
    "table": ({"samples": 250}, r"$.shards[3].raw_data.bytes: expected at least 1008 (the offsets of 250 samples)"),
    "raw": ({"raw_data": None}, r"$.shards[3].raw_data: expected an object, got null"),
    "zip": ({"zip_data": {"basename": "z", "bytes": 1, "hashes": {}}}, r"$.shards[3].zip_data: expected null"),
    "zstd": ({"compression": "zstd"}, r"$.shards[3].zip_data: expected a file, got null"),
    "names": ({"column_names": ["id", 5]}, r"$.shards[3].column_names[1]: expected str, got int"),
    "order": ({"column_names": ["text", "id"]}, r'$.shards[3].column_names[1]: expected a name after "text", got "id"'),
    "encoding": ({"column_encodings": ["int", "strr"]}, r"$.shards[3].column_encodings[1]: expected a known encoding"),
    "sizes": ({"column_sizes": [4, None]}, r"$.shards[3].column_sizes[0]: expected 8, the size of int, got 4"),
    "unknown": ({"more": 1}, r"$.shards[3].more: expected one of column_encodings, "),
    "compression": ({"compression": "lzma"}, r"$.shards[3].compression: expected one of br, bz2"),
    "hashes": ({"hashes": "sha1"}, r"$.shards[3].hashes: expected a list, got str"),
    "limit": ({"size_limit": -1}, r"$.shards[3].size_limit: expected null, bytes, or a text"),
}


@pytest.mark.parametrize(("changes", "message"), BREACHES.values(), ids=BREACHES)
def test_an_invalid_field_is_an_error_that_names_shard_and_field(changes: dict[str, Any], message: str) -> None:
    good = [entry(i) for i in range(6)]
    with pytest.raises(mx8.FormatError) as caught:
        parse_index(index(*good[:3], entry(3, **changes), *good[4:]))
    assert str(caught.value).startswith(f"index.json: at {message}")


@pytest.mark.parametrize("key", sorted(entry()))
def test_every_key_of_an_entry_is_mandatory(key: str) -> None:
    broken = entry(1)
    del broken[key]
    with pytest.raises(mx8.FormatError, match=rf"^index\.json: at \$\.shards\[1\]\.{key}: expected"):
        parse_index(index(entry(0), broken))


def test_equal_basenames_are_an_error_that_names_both_entries() -> None:
    other = copy.deepcopy(entry(5))
    other["raw_data"]["basename"] = "shard.00001.mds"
    with pytest.raises(mx8.FormatError) as caught:
        parse_index(index(entry(0), entry(1), other))
    assert str(caught.value) == (
        "index.json: at $.shards[2].raw_data.basename: "
        "expected a name other than $.shards[1].raw_data.basename's, got 'shard.00001.mds'"
    )


def test_the_error_of_a_dataset_names_its_index(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(index(entry(0, samples=True)))
    with pytest.raises(mx8.FormatError, match=rf"^{tmp_path}/index\.json: at \$\.shards\[0\]\.samples: expected"):
        mx8.Dataset(tmp_path)


def test_values_of_different_types_are_told_apart_even_if_python_compares_them_equal() -> None:
    """True, 1 and 1.0 are equal dictionary keys: a cache of validated entries must distinguish them."""
    for number, twin in ((2, 2.0), (2, "2")):
        with pytest.raises(mx8.FormatError, match=r"\$\.shards\[1\]"):
            parse_index(index(entry(0, version=number), entry(1, version=twin)))
    sizes = {"column_names": ["a"], "column_encodings": ["uint8"]}
    with pytest.raises(mx8.FormatError, match=r"\$\.shards\[1\]\.column_sizes\[0\]: expected 1.*, got True"):
        parse_index(index(entry(0, column_sizes=[1], **sizes), entry(1, column_sizes=[True], **sizes)))


# hashes and seals -----------------------------------------------------------------------------------------------------


def with_hashes(number: int, raw: dict[str, str], packed: dict[str, str] | None = None) -> dict[str, Any]:
    found = entry(number) if packed is None else zipped(number)
    found["raw_data"]["hashes"] = raw
    if packed is not None:
        found["zip_data"]["hashes"] = packed
    return found


BLAKE3 = {"blake3": "ab" * 32}
SHA256 = {"sha256": "cd" * 32}


@pytest.mark.parametrize(
    ("shards", "sealed"),
    [
        ([], True),
        ([with_hashes(0, BLAKE3)], True),
        ([with_hashes(0, BLAKE3), with_hashes(1, SHA256)], True),
        ([with_hashes(0, BLAKE3), with_hashes(1, {})], False),
        ([with_hashes(0, {"md5": "ab" * 16})], False),
        ([with_hashes(0, {"xxh128": "ab" * 16, **SHA256})], True),
        ([with_hashes(0, BLAKE3, {})], False),
        ([with_hashes(0, {}, BLAKE3)], True),
        ([with_hashes(0, {"blake4": "ab" * 32})], False),
    ],
    ids=str,
)
def test_a_snapshot_is_sealed_if_every_stored_file_has_a_content_hash(
    shards: list[dict[str, Any]], sealed: bool
) -> None:
    assert parse_index(index(*shards)).sealed == sealed


def test_hashes_may_differ_from_shard_to_shard() -> None:
    given_ = [
        with_hashes(0, {}),
        with_hashes(1, BLAKE3 | {"new_1": "Zz"}),
        with_hashes(2, SHA256),
        with_hashes(3, BLAKE3),
    ]
    found = parse_index(index(*given_))
    assert [dict(found.entry(i).raw.hashes) for i in range(4)] == [entry["raw_data"]["hashes"] for entry in given_]


def test_memory_for_values_of_unknown_hashes_is_bounded_by_their_length(tmp_path: Path, repository: Path) -> None:
    """60 values of 256 characters in one of 20,000 shards: a fixed-width array of all shards would take 307 MB."""
    data = index(with_hashes(0, {f"h{i}": "x" * 256 for i in range(60)}), *(entry(i) for i in range(1, 20_000)))
    (tmp_path / "index.json").write_bytes(data)
    code = f"""
import mx8shards as mx8, numpy
from tests.property.mutations import limit_memory
limit_memory(200 << 20)
assert len(mx8.Dataset({str(tmp_path)!r})) > 50_000
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["", " ", "\n", "\r\n\t "])
def test_whitespace_and_the_order_of_keys_do_not_matter(space: str) -> None:
    keys = [
        '"mx8shards": {"sidecars": [], "spec": 1, "metadata": {}}',
        f'"shards": [{json.dumps(entry(1))}]',
        '"version": 2',
    ]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        text = space + "{" + ",".join(space + keys[i] + space for i in order) + "}" + space
        found = parse_index(text.replace(": ", f"{space}:{space}").encode())
        assert found.entry(0).to_json() == entry(1)


@pytest.mark.parametrize("depth", [10, 500, 100_000, 3_000_000])
def test_deep_nesting_is_accepted_or_refused_without_a_crash(depth: int) -> None:
    text = '{"version": 2, "shards": [], "deep": ' + "[" * depth + "]" * depth + "}"
    found = ""
    try:
        parse_index(text.encode())
    except mx8.FormatError as error:
        found = str(error)
    assert found == "" or "too deeply nested" in found
    assert depth > 10 or not found
    assert depth < 100_000 or found


def test_an_index_beyond_the_size_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "index.json").open("wb") as file:
        file.truncate((512 << 20) + 1)  # sparse: takes no room
    with pytest.raises(mx8.FormatError, match="expected at most 536870912 bytes, got 536870913"):
        mx8.Dataset(tmp_path)
