"""Are side-cars written as specified, and invalid ones ignored or reported?"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.file_blocks import BLOCK_BYTES, SMALL_BLOCK_BYTES
from mx8shards.format.sidecar_bytes import padded
from mx8shards.shards.sidecars import open_sidecar
from mx8shards.shards.snapshots import current
from tests import reference

COLUMNS = {"b": "uint8", "blob": "bytes", "h": "float16", "i": "int", "v": "ndarray:uint8:3"}


def write(root: Path, count: int = 20, **options: Any) -> Path:
    options = {"columns": COLUMNS, "size_limit": 700, **options}
    with mx8.Writer(root, **options) as writer:
        for i in range(count):
            writer.write({"b": i % 251, "blob": bytes(i % 5), "h": i, "i": -i, "v": np.full(3, i % 251, "uint8")})
    return root


def entries(root: Path) -> list[dict[str, Any]]:
    return reference.read_index(root)["mx8shards"]["sidecars"]  # type: ignore[no-any-return]


def sidecar(root: Path, kind: str) -> tuple[dict[str, Any], Path]:
    (entry,) = (entry for entry in entries(root) if entry["kind"] == kind)
    return entry, root / ".mx8shards" / "sidecars" / entry["blake3"]


# contents -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zstd", "gz"])
def test_block_digests_are_hashes_of_each_mebibyte_of_the_stored_files(compression: str | None, tmp_path: Path) -> None:
    root = tmp_path / "data"
    rng = np.random.default_rng(1)
    with mx8.Writer(root, columns={"x": "bytes"}, compression=compression, size_limit=3 << 20) as writer:
        for size in (10, 1 << 20, (2 << 20) + 7, 5 << 20, 1):
            writer.write({"x": rng.bytes(size)})
    wanted = b"MX8BLK1\n"
    for shard in reference.read_index(root)["shards"]:
        data = (root / (shard["zip_data"] or shard["raw_data"])["basename"]).read_bytes()
        for begin in range(0, len(data), 1 << 20):
            wanted += blake3.blake3(data[begin : begin + (1 << 20)]).digest()
    entry, path = sidecar(root, "blocks")
    assert path.read_bytes() == wanted
    assert entry == {
        "kind": "blocks",
        "blake3": blake3.blake3(wanted).hexdigest(),
        "bytes": len(wanted),
        "start": 0,
        "stop": len(reference.read_index(root)["shards"]),
    }


VIDEOS = {"videos": {"video": {"packets": "packets"}}}


def small(root: Path, count: int = 3, **options: Any) -> Path:
    """Samples of 40,000 bytes, two in a shard, written as those of videos are."""
    settings = {"columns": {"blob": "bytes"}, "size_limit": 90_000, "metadata": VIDEOS}
    with mx8.Writer(root, **{**settings, **options}) as writer:
        for i in range(count):
            writer.write({"blob": np.random.default_rng(i).bytes(40_000)})
    return root


def sizes(root: Path) -> list[tuple[int, int]]:
    """For each side-car of blocks the number of its shards, and the size of its blocks; they must be right."""
    found = [each for each in entries(root) if each["kind"] == "blocks"]
    shards = reference.read_index(root)["shards"]
    for entry in found:
        wanted, each = b"MX8BLK1\n", entry.get("block_bytes", BLOCK_BYTES)
        for shard in shards[entry["start"] : entry["stop"]]:
            data = (root / (shard["zip_data"] or shard["raw_data"])["basename"]).read_bytes()
            wanted += b"".join(blake3.blake3(data[at : at + each]).digest() for at in range(0, len(data), each))
        assert (root / ".mx8shards" / "sidecars" / entry["blake3"]).read_bytes() == wanted
        assert entry["bytes"] == len(wanted)
    return [(each["stop"] - each["start"], each.get("block_bytes", BLOCK_BYTES)) for each in found]


def test_shards_with_videos_have_small_blocks(tmp_path: Path) -> None:
    assert sizes(small(tmp_path / "videos")) == [(2, SMALL_BLOCK_BYTES)]
    assert sizes(small(tmp_path / "others", metadata={"videos": {}})) == [(2, BLOCK_BYTES)]
    assert sizes(small(tmp_path / "packed", compression="zstd")) == [(2, BLOCK_BYTES)]
    assert mx8.verify(tmp_path / "videos", data=True).ok


def test_blocks_of_any_size_are_kept_by_append_and_merge(tmp_path: Path) -> None:
    root = small(tmp_path / "data", metadata=None)
    with mx8.Writer(root, columns={"blob": "bytes"}, mode="append", metadata=VIDEOS) as writer:
        writer.write({"blob": b"some"})
    small(root, mode="append", metadata=None)  # the metadata of the dataset stay
    mixed = [(2, BLOCK_BYTES), (1, SMALL_BLOCK_BYTES), (2, SMALL_BLOCK_BYTES)]
    assert sizes(root) == mixed
    assert mx8.verify(root, data=True).ok
    parts = [root, small(tmp_path / "old", 2, metadata=None)]
    mx8.merge(parts, tmp_path / "merged", how="copy", metadata=VIDEOS)
    assert sizes(tmp_path / "merged") == [*mixed, (1, BLOCK_BYTES)]
    assert mx8.verify(tmp_path / "merged", data=True).ok


def test_sealing_makes_small_blocks_where_there_are_videos(tmp_path: Path) -> None:
    root = small(tmp_path / "data")
    index = reference.read_index(root)
    for shard in index["shards"]:
        shard["raw_data"]["hashes"] = {}
    index["mx8shards"]["sidecars"] = []
    (root / "index.json").write_text(json.dumps(index))
    assert mx8.verify(root, seal=True).ok
    assert sizes(root) == [(2, SMALL_BLOCK_BYTES)]


@pytest.mark.parametrize("value", [0, 1, 2_048, 4_095, 5_000, 1 << 21, -4_096, True, None, 16_384.0, "16384"])
def test_blocks_of_other_sizes_are_refused(value: object, tmp_path: Path) -> None:
    root = small(tmp_path / "data")
    republish(root, lambda found: found[0].update(block_bytes=value))
    wanted = r"sidecars\[0\].block_bytes: expected a power of two from 4096 to 1048576, got"
    with pytest.raises(mx8.FormatError, match=wanted):
        mx8.Dataset(root)


def test_blocks_of_another_size_than_the_file_has_are_found(tmp_path: Path) -> None:
    root = small(tmp_path / "data")
    republish(root, lambda found: found[0].update(block_bytes=1 << 12))
    (damage,) = mx8.verify(root, data=True).damage
    assert "bytes, got" in damage.error


def test_damage_in_small_blocks_is_that_of_few_samples(tmp_path: Path) -> None:
    root = small(tmp_path / "data", 20, size_limit=None)
    shard = root / "shard.00000.mds"
    data = bytearray(shard.read_bytes())
    at = len(data) // 2
    data[at] ^= 1
    shard.write_bytes(data)
    (damage,) = mx8.verify(root, data=True).damage
    assert (damage.blocks, damage.block_bytes) == ((at // SMALL_BLOCK_BYTES,), SMALL_BLOCK_BYTES)
    ((start, stop),) = damage.samples
    assert start <= at // 40_004 < stop <= start + 2


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_column_values_of_every_shard_are_arrays_aligned_to_eight_bytes(
    compression: str | None, tmp_path: Path
) -> None:
    root = write(tmp_path / "data", compression=compression)
    wanted, i = b"MX8COL1\n", 0
    for shard in reference.read_index(root)["shards"]:
        rows = range(i, i + shard["samples"])
        for numbers in (
            bytes(i % 251 for i in rows),
            np.array(list(rows), "<f2").tobytes(),
            b"".join(struct.pack("<q", -i) for i in rows),
        ):
            wanted += numbers + bytes(-len(numbers) % 8)
        i += shard["samples"]
    entry, path = sidecar(root, "columns")
    assert path.read_bytes() == wanted
    assert entry["columns"] == ["b", "h", "i"]
    assert entry["bytes"] == len(wanted)


def test_without_numeric_columns_there_is_no_columns_side_car(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"a": "bytes", "v": "ndarray:uint8:3"}) as writer:
        writer.write({"a": b"", "v": b"123"})
    assert [entry["kind"] for entry in entries(tmp_path / "data")] == ["blocks"]


def test_without_shards_there_is_no_side_car(tmp_path: Path) -> None:
    assert entries(write(tmp_path / "data", 0, match_streaming=True)) == []


def test_every_publication_adds_side_cars_of_its_shards(tmp_path: Path) -> None:
    root = write(tmp_path / "data", 7)
    write(root, 5, mode="append")
    write(root, 3, mode="append")
    found = [(entry["kind"], entry["start"], entry["stop"]) for entry in entries(root)]
    first, second = found[0][2], found[2][2]
    last = len(reference.read_index(root)["shards"])
    wanted = [(kind, *span) for span in ((0, first), (first, second), (second, last)) for kind in ("blocks", "columns")]
    assert found == wanted
    assert mx8.Dataset(root).column("i").tolist() == [*range(0, -7, -1), *range(0, -5, -1), *range(0, -3, -1)]


def test_equal_side_cars_share_one_file(tmp_path: Path) -> None:
    root = write(tmp_path / "data", 5)
    write(root, 5, mode="overwrite")
    assert len(list((root / ".mx8shards" / "sidecars").iterdir())) == 2


@pytest.mark.parametrize(("size", "wanted"), [(0, 0), (1, 8), (8, 8), (9, 16), ((1 << 40) + 1, (1 << 40) + 8)])
def test_sizes_are_padded_to_multiples_of_eight(size: int, wanted: int) -> None:
    assert padded(size) == wanted


# verification ---------------------------------------------------------------------------------------------------------


def test_a_dataset_works_without_a_missing_side_car(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    sidecar(root, "columns")[1].unlink()
    assert mx8.Dataset(root).column("i").tolist() == list(range(0, -20, -1))


def test_a_flipped_bit_in_a_side_car_is_found_before_it_is_used(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    entry, path = sidecar(root, "columns")
    whole = path.read_bytes()
    for at in (0, 8, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        wanted = rf"{entry['blake3']}: blake3: expected {entry['blake3']}, got .*the shards are read instead"
        with pytest.raises(mx8.IntegrityError, match=wanted):
            mx8.Dataset(root).column("i")
        assert mx8.Dataset(root)[3]["i"] == -3


@pytest.mark.parametrize("change", [b"", b"MX8COL1\n", None])
def test_a_side_car_of_wrong_length_is_refused(change: bytes | None, tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    entry, path = sidecar(root, "columns")
    path.write_bytes(path.read_bytes() + b"\0" if change is None else change)
    with pytest.raises(mx8.FormatError, match=rf"{entry['blake3']}: expected {entry['bytes']} bytes, got"):
        mx8.Dataset(root).column("i")


def republish(root: Path, change: Any) -> Path:
    """Change the index and its kept copy, as another tool could publish it."""
    index = reference.read_index(root)
    change(index["mx8shards"]["sidecars"])
    data = json.dumps(index, sort_keys=True).encode()
    (root / "index.json").write_bytes(data)
    (root / ".mx8shards" / "snapshots" / f"{hashlib.sha256(data).hexdigest()}.json").write_bytes(data)
    return root


def replace_file(root: Path, entry: dict[str, Any], data: bytes) -> None:
    entry["blake3"] = blake3.blake3(data).hexdigest()
    (root / ".mx8shards" / "sidecars" / entry["blake3"]).write_bytes(data)


def test_a_side_car_with_a_wrong_size_in_the_index_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    _, path = sidecar(root, "columns")
    longer = path.read_bytes() + bytes(8)

    def change(found: list[dict[str, Any]]) -> None:
        found[1]["bytes"] += 8
        replace_file(root, found[1], longer)

    republish(root, change)
    with pytest.raises(mx8.FormatError, match=rf"expected {len(longer) - 8} bytes, got {len(longer)}"):
        mx8.Dataset(root).column("i")


def test_a_side_car_of_wrong_kind_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    _, path = sidecar(root, "columns")
    other = b"MX8BLK1\n" + path.read_bytes()[8:]
    republish(root, lambda found: replace_file(root, found[1], other))
    with pytest.raises(mx8.FormatError, match="expected a side-car of kind columns, got b'MX8BLK1"):
        mx8.Dataset(root).column("i")


@pytest.mark.parametrize("name", ["blob", "v", "nope"])
def test_a_side_car_of_a_column_that_is_not_numeric_is_refused(name: str, tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    republish(root, lambda found: found[1].update(columns=sorted(["i", name])))
    with pytest.raises(mx8.FormatError, match="side"):
        mx8.Dataset(root).column("i")
    assert mx8.Dataset(root)[3]["i"] == -3


def test_side_cars_of_unknown_kinds_are_ignored(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    republish(root, lambda found: found.append({"kind": "of tomorrow", "start": "?", "blake3": 5}))
    assert mx8.Dataset(root).column("i").tolist() == list(range(0, -20, -1))
    write(root, 2, mode="append")
    assert mx8.Dataset(root).column("i").tolist() == [*range(0, -20, -1), 0, -1]


def test_an_opened_side_car_has_the_verified_bytes(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    snapshot = current(root)
    for found in snapshot.index.sidecars:
        data = open_sidecar(snapshot, found)
        assert data is not None
        assert not data.flags.writeable
        assert blake3.blake3(bytes(data)).hexdigest() == found.blake3
