"""Does diff find added, removed and changed samples, without reading shards that are in both snapshots?"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.maintain import diff as diff_module
from mx8shards.maintain.diff import Diff
from mx8shards.maintain.merge import merge
from tests.maintenance import COLUMNS, make_foreign, sample, write


def write_these(root: Path, numbers: Iterable[int], **options: Any) -> str:
    with mx8.Writer(root, columns=COLUMNS, **{"size_limit": 1000, "hashes": (), **options}) as writer:
        for number in numbers:
            writer.write(sample(number))
    assert writer.snapshot is not None
    return writer.snapshot


def found(difference: Diff) -> dict[str, list[int]]:
    return {name: getattr(difference, name).tolist() for name in ("added", "removed", "changed")}


def naive(a: list[int], b: list[int]) -> dict[str, list[int]]:
    """The difference by a naive comparison, sample by sample."""

    def beyond(these: list[int], others: list[int]) -> list[int]:
        left = Counter(others)
        ids = []
        for i, number in enumerate(these):
            if left[number]:
                left[number] -= 1
            else:
                ids.append(i)
        return ids

    removed, added = beyond(a, b), beyond(b, a)
    changed = sorted(set(removed) & set(added))
    return {
        "added": [i for i in added if i not in changed],
        "removed": [i for i in removed if i not in changed],
        "changed": changed,
    }


def test_a_snapshot_does_not_differ_from_itself(tmp_path: Path) -> None:
    write(tmp_path, range(50))
    difference = mx8.diff(tmp_path, tmp_path)
    assert difference.same
    assert found(difference) == {"added": [], "removed": [], "changed": []}
    assert difference.read_shards == 0


def test_an_append_adds_and_reads_only_its_own_shards(tmp_path: Path) -> None:
    old = write(tmp_path, range(50))
    shards = len(list(tmp_path.glob("shard.*")))
    new = write(tmp_path, range(50, 60), mode="append")
    difference = mx8.diff(f"{tmp_path}@{old}", tmp_path)
    assert (difference.a, difference.b, difference.same) == (old, new, False)
    assert found(difference) == {"added": list(range(50, 60)), "removed": [], "changed": []}
    assert (difference.shared_shards, difference.read_shards) == (shards, len(list(tmp_path.glob("shard.*"))) - shards)
    assert found(mx8.diff(tmp_path, f"{tmp_path}@{old}"))["removed"] == list(range(50, 60))


CASES = [
    ([], [1, 2, 3]),
    ([1, 2, 3], []),
    ([1, 2, 3, 4], [1, 2, 9, 4]),
    ([1, 2, 3, 4], [4, 3, 2, 1]),
    (range(100), [7, *range(100)]),
    (range(100), [*range(50), 200, *range(50, 100)]),
    (range(100), [i for i in range(100) if i % 7]),
    (range(100), [i if i % 7 else 200 + i for i in range(100)]),
    ([1, 1, 1, 2], [1, 2, 2, 2, 2]),
    ([1] * 50, [1] * 70),
    (range(60), [*range(30), *range(100, 130), *range(30, 60)]),
]


@pytest.mark.parametrize(("a", "b"), CASES)
def test_the_difference_matches_a_naive_comparison(tmp_path: Path, a: Iterable[int], b: Iterable[int]) -> None:
    """If samples repeat, the ids reported among equal samples may differ, but not their number."""
    write_these(tmp_path / "a", a)
    write_these(tmp_path / "b", b)
    expected = naive(list(a), list(b))
    difference = mx8.diff(tmp_path / "a", tmp_path / "b")
    if len(set(a)) == len(list(a)) and len(set(b)) == len(list(b)):
        assert found(difference) == expected
    counts = {name: len(ids) for name, ids in found(difference).items()}
    assert counts["added"] + counts["changed"] == len(expected["added"]) + len(expected["changed"])
    assert counts["removed"] + counts["changed"] == len(expected["removed"]) + len(expected["changed"])


@pytest.mark.parametrize("seed", range(5))
def test_random_edits_are_found(tmp_path: Path, seed: int) -> None:
    draw = np.random.Generator(np.random.Philox(seed))
    a = list(range(200))
    b = a.copy()
    for i in range(20):
        at = int(draw.integers(len(b)))
        (lambda: b.pop(at), lambda: b.insert(at, 1000 + i), lambda: b.__setitem__(at, 1000 + i))[i % 3]()  # noqa: B023
    write_these(tmp_path / "a", a)
    write_these(tmp_path / "b", b)
    assert found(mx8.diff(tmp_path / "a", tmp_path / "b")) == naive(a, b)


def test_samples_are_compared_uncompressed(tmp_path: Path) -> None:
    write_these(tmp_path / "a", range(50))
    write_these(tmp_path / "b", range(50), compression="zstd", size_limit=5000)
    difference = mx8.diff(tmp_path / "a", tmp_path / "b")
    assert difference.same
    assert difference.shared_shards == 0


def test_shards_are_compared_by_content_and_not_by_name(tmp_path: Path) -> None:
    write_these(tmp_path / "a", range(50))
    write_these(tmp_path / "b", range(50, 80))
    merge([tmp_path / "b", tmp_path / "a"], tmp_path / "out")
    difference = mx8.diff(tmp_path / "a", tmp_path / "out")
    assert found(difference) == {"added": list(range(30)), "removed": [], "changed": []}
    assert difference.shared_shards == len(list((tmp_path / "a").glob("shard.*")))


def test_a_shard_listed_twice_is_shared_once(tmp_path: Path) -> None:
    write_these(tmp_path / "a", range(10), size_limit=None)
    merge([tmp_path / "a", tmp_path / "a"], tmp_path / "out")
    difference = mx8.diff(tmp_path / "a", tmp_path / "out")
    assert (difference.shared_shards, difference.read_shards) == (1, 1)
    assert len(difference.added) == 10


def test_foreign_shards_of_equal_names_and_sizes_are_read(tmp_path: Path) -> None:
    for name, numbers in (("a", range(50)), ("b", range(50, 100))):
        with mx8.Writer(tmp_path / name, columns={"x": "int"}) as writer:
            for number in numbers:
                writer.write({"x": number})
        make_foreign(tmp_path / name)
    assert found(mx8.diff(tmp_path / "a", tmp_path / "b"))["changed"] == list(range(50))


def test_foreign_shards_are_equal_by_name_in_one_directory_and_by_weak_hashes_elsewhere(tmp_path: Path) -> None:
    write_these(tmp_path / "a", range(50), hashes=("xxh64",))
    make_foreign(tmp_path / "a", hashes=("xxh64",))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert mx8.diff(tmp_path / "a", tmp_path / "b").read_shards == 0
    make_foreign_again = mx8.verify(tmp_path / "a", seal=True)
    assert make_foreign_again.ok
    old = mx8.log(tmp_path / "a")[1].snapshot
    assert mx8.diff(f"{tmp_path}/a@{old}", tmp_path / "a").read_shards == 0


def test_columns_and_metadata_are_compared_too(tmp_path: Path) -> None:
    for name, columns in (
        ("a", {"x": "int", "y": "str", "z": "int8"}),
        ("b", {"x": "int64", "z": "int8", "w": "bytes"}),
    ):
        with mx8.Writer(tmp_path / name, columns=columns, metadata={"name": name}) as writer:
            sample = {"x": 1, "y": "text", "z": 2, "w": b""}
            writer.write({name: sample[name] for name in columns})
    difference = mx8.diff(tmp_path / "a", tmp_path / "b")
    assert difference.columns_added == {"w": "bytes"}
    assert difference.columns_removed == {"y": "str"}
    assert difference.columns_changed == {"x": ("int", "int64")}
    assert difference.metadata_changed
    assert not difference.same


def test_samples_larger_than_the_read_buffer_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_module, "_READ_BYTES", 100)
    for name, last in (("a", b"\0"), ("b", b"\1")):
        with mx8.Writer(tmp_path / name, columns={"x": "bytes"}) as writer:
            for size in (0, 95, 96, 97, 300, 10, 10, 10):
                writer.write({"x": bytes(size)})
            writer.write({"x": bytes(1000) + last})
    difference = mx8.diff(tmp_path / "a", tmp_path / "b")
    assert found(difference) == {"added": [], "removed": [], "changed": [8]}


def test_a_difference_can_be_written_as_json_with_ids_as_ranges(tmp_path: Path) -> None:
    write_these(tmp_path / "a", [1, 2, 3, 4, 5, 6])
    write_these(tmp_path / "b", [1, 9, 8, 4, 7, 6, 10])
    text = json.loads(json.dumps(mx8.diff(tmp_path / "a", tmp_path / "b").to_json()))
    assert (text["changed"], text["added"], text["removed"]) == ([[1, 3], [4, 5]], [[6, 7]], [])
    assert text["same"] is False


def test_progress_counts_every_raw_byte_read(tmp_path: Path) -> None:
    write_these(tmp_path / "a", range(50))
    write_these(tmp_path / "b", range(50, 100))
    calls: list[tuple[int, int]] = []
    mx8.diff(tmp_path / "a", tmp_path / "b", progress=lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for name in "ab" for path in (tmp_path / name).glob("shard.*"))
    assert calls[-1] == (total, total)
