"""Does a store give the right bytes or a typed error within its deadline, whatever its server does?

A store cannot know that a bit was flipped or that a server's answer is old: there its callers check hashes, which
`test_dataset_faults.py` holds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.remote import retries
from mx8shards.remote.open_store import open_store
from mx8shards.remote.parallel_ranges import RANGE_BYTES
from tests.remote.deadlines import SLACK, in_time, was_too_slow
from tests.remote.fault_server import KINDS, MULTIPART, FaultServer, Kind, Operation, Place

PLACES: tuple[Place, ...] = ("first", "middle", "last")
DEADLINE_S = 2.0
LASTING_DEADLINE_S = 0.8  # where no attempt can succeed

SHARD = random.Random(1).randbytes(3 << 20)
OLD_SHARD = random.Random(2).randbytes(3 << 20)
PUT = SHARD[: retries._SLOWEST]  # the most whose upload gets no time beyond the deadline
INDEX = b'{"shards": [], "version": 2}' * 50
OLD_INDEX = INDEX[::-1]
LARGE = random.Random(3).randbytes(20 << 20)
LONG = random.Random(5).randbytes(RANGE_BYTES + 1000)
SPANS = [(10, 3000), (3 << 19, (3 << 19) + 70_000), ((3 << 20) - 900, 3 << 20)]  # too far apart for one request

TRANSIENT: tuple[Kind, ...] = (500, 503, "reset", "hang", "cut", "drip")  # what a second attempt helps against


@dataclass(frozen=True)
class Work:
    """An operation on a store, the requests it needs, and what it may come to."""

    operations: tuple[Operation, ...]
    keys: tuple[str, str, str]  # of the first, the middle and the last request that can fail
    act: Callable[[Any, FaultServer, Path], Any]
    right: Callable[[Any, FaultServer], bool]
    unseen: tuple[Kind, ...] = ()  # faults that only the callers can see
    deadline_s: float = DEADLINE_S


def read_index(store: Any, server: FaultServer, place: Path) -> Any:
    return store.read("index.json", 1 << 20)


def fetch_shards(store: Any, server: FaultServer, place: Path) -> Any:
    found = []
    for number in range(3):
        store.fetch(f"shard{number}", place / f"{number}", len(SHARD))
        found.append((place / f"{number}").read_bytes())
    return found


def fetch_in_ranges(store: Any, server: FaultServer, place: Path) -> Any:
    store.fetch("long", place / "long", len(LONG), in_ranges=True)
    return (place / "long").read_bytes()


def read_spans(store: Any, server: FaultServer, place: Path) -> Any:
    current = server.current("shard0")
    return store.read_spans("shard0", SPANS, current.etag if current else None)


def list_keys(store: Any, server: FaultServer, place: Path) -> Any:
    return [(found.key, found.size_bytes) for found in store.list("many/")]


def put_bytes(store: Any, server: FaultServer, place: Path) -> Any:
    return [store.put(f"new{number}", PUT) for number in range(3)]


def put_in_parts(store: Any, server: FaultServer, place: Path) -> Any:
    (place / "large").write_bytes(LARGE)
    return store.put("large", place / "large")


def is_index(found: Any, server: FaultServer) -> bool:
    versions = {(version.data, version.etag) for version in server.objects["index.json"]}
    return (found.data, found.etag) in versions and found.data in (INDEX, bytes(byte ^ 255 for byte in INDEX))


WORK = {
    "index": Work(("read",), ("index.json",) * 3, read_index, is_index, ("flip", "stale", "long")),
    "shard": Work(
        ("read",),
        ("shard0", "shard1", "shard2"),
        fetch_shards,
        lambda found, server: found == [SHARD] * 3,
        ("flip", "stale", "replaced"),
    ),
    "in ranges": Work(
        ("read",),
        ("long",) * 3,
        fetch_in_ranges,
        lambda found, server: found == LONG,
        ("flip", "stale", "replaced"),
        3 * DEADLINE_S,
    ),
    "range": Work(
        ("read",),
        ("shard0",) * 3,
        read_spans,
        lambda found, server: found == [SHARD[begin:end] for begin, end in SPANS],
        ("flip",),
    ),
    "list": Work(
        ("list",),
        ("",) * 3,
        list_keys,
        lambda found, server: found == [(f"many/{number}", 1) for number in range(5)],
        ("flip", "stale"),
    ),
    "put": Work(
        ("put",),
        ("new0", "new1", "new2"),
        put_bytes,
        lambda found, server: [server.data(f"new{number}") for number in range(3)] == [PUT] * 3,
        ("replaced",),
    ),
    "multipart": Work(
        MULTIPART,
        ("large",) * 3,
        put_in_parts,
        lambda found, server: server.data("large") == LARGE,
        ("replaced",),
        3 * DEADLINE_S,  # in which it is sent anew, perhaps on a busy machine
    ),
}


@pytest.fixture(autouse=True)
def _less_time_for_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an upload of 20 MiB may take longer: two seconds, not 160, for which its lasting faults would wait."""
    monkeypatch.setattr(retries, "_SLOWEST", len(LARGE) // 2)


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    return filled(fault_server)


def filled(server: FaultServer) -> FaultServer:
    """Every object that is read was replaced once, so that there is a stale version of it."""
    server.page_keys = 2
    shards = [(f"shard{number}", OLD_SHARD, SHARD) for number in range(3)]
    for key, old, new in [("index.json", OLD_INDEX, INDEX), ("long", LONG[::-1], LONG), *shards]:
        server.put(key, old)
        server.put(key, new)
    for number in range(5):
        server.put(f"many/{number}", b"x")
    return server


def fault_of(work: Work, place: Place, times: int | None) -> tuple[tuple[Operation, ...], dict[str, Any]]:
    """The operations that a fault hits, which of their requests, and where in the bodies."""
    number = PLACES.index(place)
    operations = (work.operations[number],) if work.operations == MULTIPART else work.operations
    skip = number if work.operations == ("list",) else 0
    return operations, {"key": work.keys[number], "skip": skip, "times": times, "place": place}


def attempt(work: Work, kind: Kind, server: FaultServer, scratch: Path, settings: Any, deadline_s: float) -> Any:
    """What an operation comes to, and the fault that it met."""
    server.heal()
    operations, others = settings
    fault = server.fail(kind, *operations, **others)
    scratch.mkdir()
    store = open_store(server.url(), deadline_s=deadline_s)
    return in_time(lambda: work.act(store, server, scratch)), fault


def check(name: str, kind: Kind, place: Place, times: int | None, server: FaultServer, tmp_path: Path) -> None:
    work = WORK[name]
    settings = fault_of(work, place, times)
    deadline_s = LASTING_DEADLINE_S if times is None else work.deadline_s
    for slack in SLACK:
        found, fault = attempt(work, kind, server, tmp_path / f"{slack}", settings, slack * deadline_s)
        if not was_too_slow(found, fault):
            break
    assert fault.met > fault.skip, f"the fault struck nothing: {found!r:.300}"
    if isinstance(found, Exception):
        assert isinstance(found, mx8.RemoteError), repr(found)
        assert times != 1 or kind not in TRANSIENT, f"not tried again: {found!r}"
        assert server.environment["AWS_SECRET_ACCESS_KEY"] not in str(found)
        assert found.reason == reason_of(kind) or kind not in (403, 404, *TRANSIENT), (found.reason, str(found))
    elif kind not in work.unseen:
        assert work.right(found, server), found
    server.heal()


def reason_of(kind: Kind) -> str:
    return {403: "denied", 404: "missing"}.get(kind, "network")


COMBINATIONS = [(name, place) for name in WORK for place in PLACES]


@pytest.mark.parametrize(
    ("name", "place", "kind"),
    [(name, place, kind) for (name, place), kind in zip(COMBINATIONS, itertools.cycle(KINDS), strict=False)],
)
def test_one_fault_per_operation_and_place(
    name: str, place: Place, kind: Kind, server: FaultServer, tmp_path: Path
) -> None:
    check(name, kind, place, 1, server, tmp_path)


LASTING = [("index", 503), ("list", 500), *((name, "hang") for name in ("shard", "range", "put", "multipart"))]


@pytest.mark.parametrize(("name", "kind"), LASTING)
def test_a_lasting_fault_is_an_error_within_the_deadline(
    name: str, kind: Kind, server: FaultServer, tmp_path: Path
) -> None:
    check(name, kind, "middle", None, server, tmp_path)


@pytest.mark.hunt
@pytest.mark.parametrize("times", [1, 2, None])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_of_every_operation_at_every_place(
    kind: Kind, name: str, place: Place, times: int | None, server: FaultServer, tmp_path: Path
) -> None:
    check(name, kind, place, times, server, tmp_path)


@pytest.mark.hunt
@pytest.mark.parametrize("times", [1, 2, None])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["shard", "in ranges"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_of_downloads_over_tls(
    kind: Kind, name: str, place: Place, times: int | None, tls_server: FaultServer, tmp_path: Path
) -> None:
    check(name, kind, place, times, filled(tls_server), tmp_path)
