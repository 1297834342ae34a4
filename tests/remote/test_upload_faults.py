"""Whatever a server does to an upload: is the old or the new dataset there afterwards, and whole?"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.remote import open_store
from mx8shards.shards.recovery import files_of
from tests.remote.deadlines import in_time
from tests.remote.fault_server import KINDS, FaultServer, Kind, Operation, Place

PLACES: tuple[Place, ...] = ("first", "middle", "last")
DEADLINE_S = 2.0
COLUMNS = {"x": "int", "text": "str"}
TRANSIENT: tuple[Kind, ...] = (500, 503, "reset", "hang", "cut", "drip", "flip")

# What a fault hits: requests of these operations on these keys, after so many that succeed.
TARGETS: dict[str, tuple[tuple[Operation, ...], str, int]] = {
    "listing": (("list",), "", 0),
    "old index": (("read", "head"), r"set/index\.json", 0),
    "reservation": (("put",), r"set/\.mx8shards/writers/.*", 0),
    "first shard": (("put",), r"set/.*shard\.\d+\.mds", 0),
    "last shard": (("put",), r"set/.*shard\.\d+\.mds", 2),
    "kept index": (("put",), r"set/\.mx8shards/snapshots/.*", 0),
    "new index": (("put",), r"set/index\.json", 0),
    "end of the reservation": (("delete",), ".*", 0),
}


def samples_of(version: int) -> list[dict[str, Any]]:
    return [{"x": number, "text": f"{version} {number} " * 20} for number in range(70)]


def write(url: Any, version: int, mode: str) -> str | None:
    with mx8.Writer(url, columns=COLUMNS, size_limit=3_000, mode=mode) as writer:
        for sample in samples_of(version):
            writer.write(sample)
    return writer.snapshot


def read_all(url: str, local: Path) -> list[dict[str, Any]]:
    with mx8.Dataset(url, local=local, verify="shard", deadline_s=DEADLINE_S) as dataset:
        return list(dataset)


@pytest.fixture(autouse=True)
def _deadline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all stores that are opened."""
    opened = open_store.open_store
    settings = {"deadline_s": 1.0 if "lasting" in request.node.name else DEADLINE_S}
    monkeypatch.setattr(open_store, "open_store", lambda url, **given: opened(url, **given | settings))


def check_appending(
    name: str, kind: Kind, place: Place, times: int | None, server: FaultServer, tmp_path: Path
) -> None:
    operations, key, skip = TARGETS[name]
    url = server.url("set")
    first = write(url, 0, "create")
    server.requests.clear()
    fault = server.fail(kind, *operations, key=key, skip=skip, times=times, place=place)
    found = in_time(lambda: write(url, 1, "append"))
    assert fault.met > skip, f"the fault struck nothing: {found!r:.300}"
    server.heal()
    assert server.uploads == {}
    taken_over = [key for key in server.undo_replacements() if "/writers/" in key]
    for reservation in taken_over:  # whoever takes a writer for dead removes its reservation at the end
        del server.objects[reservation]
    now = read_all(f"{url}@refresh", tmp_path / "cache")
    old, both = samples_of(0), samples_of(0) + samples_of(1)
    if isinstance(found, Exception):
        assert isinstance(found, mx8.ShardsError), repr(found)
        assert times != 1 or kind not in TRANSIENT, f"not tried again: {found!r}"
        assert now in (old, both)
        assert now == old or "unknown" in str(found) or kind == "replaced", f"{found!r}, but it was published"
    else:
        assert now == both
        assert found != first
    if taken_over:  # then the writer may not remove its shards, as they may be another writer's
        mx8.gc(url, keep=9, older_than_days=0)
    write(url, 2, "append")
    assert read_all(f"{url}@refresh", tmp_path / "cache") == now + samples_of(2)
    with mx8.Dataset(f"{url}@refresh", local=tmp_path / "cache") as dataset:
        named = {name for name in files_of(dataset.shards.snapshots[0].index) if "shard." in name}
    there = {key.removeprefix("set/") for key in server.objects if "shard." in key}
    assert there >= named
    assert there == named or "unknown" in str(found), "shards that no snapshot names were left"


# `make hunt` has the others too.
COMBINATIONS = itertools.product(["listing", "last shard", "new index", "end of the reservation"], PLACES)
CASES = [(*found, kind) for found, kind in zip(COMBINATIONS, itertools.cycle(KINDS), strict=False)]


@pytest.mark.parametrize(("name", "place", "kind"), CASES)
def test_one_fault_per_request_and_place(
    name: str, place: Place, kind: Kind, fault_server: FaultServer, tmp_path: Path
) -> None:
    check_appending(name, kind, place, 1, fault_server, tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("last shard", 403), ("new index", "reset"), ("new index", 503)])
@pytest.mark.parametrize("place", ["middle", pytest.param("last", marks=pytest.mark.hunt)])
def test_a_lasting_fault_leaves_the_old_dataset_or_publishes_the_new_one(
    name: str, kind: Kind, place: Place, fault_server: FaultServer, tmp_path: Path
) -> None:
    check_appending(name, kind, place, None, fault_server, tmp_path)


@pytest.mark.parametrize(("name", "kind", "times"), [("new index", 403, None), ("old index", "flip", 1)])
def test_an_index_that_was_put_although_it_was_refused_or_was_changed_on_its_way_is_no_error(
    name: str, kind: Kind, times: int | None, fault_server: FaultServer, tmp_path: Path
) -> None:
    check_appending(name, kind, "last", times, fault_server, tmp_path)


@pytest.mark.hunt
@pytest.mark.parametrize("times", [1, 2, None])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_of_every_request_at_every_place(
    kind: Kind, name: str, place: Place, times: int | None, fault_server: FaultServer, tmp_path: Path
) -> None:
    check_appending(name, kind, place, times, fault_server, tmp_path)
