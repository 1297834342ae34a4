"""Whatever a server does to a sync: is the target the old or the new dataset, and does the next sync finish it?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.remote.deadlines import SLACK, in_time, was_too_slow
from tests.remote.fault_server import KINDS, FaultServer, Kind, Operation, Place
from tests.remote.objects import files
from tests.strategies import NUMBERED, numbered_samples

PLACES: tuple[Place, ...] = ("first", "middle", "last")
DEADLINE_S = 2.0
LASTING_DEADLINE_S = 0.8  # where no attempt can succeed
TRANSIENT: tuple[Kind, ...] = (500, 503, "reset", "hang", "cut", "drip")

Fault = tuple[str, Kind, Place]
Targets = dict[str, tuple[tuple[Operation, ...], str, int]]
Sync = Callable[..., str]

# What a fault hits: requests of these operations on these keys, after so many that succeed.
UP: Targets = {
    "listing": (("list",), "", 0),
    "old index": (("read", "head"), r"set/index\.json", 0),
    "reservation": (("put",), r"set/\.mx8shards/writers/.*", 0),
    "shard": (("put",), r"set/shard\.\d+\.mds", 1),
    "side-car": (("put",), r"set/\.mx8shards/sidecars/.*", 0),
    "kept index": (("put",), r"set/\.mx8shards/snapshots/.*", 0),
    "new index": (("put",), r"set/index\.json", 0),
    "end of the reservation": (("delete",), ".*", 0),
}
DOWN: Targets = {
    "index": (("read", "head"), r"set/index\.json", 0),
    "shard": (("read", "head"), r"set/shard\.\d+\.mds", 1),
    "side-car": (("read", "head"), r"set/\.mx8shards/sidecars/.*", 0),
}


class Case:
    """A dataset of two snapshots in a directory, of which a store and another directory have the first one."""

    def __init__(self, server: FaultServer, place: Path) -> None:
        self.server, self.url, self.here, self.copy = server, server.url("set"), place / "here", place / "copy"
        self._write(30, "create")
        mx8.sync(self.here, self.url)
        mx8.sync(self.url, self.copy)
        self.old = files(self.here)
        self._write(25, "append")
        self.new = files(self.here)

    def _write(self, count: int, mode: Any) -> None:
        with mx8.Writer(self.here, columns=NUMBERED, size_limit=700, mode=mode) as writer:
            for sample in numbered_samples(count):
                writer.write(sample)

    def objects(self) -> dict[str, bytes]:
        """The objects of the dataset, by name, without what a sync leaves that cannot delete, or that can go on."""
        keys = [key for key in self.server.objects if "/writers/" not in key and "/trial-" not in key]
        return {key.removeprefix("set/"): self.server.data(key) or b"" for key in keys}


def struck(case: Case, sync: Sync, targets: Targets, fault: Fault, times: int | None) -> str | mx8.ShardsError:
    """What a sync comes to that meets a fault: the snapshot's id or an error."""
    name, kind, place = fault
    operations, key, skip = targets[name]
    deadline_s = LASTING_DEADLINE_S if times is None else DEADLINE_S
    for slack in SLACK:
        set_up = case.server.fail(kind, *operations, key=key, skip=skip, times=times, place=place)
        found = in_time(partial(sync, deadline_s=slack * deadline_s))
        case.server.heal()
        if not was_too_slow(found, set_up):
            break
    assert set_up.met > skip, f"the fault struck nothing: {found!r:.300}"
    for key in case.server.undo_replacements():
        if "/writers/" in key:  # whoever takes a sync for dead removes its reservation at the end
            del case.server.objects[key]
    assert isinstance(found, str | mx8.ShardsError), repr(found)
    assert isinstance(found, str) or times != 1 or kind not in TRANSIENT, f"not tried again: {found!r}"
    return found


def is_whole(found: dict[str, bytes], case: Case, *, optional: str = "") -> bool:
    """Whether these are the files of the snapshot that the index is of, and perhaps others of the newer one."""
    wanted = case.new if found["index.json"] == case.new["index.json"] else case.old
    missing = {name for name in wanted if found.get(name) != wanted[name]}
    others = {name for name in found if found[name] not in (case.old.get(name), case.new.get(name))}
    return not others and all(optional and optional in name for name in missing)


def check_up(fault: Fault, times: int | None, server: FaultServer, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    sync = partial(mx8.sync, case.here, case.url)
    found = struck(case, sync, UP, fault, times)
    assert is_whole(case.objects(), case)
    assert not isinstance(found, str) or case.objects() == case.new
    assert in_time(sync) == mx8.log(case.here)[0].snapshot
    assert case.objects() == case.new
    assert server.uploads == {}


def check_down(fault: Fault, times: int | None, server: FaultServer, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    mx8.sync(case.here, case.url)
    sync = partial(mx8.sync, case.url, case.copy)
    found = struck(case, sync, DOWN, fault, times)
    assert is_whole(files(case.copy), case, optional="/sidecars/")
    assert not isinstance(found, str) or mx8.log(case.copy)[0].snapshot == found
    assert in_time(sync) == mx8.log(case.here)[0].snapshot
    assert files(case.copy) == case.new


@pytest.mark.parametrize("fault", [("shard", "cut", "middle"), ("new index", 503, "last"), ("side-car", 403, "first")])
def test_a_fault_on_the_way_up_leaves_the_old_or_the_new_dataset(
    fault: Fault, fault_server: FaultServer, tmp_path: Path
) -> None:
    check_up(fault, 1, fault_server, tmp_path)


@pytest.mark.parametrize("fault", [("shard", "flip", "last"), ("index", "stale", "first"), ("side-car", 404, "middle")])
def test_a_lasting_fault_on_the_way_down_leaves_the_old_or_the_new_dataset(
    fault: Fault, fault_server: FaultServer, tmp_path: Path
) -> None:
    check_down(fault, None, fault_server, tmp_path)


def name_of(fault: Fault) -> str:
    return "-".join(map(str, fault))


# `make hunt` has the others too.
@pytest.mark.hunt
@pytest.mark.parametrize("times", [1, None])
@pytest.mark.parametrize("fault", [*itertools.product(UP, KINDS, PLACES[1:])], ids=name_of)
def test_every_fault_on_the_way_up(fault: Fault, times: int | None, fault_server: FaultServer, tmp_path: Path) -> None:
    check_up(fault, times, fault_server, tmp_path)


@pytest.mark.hunt
@pytest.mark.parametrize("times", [1, None])
@pytest.mark.parametrize("fault", [*itertools.product(DOWN, KINDS, PLACES)], ids=name_of)
def test_every_fault_on_the_way_down(
    fault: Fault, times: int | None, fault_server: FaultServer, tmp_path: Path
) -> None:
    check_down(fault, times, fault_server, tmp_path)
