"""Scenarios: operations on a dataset that crash tests disturb, and the states allowed afterwards.

A scenario prepares a directory with the dataset `data` and other inputs, and then runs an operation on it. An
undisturbed run gives the states before and after. A disturbed run must leave exactly one of the two.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mx8shards as mx8
from mx8shards.convert import convert_in_parts
from mx8shards.shards.publication import LocalPublication
from mx8shards.shards.snapshots import kept, snapshot_id
from tests.text_folders import RECIPE, write_texts

COLUMNS = {"label": "int", "text": "str"}
FOREIGN = {
    "data/notes.txt": b"not ours",
    "data/shard.00000.mds.bak": b"not ours either",
    "data/more/shard.00000.mds": b"nor this",
    "beside.txt": b"least of all this",
}

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

Sample = dict[str, Any]


def samples(start: int, stop: int) -> Iterator[Sample]:
    """Samples with these numbers."""
    return ({"label": i, "text": f"sample {i}"} for i in range(start, stop))


def write(root: Path, start: int = 0, stop: int = 6, **options: Any) -> str:
    """Publish samples, two per shard unless `size_limit` is given. Returns the id of the snapshot."""
    settings: dict[str, Any] = {"columns": COLUMNS, "size_limit": 270, "threads": 1, **options}
    with mx8.Writer(root, **settings) as writer:
        for sample in samples(start, stop):
            writer.write(sample)
    assert writer.snapshot is not None
    return writer.snapshot


def put_foreign_files(place: Path) -> None:
    """Create foreign files in and beside the dataset."""
    for name, data in FOREIGN.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)


@dataclass(frozen=True)
class Scenario:
    """An operation on a dataset, and its preparation."""

    name: str
    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    again: bool = False  # repeating `act` completes removals that follow the publication

    def __str__(self) -> str:
        return self.name


def _nothing(place: Path) -> None:
    (place / "beside.txt").write_bytes(FOREIGN["beside.txt"])


def _dataset(place: Path, **options: Any) -> None:
    write(place / "data", 0, 3, **options)
    put_foreign_files(place)


def _foreign_dataset(place: Path) -> None:
    """A dataset of another writer: no kept snapshots, no `.mx8shards`."""
    _dataset(place)
    shutil.rmtree(place / "data/.mx8shards")


def _overwritten(place: Path) -> None:
    _dataset(place)
    write(place / "data", 10, 13, mode="overwrite")


def _parts(place: Path) -> None:
    write(place / "parts/a", 0, 3)
    write(place / "parts/b", 10, 13, mode="create", metadata={"b": 1})
    write(place / "parts/b", 13, 16, mode="append")
    (place / "parts/a/notes.txt").write_bytes(FOREIGN["data/notes.txt"])


def _ranks(place: Path) -> None:
    for rank in range(2):
        write(place / "data", 10 * rank, 10 * rank + 3, rank=rank, world_size=2)


def _ranks_to_append(place: Path) -> None:
    _dataset(place)
    for rank in range(2):
        write(place / "data", 10 * rank, 10 * rank + 3, mode="append", rank=rank, world_size=2)


def _merged_ranks(place: Path) -> None:
    """Merged parts, an unmerged part, and a part of a killed rank."""
    _ranks(place)
    mx8.merge([place / "data"], place / "data")
    write(place / "data", 30, 33, mode="append", rank=0, world_size=3)
    (place / "data/.mx8shards/parts/rank-00002-of-00003/.mx8shards/staging").mkdir(parents=True)
    (place / "data/.mx8shards/parts/rank-00002-of-00003/.mx8shards/staging/shard.00000.mds").write_bytes(b"half")
    put_foreign_files(place)


def _histories(place: Path) -> None:
    """Four snapshots in two generations. The current one shares shards with the previous one."""
    _dataset(place, compression="gz")
    write(place / "data", 3, 6, mode="append", compression="gz")
    write(place / "data", 10, 13, mode="overwrite", compression="gz")
    write(place / "data", 13, 16, mode="append", compression="gz")
    for link in (f"{place / 'data'}@{entry.snapshot}" for entry in mx8.log(place / "data")):
        with mx8.Dataset(link) as dataset:
            list(dataset)  # fills the cache


def _without_hashes(place: Path) -> None:
    _foreign_dataset(place)
    path = place / "data/index.json"
    index = json.loads(path.read_bytes())
    del index["mx8shards"]
    for shard in index["shards"]:
        shard["raw_data"]["hashes"] = {}
    path.write_text(json.dumps(index))


def _changed_by_others(place: Path) -> None:
    _dataset(place)
    path = place / "data/index.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"whose": "theirs"}))


def merge(place: Path, **options: Any) -> str:
    """Merge the parts."""
    return mx8.merge([place / "parts"], place / "data", **options)


def merge_ranks(place: Path, **options: Any) -> str:
    """Merge the parts of ranks."""
    return mx8.merge([place / "data"], place / "data", **options)


def convert(place: Path, **options: Any) -> None:
    """Convert the texts, two per part. If they are converted already, gc removes the leftovers."""
    try:
        with patch.object(convert_in_parts, "PART_ITEMS", 2):
            mx8.convert_from(RECIPE, place / "texts", place / "data", **options)
    except mx8.DatasetExistsError:
        for root in roots(place):
            if ".mx8shards" not in root:
                mx8.gc(place / root)
        raise


def split(place: Path, **options: Any) -> None:
    """Convert them into two splits."""
    convert(place, split={"train": 0.6, "val": 0.4}, **options)


def _texts(place: Path) -> None:
    _nothing(place)
    write_texts(place / "texts", [f"{folder}/{i}.txt" for folder in ("cat", "dog") for i in range(2)])


def _dataset_and_new_texts(place: Path, convert: Callable[[Path], None] = convert) -> None:
    """A dataset, and further texts, one of a new class."""
    _texts(place)
    convert(place)
    write_texts(place / "texts", [f"{folder}/{i}.txt" for folder in ("bee", "dog") for i in range(3, 6)])


def _splits_and_new_texts(place: Path) -> None:
    _dataset_and_new_texts(place, split)


SCENARIOS = [
    Scenario("create", _nothing, lambda place: write(place / "data")),
    Scenario("create one shard", _nothing, lambda place: write(place / "data", size_limit=None)),
    Scenario("create nothing", _nothing, lambda place: write(place / "data", 0, 0)),
    Scenario("create in new directories", _nothing, lambda place: write(place / "data/of/mine/data")),
    Scenario("create compressed", _nothing, lambda place: write(place / "data", compression="zstd", threads=3)),
    Scenario("append", _dataset, lambda place: write(place / "data", 3, 8, mode="append")),
    Scenario("append metadata", _dataset, lambda place: write(place / "data", 0, 0, mode="append", metadata={"a": 1})),
    Scenario("append to a foreign dataset", _foreign_dataset, lambda place: write(place / "data", 3, 8, mode="append")),
    Scenario("append after overwrite", _overwritten, lambda place: write(place / "data", 3, 8, mode="append")),
    Scenario("overwrite", _dataset, lambda place: write(place / "data", 20, 25, mode="overwrite")),
    Scenario("overwrite with nothing", _dataset, lambda place: write(place / "data", 0, 0, mode="overwrite")),
    Scenario("overwrite twice", _overwritten, lambda place: write(place / "data", 20, 25, mode="overwrite")),
    Scenario("write a part", _nothing, lambda place: write(place / "data", rank=1, world_size=2)),
    Scenario("merge", _parts, merge),
    Scenario("merge copies", _parts, lambda place: merge(place, how="copy")),
    Scenario("merge ranks", _ranks, lambda place: mx8.merge([place / "data"], place / "data")),
    Scenario("merge and move", _parts, lambda place: merge(place, how="move"), again=True),
    Scenario("merge ranks and move", _ranks, lambda place: merge_ranks(place, how="move"), again=True),
    Scenario("append by ranks", _ranks_to_append, lambda place: merge_ranks(place, mode="append")),
    Scenario(
        "append by ranks and move",
        _ranks_to_append,
        lambda place: merge_ranks(place, mode="append", how="move"),
        again=True,
    ),
    Scenario("gc of parts", _merged_ranks, lambda place: mx8.gc(place / "data", keep=1), again=True),
    Scenario("gc", _histories, lambda place: mx8.gc(place / "data", keep=1)),
    Scenario("gc a little", _histories, lambda place: mx8.gc(place / "data", keep=3)),
    Scenario("convert", _texts, convert, again=True),
    Scenario("convert and append", _dataset_and_new_texts, lambda place: convert(place, append=True), again=True),
    Scenario("split", _texts, split, again=True),
    Scenario("split and append", _splits_and_new_texts, lambda place: split(place, append=True), again=True),
    Scenario("seal", _without_hashes, lambda place: mx8.verify(place / "data", seal=True)),
    Scenario("seal what others changed", _changed_by_others, lambda place: mx8.verify(place / "data", seal=True)),
]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


# visible states -------------------------------------------------------------------------------------------------------


def tree(place: Path) -> dict[str, bytes | None]:
    """Every file (its bytes) and directory (None) by name, except lock files.

    The record of a conversion's splits is left out too, because it depends on the directory.
    """
    found: dict[str, bytes | None] = {}
    for directory, names, files in os.walk(place):
        here = Path(directory)
        found |= {str((here / name).relative_to(place)): None for name in names}
        found |= {str((here / name).relative_to(place)): (here / name).read_bytes() for name in files}
    ours = (".mx8shards/lock", "/conversion.lock", "/converted.json")
    return {name: data for name, data in found.items() if not name.endswith(ours)}


@dataclass(frozen=True)
class View:
    """Everything that can be read from the datasets: root → current snapshot; (root, snapshot) → samples."""

    current: dict[str, str | None]
    samples: dict[tuple[str, str], list[Sample]]


def roots(place: Path) -> list[str]:
    """The directories of all datasets."""
    return sorted(str(path.parent.relative_to(place)) for path in place.rglob("index.json"))


def view(place: Path, names: list[str], cache: Path) -> View:
    """Open every snapshot of these datasets, verify all hashes, and read all samples."""
    current = {name: current_in(place / name) for name in names}
    found: dict[tuple[str, str], list[Sample]] = {}
    for name in names:
        root = place / name
        known = kept(root)
        links = [f"{root}@{snapshot}" for snapshot in known]
        if current[name] is not None and not known:
            links.append(str(root))
        for link in links:
            with mx8.Dataset(link, verify="shard", cache_dir=cache) as dataset:
                found[name, dataset.snapshot] = list(dataset)
                if dataset.columns:
                    dataset.column("label")  # from the side-cars, whose hashes this checks
    return View(current, found)


def current_in(root: Path) -> str | None:
    """The current snapshot, as a reader sees it."""
    try:
        with mx8.Dataset(root) as dataset:
            return dataset.snapshot
    except mx8.DatasetNotFoundError:
        return None
    except mx8.IntegrityError:  # another program changed the index, so it was kept
        return snapshot_id((root / "index.json").read_bytes())


@dataclass(frozen=True)
class Expectation:
    """The allowed states of a scenario: those before and after an undisturbed run."""

    scenario: Scenario
    prepared: Path
    tree_before: dict[str, bytes | None]
    tree_after: dict[str, bytes | None]
    before: View
    after: View

    @classmethod
    def of(cls, scenario: Scenario, scratch: Path) -> Expectation:
        """Run the scenario below `scratch`, an empty directory."""
        prepared, done, cache = scratch / "prepared", scratch / "done", scratch / "cache"
        prepared.mkdir()
        scenario.prepare(prepared)
        shutil.copytree(prepared, done)
        scenario.act(done)
        names = sorted({*roots(prepared), *roots(done)})
        return cls(
            scenario, prepared, tree(prepared), tree(done), view(prepared, names, cache), view(done, names, cache)
        )

    @property
    def publishes(self) -> bool:
        """Whether the scenario changes a current snapshot. If so, an error must say whether it was published."""
        return any(now is not None and now != self.before.current[root] for root, now in self.after.current.items())

    def copy(self, place: Path) -> Path:
        """Replace `place` by a copy of the prepared directory."""
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(self.prepared, place))

    def check(self, place: Path, cache: Path) -> bool:
        """Assert that a disturbed copy lost nothing and is consistent. Returns whether it has the new state."""
        found = view(place, list(self.after.current), cache)
        for root, now in found.current.items():
            assert now in (self.before.current[root], self.after.current[root])
        for key, values in found.samples.items():
            assert values == {**self.before.samples, **self.after.samples}[key]
        staying = self.before.samples.keys() & self.after.samples.keys()
        assert staying <= found.samples.keys()
        for name, data in FOREIGN.items():
            if name in self.tree_before:
                assert (place / name).read_bytes() == data
        return found.current != self.before.current or found == self.after

    def finish(self, place: Path) -> None:
        """Assert that the next run repairs a disturbed copy: its files equal those of an undisturbed one."""
        is_new = {name: current_in(place / name) for name in self.after.current} != self.before.current
        if not is_new or self.scenario.again:
            with contextlib.suppress(*((mx8.DatasetExistsError, mx8.DatasetNotFoundError) if is_new else ())):
                self.scenario.act(place)  # an error if nothing was left to remove
        if is_new:
            for root in roots(place):
                LocalPublication(place / root).close()  # as the next publication does
        found = tree(place)
        if is_new and self.scenario.again:  # a kill at the last steps may leave empty directories
            found = {name: data for name, data in found.items() if data is not None or name in self.tree_after}
        wrong = differences(found, self.tree_after)
        assert not wrong, wrong


def differences(found: dict[str, bytes | None], expected: dict[str, bytes | None]) -> list[str]:
    """The names that are in only one of two trees, or whose bytes differ."""
    missing = object()
    return sorted(
        name for name in found.keys() | expected.keys() if found.get(name, missing) != expected.get(name, missing)
    )
