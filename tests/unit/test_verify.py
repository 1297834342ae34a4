"""Does verify find all damage and the affected samples, without false alarms?"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from blake3 import blake3

import mx8shards as mx8
from mx8shards.errors import FormatError
from mx8shards.format.columns import Columns
from mx8shards.format.shard_bytes import head
from mx8shards.maintain.report import Damage, Report, ranges
from mx8shards.maintain.walk import SampleWalk
from tests.maintenance import COLUMNS, STATE, cut, edit_index, flip, ids, make_foreign, offsets, sample, tree, write

BLOCK = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "data", range(100))
    return tmp_path / "data"


def only_damage(report: Report) -> Damage:
    assert not report.ok
    (damage,) = report.damage
    return damage


# undamaged datasets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zstd", "gz", "bz2", "br", "snappy"])
@pytest.mark.parametrize("mode", ["structure", "subset", "data"])
def test_a_new_dataset_is_ok(tmp_path: Path, compression: str | None, mode: str) -> None:
    snapshot = write(tmp_path, range(100), compression=compression)
    report = mx8.verify(tmp_path, data=mode == "data", subset="30%" if mode == "subset" else None)
    shards = len(list(tmp_path.glob("shard.*")))
    assert report.ok
    assert report.damage == ()
    assert (report.snapshot, report.sealed, report.mode) == (snapshot, True, mode)
    assert (report.shards, report.samples, report.snapshots, report.unchecked) == (shards, 100, 1, 0)
    assert report.data_shards == {"structure": 0, "subset": round(0.3 * shards), "data": shards}[mode]


@pytest.mark.parametrize("numbers", [range(0), range(1)])
def test_a_dataset_of_no_samples_or_one_is_ok(tmp_path: Path, numbers: range) -> None:
    write(tmp_path, numbers)
    assert mx8.verify(tmp_path, data=True).ok


def test_verify_never_changes_a_file(root: Path) -> None:
    before = tree(root)
    mx8.verify(root, data=True)
    assert tree(root) == before


def test_a_report_can_be_written_as_json(root: Path) -> None:
    flip(root / "shard.00000.mds", 8 * 1500)
    report = mx8.verify(root, data=True)
    found = json.loads(json.dumps(report.to_json()))
    assert found["ok"] is False
    assert found["snapshot"] == report.snapshot
    assert found["damage"][0]["file"] == "shard.00000.mds"


def test_progress_counts_every_byte_and_ends_at_the_total(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    mx8.verify(root, data=True, progress=lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for path in root.glob("shard.*"))
    assert calls == sorted(calls)
    assert calls[-1] == (total, total)


def test_a_directory_without_a_dataset_is_an_error_and_not_a_report(tmp_path: Path) -> None:
    with pytest.raises(mx8.DatasetNotFoundError, match="no dataset here"):
        mx8.verify(tmp_path / "nothing")


# structure ------------------------------------------------------------------------------------------------------------


def test_a_missing_shard_is_reported_with_its_samples(root: Path) -> None:
    name = sorted(path.name for path in root.glob("shard.*"))[1]
    first = len(offsets(root / "shard.00000.mds")) - 1
    count = len(offsets(root / name)) - 1
    (root / name).unlink()
    damage = only_damage(mx8.verify(root))
    assert (damage.file, damage.reason, damage.samples) == (name, "missing", ((first, first + count),))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def decrease_an_offset(path: Path) -> None:
    flip(path, 8 * 9 + 7)  # the second byte of offset 1


def miscount(path: Path) -> None:
    flip(path, 0)


def replace_by_a_symlink(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


@pytest.mark.parametrize("harm", [cut, grow, decrease_an_offset, miscount, replace_by_a_symlink])
def test_broken_structure_is_found_without_reading_data(root: Path, harm: Any) -> None:
    harm(root / "shard.00000.mds")
    damage = only_damage(mx8.verify(root))
    assert (damage.file, damage.reason) == ("shard.00000.mds", "format")
    assert ids(damage.samples) == set(range(len(offsets(root / "shard.00001.mds")) - 1))
    assert "shard.00000.mds" not in damage.error


def test_a_directory_that_became_a_file_makes_shards_unreadable(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    write(tmp_path, range(30), mode="overwrite")
    shutil.rmtree(tmp_path / "g0001")
    (tmp_path / "g0001").write_bytes(b"")
    report = mx8.verify(tmp_path)
    assert {damage.reason for damage in report.damage} == {"unreadable"}
    assert ids(r for damage in report.damage for r in damage.samples) == set(range(30))


def test_payloads_are_read_only_with_data(root: Path) -> None:
    flip(root / "shard.00000.mds", 8 * 1500)
    assert mx8.verify(root).ok
    assert only_damage(mx8.verify(root, data=True)).reason == "integrity"


# index files ----------------------------------------------------------------------------------------------------------


def test_an_index_changed_outside_is_damage(root: Path) -> None:
    edit_index(root, lambda index: index["mx8shards"]["metadata"].update(a=1))
    report = mx8.verify(root)
    damage = only_damage(report)
    assert (damage.file, damage.reason, damage.samples) == ("index.json", "integrity", ())
    assert "changed outside mx8shards" in damage.error
    assert (report.shards, report.sealed) == (len(list(root.glob("shard.*"))), False)  # the kept index files


def test_an_invalid_index_is_damage(root: Path) -> None:
    make_foreign(root)
    (root / "index.json").write_bytes(b"{")
    damage = only_damage(mx8.verify(root))
    assert (damage.file, damage.reason) == ("index.json", "format")


def test_a_lost_index_is_damage_where_snapshots_are_kept(root: Path) -> None:
    (root / "index.json").unlink()
    damage = only_damage(mx8.verify(root, data=True))
    assert (damage.file, damage.reason) == ("index.json", "missing")


def test_a_kept_index_that_changed_is_damage(root: Path) -> None:
    write(root, range(100, 120), mode="append")
    for kept in sorted((root / STATE / "snapshots").iterdir()):
        flip(kept, 8 * 100)
        damage = only_damage(mx8.verify(root))
        assert (damage.file, damage.reason) == (f"{STATE}/snapshots/{kept.name}", "integrity")
        assert damage.snapshot == f"sha256:{kept.stem}"
        flip(kept, 8 * 100)


# older snapshots ------------------------------------------------------------------------------------------------------


def test_shards_that_only_an_older_snapshot_uses_are_checked_with_data(root: Path) -> None:
    old = mx8.Dataset(root).snapshot
    write(root, range(50), mode="overwrite")
    flip(root / "shard.00000.mds", 8 * 1500)
    assert mx8.verify(root).ok
    damage = only_damage(mx8.verify(root, data=True))
    assert (damage.file, damage.snapshot) == ("shard.00000.mds", old)


def test_a_file_of_several_snapshots_is_read_and_reported_once(root: Path) -> None:
    new = write(root, range(100, 150), mode="append")
    flip(root / "shard.00000.mds", 8 * 1500)
    report = mx8.verify(root, data=True)
    assert only_damage(report).snapshot == new
    assert report.shards == len(list(root.glob("shard.*")))


def test_a_pinned_link_checks_only_that_snapshot(root: Path) -> None:
    old = mx8.Dataset(root).snapshot
    new = write(root, range(50), mode="overwrite")
    flip(root / "shard.00000.mds", 8 * 1500)
    assert mx8.verify(f"{root}@{new}", data=True).ok
    assert only_damage(mx8.verify(f"{root}@{old}", data=True)).file == "shard.00000.mds"


# side-cars and the cache ----------------------------------------------------------------------------------------------


def sidecar(root: Path, kind: str) -> Path:
    (found,) = (s for s in json.loads((root / "index.json").read_bytes())["mx8shards"]["sidecars"] if s["kind"] == kind)
    return root / STATE / "sidecars" / found["blake3"]


@pytest.mark.parametrize("kind", ["blocks", "columns"])
def test_a_damaged_sidecar_affects_no_sample(root: Path, kind: str) -> None:
    path = sidecar(root, kind)
    flip(path, 8 * 30)
    assert mx8.verify(root).ok
    damage = only_damage(mx8.verify(root, data=True))
    assert (damage.file, damage.reason) == (f"{STATE}/sidecars/{path.name}", "integrity")
    assert (damage.samples, damage.blocks) == ((), ())


@pytest.mark.parametrize("kind", ["blocks", "columns"])
@pytest.mark.parametrize("data", [False, True])
def test_a_missing_or_truncated_sidecar_is_damage(root: Path, kind: str, data: bool) -> None:
    path = sidecar(root, kind)
    cut(path)
    assert only_damage(mx8.verify(root, data=data)).reason == "format"
    path.unlink()
    damage = only_damage(mx8.verify(root, data=data))
    assert (damage.file, damage.reason) == (f"{STATE}/sidecars/{path.name}", "missing")


def replace_sidecar(root: Path, kind: str, data: bytes) -> None:
    """Publish a changed side-car with its right size and hash."""
    name = blake3(data).hexdigest()
    (root / STATE / "sidecars" / name).write_bytes(data)

    def edit(index: dict[str, Any]) -> None:
        for entry in index["mx8shards"]["sidecars"]:
            if entry["kind"] == kind:
                entry["blake3"] = name

    edit_index(root, edit, keep=True)


def test_wrong_block_digests_are_found_even_if_every_hash_is_right(root: Path) -> None:
    data = bytearray(sidecar(root, "blocks").read_bytes())
    data[8 + 3] ^= 1  # in the digest of the first shard's first block
    replace_sidecar(root, "blocks", bytes(data))
    assert mx8.verify(root).ok
    damage = only_damage(mx8.verify(root, data=True))
    assert (damage.file, damage.reason) == (f"{STATE}/sidecars/{blake3(bytes(data)).hexdigest()}", "integrity")
    assert (damage.samples, damage.blocks) == ((), ())
    assert "block 0" in damage.error


def test_wrong_numbers_in_a_sidecar_are_found_even_if_its_hash_is_right(root: Path) -> None:
    data = bytearray(sidecar(root, "columns").read_bytes())
    data[8 + 3 * 8] ^= 1  # the fourth label of the first shard
    replace_sidecar(root, "columns", bytes(data))
    damage = only_damage(mx8.verify(root, data=True))
    assert damage.file.startswith(f"{STATE}/sidecars/")
    assert (damage.reason, damage.samples) == ("integrity", ((3, 4),))
    assert "column 'label'" in damage.error


def test_block_digests_find_damage_in_shards_without_hashes(root: Path) -> None:
    def edit(index: dict[str, Any]) -> None:
        for entry in index["shards"]:
            entry["raw_data"]["hashes"] = {}

    edit_index(root, edit, keep=True)
    assert mx8.verify(root, data=True).unchecked == 0
    flip(root / "shard.00001.mds", 8 * 1500)
    damage = next(damage for damage in mx8.verify(root, data=True).damage if damage.blocks)
    assert (damage.file, damage.reason, damage.blocks) == ("shard.00001.mds", "integrity", (0,))


def test_a_damaged_decompressed_copy_is_found(tmp_path: Path) -> None:
    write(tmp_path, range(30), compression="zstd", size_limit=None)
    assert mx8.Dataset(tmp_path)[0] is not None
    (copy,) = (tmp_path / STATE / "cache").glob("*.mds")
    assert mx8.verify(tmp_path, data=True).ok
    flip(copy, 8 * 1500)
    damage = only_damage(mx8.verify(tmp_path, data=True))
    assert (damage.file, damage.samples) == (f"{STATE}/cache/{copy.name}", ((0, 30),))
    copy.unlink()
    assert mx8.verify(tmp_path, data=True).ok


def only_raw(root: Path, *, publisher: str) -> list[Path]:
    """Streaming's cache with keep_zip=False has only the raw files of compressed shards."""
    write(root, range(100), compression="zstd", hashes=("sha1",))
    if publisher == "others":
        make_foreign(root, hashes=("sha1",))
    raw = []
    for stored in sorted(root.glob("shard.*.zstd")):
        raw.append(stored.with_suffix(""))
        raw[-1].write_bytes(zstandard.decompress(stored.read_bytes()))
        stored.unlink()
    return raw


@pytest.mark.parametrize("publisher", ["us", "others"])
@pytest.mark.parametrize("data", [False, True])
def test_the_raw_file_of_a_compressed_shard_is_enough(tmp_path: Path, publisher: str, data: bool) -> None:
    raw = only_raw(tmp_path, publisher=publisher)
    assert len(list(mx8.Dataset(tmp_path))) == 100
    seen: list[tuple[int, int]] = []
    report = mx8.verify(tmp_path, data=data, progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1] == (sum(path.stat().st_size for path in raw) if data else seen[-1][1])
    assert (report.shards, report.unchecked) == (len(raw), 0)


@pytest.mark.parametrize("publisher", ["us", "others"])
def test_damage_of_a_raw_file_without_its_compressed_file_is_found(tmp_path: Path, publisher: str) -> None:
    raw = only_raw(tmp_path, publisher=publisher)
    flip(raw[1], 8 * (raw[1].stat().st_size - 3))
    assert mx8.verify(tmp_path).ok
    damage = only_damage(mx8.verify(tmp_path, data=True))
    assert (damage.file, damage.reason) == (raw[1].name, "integrity")
    cut(raw[2])
    assert only_damage(mx8.verify(tmp_path)).reason == "missing"  # no reader accepts it, and there is no other file
    with pytest.raises(mx8.DatasetNotFoundError):
        list(mx8.Dataset(tmp_path))


# foreign datasets -----------------------------------------------------------------------------------------------------


# concurrent publications and gc ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"data": True}, {"subset": "100%"}, {}])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_files_that_gc_removes_meanwhile_are_not_damage(tmp_path: Path, options: Any, compression: str | None) -> None:
    write(tmp_path, range(200), compression=compression)
    newer: list[str] = []

    def replace(done: int, total: int) -> None:
        if not newer:
            newer.append(write(tmp_path, range(100), mode="overwrite", compression=compression))
            mx8.gc(tmp_path, keep=0)

    report = mx8.verify(tmp_path, progress=replace, **options)
    assert report.ok
    if options or compression is None:  # otherwise no shard is read and progress is not called
        assert (report.snapshot, report.samples) == (newer[0], 100)


def test_a_dataset_that_changes_all_the_time_is_an_error_and_not_a_report(tmp_path: Path) -> None:
    write(tmp_path, range(200))
    numbers = itertools.count(1)

    def replace(done: int, total: int) -> None:
        write(tmp_path, range(200), mode="overwrite", metadata={"number": next(numbers)})
        mx8.gc(tmp_path, keep=0)

    with pytest.raises(mx8.DatasetNotFoundError, match="changed 3 times while it was verified"):
        mx8.verify(tmp_path, data=True, progress=replace)
    assert mx8.verify(tmp_path, data=True).ok


def test_damage_is_reported_even_if_snapshots_are_published_meanwhile(tmp_path: Path) -> None:
    write(tmp_path, range(200))
    cut(tmp_path / "shard.00003.mds")
    written: list[str] = []

    def append(done: int, total: int) -> None:
        if not written:
            written.append(write(tmp_path, range(100), mode="append"))
            mx8.gc(tmp_path, keep=0)

    assert [damage.file for damage in mx8.verify(tmp_path, data=True, progress=append).damage] == ["shard.00003.mds"]
    assert written


def test_a_first_snapshot_that_is_not_fully_published_is_no_dataset(tmp_path: Path) -> None:
    write(tmp_path, range(20))
    (tmp_path / "index.json").unlink()
    (tmp_path / STATE / "staging").mkdir()
    with pytest.raises(mx8.DatasetNotFoundError, match="no dataset here"):
        mx8.verify(tmp_path)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_shards_without_hashes_are_counted_and_not_reported_as_damaged(root: Path, compression: str | None) -> None:
    shutil.rmtree(root)
    write(root, range(100), compression=compression)
    make_foreign(root)
    report = mx8.verify(root, data=True)
    assert (report.ok, report.sealed, report.unchecked) == (True, False, report.shards)


@pytest.mark.parametrize("compression", [None, "zstd", "gz"])
def test_a_foreign_hash_is_enough_to_find_damage(root: Path, compression: str | None) -> None:
    shutil.rmtree(root)
    write(root, range(100), compression=compression, hashes=("xxh64",), size_limit=None)
    make_foreign(root, hashes=("xxh64",))
    (shard,) = root.glob("shard.*")
    assert mx8.verify(root, data=True).unchecked == 0
    flip(shard, 8 * (shard.stat().st_size // 2))
    damage = only_damage(mx8.verify(root, data=True))
    assert (damage.reason, damage.samples, damage.blocks) == ("integrity", ((0, 100),), ())


@pytest.mark.parametrize("compression", ["zstd", "gz", "bz2", "br", "snappy"])
def test_a_compressed_shard_is_decompressed_and_compared_with_its_raw_hash(root: Path, compression: str) -> None:
    shutil.rmtree(root)
    write(root, range(100), compression=compression, hashes=("sha1",), size_limit=None)
    make_foreign(root, hashes=("sha1",))
    (shard,) = root.glob("shard.*")
    data = shard.read_bytes()
    edit_index(root, lambda index: index["shards"][0]["zip_data"].update(hashes={}))
    for at in range(0, len(data), len(data) // 20):
        shard.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        for damage in mx8.verify(root, data=True).damage:  # no effect: gzip's time, zstd's reserved bits
            assert (damage.file, damage.samples) == (shard.name, ((0, 100),))
    edit_index(root, lambda index: index["shards"][0]["raw_data"]["hashes"].update(sha1="0" * 40))
    shard.write_bytes(data)
    assert only_damage(mx8.verify(root, data=True)).reason == "integrity"


def test_inconsistent_sizes_are_reported_with_exactly_their_samples(root: Path) -> None:
    make_foreign(root)
    places = offsets(root / "shard.00000.mds")
    for row in (2, 5, 6):
        flip(root / "shard.00000.mds", 8 * places[row])  # in the size of the blob
    damage = only_damage(mx8.verify(root, data=True))
    assert (damage.reason, damage.samples) == ("format", ((2, 3), (5, 7)))
    assert "sample 2" in damage.error


# blocks and samples ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large") / "data"
    with mx8.Writer(root, columns=COLUMNS, size_limit=None) as writer:
        for number in range(60):
            writer.write(sample(number, 3 * BLOCK if number == 30 else 50_000))
    return root


def test_a_damaged_block_is_reported_with_the_samples_in_it(large: Path) -> None:
    shard = large / "shard.00000.mds"
    places = offsets(shard)
    for blocks in ((1,), (2,), (0,), (1, 3), (4,)):
        for block in blocks:
            flip(shard, 8 * (block * BLOCK + 77))
        damage = only_damage(mx8.verify(large, data=True))
        for block in blocks:
            flip(shard, 8 * (block * BLOCK + 77))
        expected = {
            row
            for row, (begin, end) in enumerate(itertools.pairwise(places))
            if any(begin < (block + 1) * BLOCK and end > block * BLOCK for block in blocks)
        }
        assert damage.blocks == blocks
        assert ids(damage.samples) == (set(range(60)) if 0 in blocks else expected)  # block 0 holds the offsets


def test_damage_without_block_digests_is_reported_with_all_samples_of_the_shard(large: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(large, root)
    sidecar(root, "blocks").unlink()
    flip(root / "shard.00000.mds", 8 * (BLOCK + 77))
    damaged = {damage.file: damage for damage in mx8.verify(root, data=True).damage}
    assert ids(damaged["shard.00000.mds"].samples) == set(range(60))
    assert damaged["shard.00000.mds"].blocks == ()


@pytest.mark.parametrize("compression", [None, "zstd", "gz"])
def test_memory_does_not_grow_with_the_shard(tmp_path: Path, compression: str | None) -> None:
    root = tmp_path / "data"
    with mx8.Writer(
        root, columns={"blob": "bytes", "label": "int"}, compression=compression, size_limit=None
    ) as writer:
        for number in range(48):
            writer.write({"blob": bytes(BLOCK), "label": number})
    tracemalloc.start()
    try:
        assert mx8.verify(root, data=True).ok
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * BLOCK


# subset ---------------------------------------------------------------------------------------------------------------


def test_each_run_draws_a_new_subset_and_finds_the_damage_in_it(root: Path) -> None:
    flip(root / "shard.00000.mds", 8 * 1500)
    found = {mx8.verify(root, subset=0.5).ok for _ in range(60)}
    assert found == {True, False}  # fails once in 2**58 runs


def test_a_subset_is_never_empty(root: Path) -> None:
    assert mx8.verify(root, subset="0.01%").data_shards == 1
    assert mx8.verify(root, subset=1).data_shards == len(list(root.glob("shard.*")))


@pytest.mark.parametrize("subset", ["0%", "101%", "five", "", "%", 0, -1, 1.5, float("nan"), [1], b"5%"])
def test_an_invalid_subset_is_refused(root: Path, subset: Any) -> None:
    with pytest.raises(mx8.SettingError, match="subset: expected a fraction above 0"):
        mx8.verify(root, subset=subset)


def test_data_and_subset_are_mutually_exclusive(root: Path) -> None:
    with pytest.raises(mx8.SettingError, match="data and subset: expected one of them, got both"):
        mx8.verify(root, data=True, subset="5%")


# bit flips ------------------------------------------------------------------------------------------------------------


class Everything:
    """A sealed dataset with every kind of file, and the expected report of a bit flip in each.

    Three snapshots: one that was overwritten; raw shards of several blocks; and compressed shards appended to those.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.old = write(root, range(40), compression="gz", size_limit=3000)
        self._write(range(60), mode="overwrite")
        self.new = write(root, range(60, 90), mode="append", compression="zstd", size_limit=3000)
        assert len(list(mx8.Dataset(root))) == 90  # fills the cache
        private = ("lock", "CACHEDIR.TAG")  # they do not affect the data
        self.files = sorted(path for path in root.rglob("*") if path.is_file() and path.name not in private)
        self.samples = {path: self._samples_of(path) for path in self.files}

    def _write(self, numbers: range, **options: Any) -> None:
        with mx8.Writer(self.root, columns=COLUMNS, size_limit="1800kb", **options) as writer:
            for number in numbers:
                writer.write(sample(number, 1_500_000 if number == 20 else 60_000 if number < 50 else 10))

    def _samples_of(self, path: Path) -> tuple[int, int]:
        """The samples in a shard file or a copy of it."""
        index = json.loads((self.root / "index.json").read_bytes())
        old = json.loads((self.root / STATE / "snapshots" / f"{self.old.removeprefix('sha256:')}.json").read_bytes())
        for entries in (old["shards"], index["shards"]):
            start = 0
            for entry in entries:
                names = [info["basename"] for info in (entry["raw_data"], entry["zip_data"]) if info]
                known = entry["raw_data"]["hashes"]["blake3"]
                copied = path.suffix == ".mds" and blake3(path.read_bytes()).hexdigest() == known
                if str(path.relative_to(self.root)) in names or copied:
                    return start, start + entry["samples"]
                start += entry["samples"]
        return 0, 0

    def expected(self, path: Path, byte: int) -> set[int]:
        start, stop = self.samples[path]
        if path.suffix != ".mds" or path.parent.name == "cache":
            return set(range(start, stop))
        places = offsets(path)
        block = byte // BLOCK
        if block * BLOCK < places[0]:
            return set(range(start, stop))
        pairs = enumerate(itertools.pairwise(places))
        return {start + row for row, (a, b) in pairs if a < (block + 1) * BLOCK and b > block * BLOCK}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    return Everything(tmp_path_factory.mktemp("everything") / "data")


def flips(everything: Everything, count: int, seed: int) -> Iterator[tuple[Path, int]]:
    """Flip a random bit in each file in turn."""
    draw = np.random.Generator(np.random.Philox(seed))
    for i in range(count):
        path = everything.files[i % len(everything.files)]
        yield path, int(draw.integers(8 * path.stat().st_size))


def check_flips(everything: Everything, count: int, seed: int) -> None:
    for path, bit in flips(everything, count, seed):
        where = f"{path.relative_to(everything.root)}, bit {bit}"
        flip(path, bit)
        try:
            report = mx8.verify(everything.root, data=True)
        finally:
            expected = everything.expected(path, bit // 8) if path.name != "index.json" else set()
            flip(path, bit)
        assert [damage.file for damage in report.damage] == [str(path.relative_to(everything.root))], where
        assert ids(report.damage[0].samples) == expected, where
    assert mx8.verify(everything.root, data=True).ok


def test_the_dataset_of_the_bit_flip_tests_has_every_kind_of_file(everything: Everything) -> None:
    names = {str(path.relative_to(everything.root)) for path in everything.files}
    kinds = ("index.json", "g0001/shard.", f"{STATE}/snapshots/", f"{STATE}/sidecars/", f"{STATE}/cache/", "shard.")
    assert {kind for kind in kinds for name in names if name.startswith(kind)} == set(kinds)
    assert {Path(name).suffix for name in names} == {".json", ".mds", ".gz", ".zstd", ""}
    assert max(path.stat().st_size for path in everything.files) > BLOCK
    assert mx8.verify(everything.root, data=True).ok


def test_300_single_bit_flips_are_all_found_with_their_samples(everything: Everything) -> None:
    check_flips(everything, 300, seed=1)


@pytest.mark.hunt
@pytest.mark.parametrize("seed", range(2, 12))
def test_10000_single_bit_flips_are_all_found_with_their_samples(everything: Everything, seed: int) -> None:
    check_flips(everything, 1000, seed)


# the walk -------------------------------------------------------------------------------------------------------------

SHAPES = [
    {"a": "int"},
    {"a": "bytes"},
    {"a": "uint8", "b": "bytes", "c": "float64", "d": "str", "e": "int16"},
    {"a": "ndarray:uint8:3", "b": "uint8"},
    {f"c{i:02}": "bytes" if i % 3 else "uint16" for i in range(20)},
]


def encoded(columns: Columns, count: int, seed: int) -> tuple[bytes, list[list[bytes]]]:
    """A raw shard of random samples, and the payloads of each."""
    draw = np.random.Generator(np.random.Philox(seed))
    payloads = []
    for _ in range(count):
        sizes = [int(draw.integers(60)) if size is None else size for size in columns.sizes]
        payloads.append([draw.bytes(size) for size in sizes])
    samples = []
    for row in payloads:
        variable = [len(payload) for payload, size in zip(row, columns.sizes, strict=True) if size is None]
        samples.append(columns.header.pack(*variable) + b"".join(row))
    return head(b"{}", list(map(len, samples))) + b"".join(samples), payloads


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", [1, 7, 100, 1 << 20])
def test_the_walk_does_not_depend_on_the_size_of_pieces(shape: dict[str, str], step: int) -> None:
    columns = Columns.of(shape)
    scalars = [name for name, coder in zip(columns.names, columns.coders, strict=True) if coder.shape == ()]
    data, payloads = encoded(columns, 40, seed=step)
    walk = SampleWalk(columns, 40, len(data), scalars)
    for at in range(0, len(data), step):
        walk.feed(data[at : at + step])
    walk.finish()
    numbers = [columns.names.index(name) for name in scalars]
    assert walk.numbers == [b"".join(row[number] for row in payloads) for number in numbers]


@pytest.mark.parametrize("step", [1, 7, 100, 1 << 20])
def test_the_walk_lists_every_inconsistent_row(step: int) -> None:
    columns = Columns.of(SHAPES[2])
    data, _ = encoded(columns, 40, seed=3)
    broken = bytearray(data)
    places = np.frombuffer(data, "<u4", 41, 4)
    for row in (0, 17, 39):
        broken[places[row] + 3] ^= 0x80  # a size of 2 GiB
    walk = SampleWalk(columns, 40, len(data), ["a", "c", "e"])
    for at in range(0, len(data), step):
        walk.feed(bytes(broken[at : at + step]))
    with pytest.raises(FormatError, match="sample 0 of this shard: expected column sizes that add up"):
        walk.finish()
    assert np.concatenate(walk.bad).tolist() == [0, 17, 39]


def test_the_walk_refuses_a_shard_shorter_than_its_table() -> None:
    walk = SampleWalk(Columns.of({"a": "int"}), 10, 200)
    for word in (10, 48, 56, 64, 72):
        walk.feed(word.to_bytes(4, "little"))
    with pytest.raises(FormatError, match="48 bytes of offsets"):
        walk.finish()


def test_ranges_are_half_open_and_merge_neighbours() -> None:
    assert ranges(np.array([], np.int64)) == []
    assert ranges(np.array([4])) == [(4, 5)]
    assert ranges(np.array([0, 1, 2, 5, 7, 8])) == [(0, 3), (5, 6), (7, 9)]


def test_the_id_is_the_hash_of_the_index(root: Path) -> None:
    found = hashlib.sha256((root / "index.json").read_bytes()).hexdigest()
    assert mx8.verify(root).snapshot == f"sha256:{found}"
