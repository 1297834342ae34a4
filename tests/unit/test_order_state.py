"""Can a loader state be stored as JSON, and is a state of another dataset or with invalid values refused?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mx8shards.errors import FormatError, IntegrityError, LoaderError
from mx8shards.order.state import State

STATE = State(
    snapshot="sha256:" + "9f" * 32,
    view="whole",
    order={"name": "block_shuffle", "shards": 16},
    seed=-3,
    epoch=2,
    position=512,
    lost={"count": 3, "digest": "c0ffee"},
    pixels={"image": "planes"},
)


def test_a_state_can_be_written_as_json_and_read_back() -> None:
    assert State.from_json(json.loads(json.dumps(STATE.to_json()))) == STATE


@pytest.mark.parametrize("value", [None, [], "state", 3])
def test_a_state_that_is_not_an_object_is_refused(value: Any) -> None:
    with pytest.raises(FormatError, match=r"state: at \$: expected object, got"):
        State.from_json(value)


BAD = {
    "state": ["streaming", None, 1],
    "version": [2, 1.0, True, "1"],
    "snapshot": [None, 1],
    "view": [None, 1],
    "order": ["shuffle", None, []],
    "seed": [None, True, 1.0, "1"],
    "epoch": [-1, 1.5, False, 1 << 64, (1 << 62) + 1],
    "position": [-1, None, "0", 2.0, 1 << 64],
    "lost": [
        None,
        [],
        {},
        {"count": 0},
        {"count": "0", "digest": ""},
        {"count": 0, "digest": 1},
        {"count": True, "digest": ""},
        {"count": -5, "digest": ""},
    ],
    "pixels": [None, [], {"image": 1}, {1: "planes"}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_an_invalid_field_is_an_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(FormatError, match=rf"state: at \$\.{name}(\.count)?: expected "):
        State.from_json(STATE.to_json() | {name: value})


@pytest.mark.parametrize("name", BAD)
def test_a_missing_field_is_an_error_that_names_it(name: str) -> None:
    value = STATE.to_json()
    del value[name]
    with pytest.raises(FormatError, match=name):
        State.from_json(value)


def test_an_unknown_field_is_an_error_that_names_it() -> None:
    with pytest.raises(FormatError, match=r"state: at \$: expected no other keys, got 'rank'"):
        State.from_json(STATE.to_json() | {"rank": 3})


def test_a_state_of_equal_data_and_settings_fits_at_any_epoch_and_position() -> None:
    STATE.check(replace(STATE, epoch=0, position=0), 512)


@pytest.mark.parametrize("name", ["snapshot", "view"])
def test_a_state_of_other_data_is_an_error_that_names_the_difference(name: str) -> None:
    words = rf"state: at \$\.{name}: expected other \(this loader's\), got {getattr(STATE, name)} \("
    with pytest.raises(IntegrityError, match=words):
        STATE.check(replace(STATE, **{name: "other"}), 10_000)


@pytest.mark.parametrize(("name", "value"), [("order", {"name": "shuffle"}), ("seed", 17)])
def test_a_state_of_another_order_is_an_error_that_names_the_difference(name: str, value: Any) -> None:
    with pytest.raises(LoaderError, match=rf"state: at \$\.{name}: expected .* \(this loader's\), got"):
        STATE.check(replace(STATE, **{name: value}), 10_000)


def deep() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(100_000):
        found = {"order": found}
    return found


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("order", deep),
        ("order", lambda: {"name": 10**5_000}),
        ("order", lambda: {"name": "x" * 10_000_000}),
        ("seed", lambda: 10**5_000),
        ("epoch", lambda: 10**5_000),
        ("position", lambda: -(10**5_000)),
        ("lost", lambda: {"count": 10**5_000, "digest": ""}),
        ("snapshot", lambda: "x" * 10_000_000),
        ("view", lambda: "x" * 10_000_000),
        ("state", lambda: "x" * 10_000_000),
        ("state", deep),
        ("version", lambda: 10**5_000),
        ("lost", deep),
        ("pixels", deep),
        ("x" * 10_000_000, lambda: 1),
    ],
    ids=map(str, range(15)),
)
def test_huge_and_deep_values_are_refused_with_a_short_message(name: str, make: Callable[[], Any]) -> None:
    with pytest.raises((FormatError, IntegrityError, LoaderError), match=r"^state: at \$") as caught:
        State.from_json(STATE.to_json() | {name: make()}).check(STATE, 512)
    assert len(str(caught.value)) < 1_000


def test_a_position_beyond_the_epoch_is_refused() -> None:
    with pytest.raises(LoaderError, match=r"state: at \$\.position: expected at most 511 \(an epoch\), got 512"):
        STATE.check(STATE, 511)


def test_lost_samples_do_not_affect_whether_a_state_fits() -> None:
    STATE.check(replace(STATE, lost={"count": 0, "digest": ""}), 512)


def test_a_new_state_has_no_lost_samples() -> None:
    fields = {name: getattr(STATE, name) for name in ("snapshot", "view", "order", "seed", "epoch", "position")}
    assert State(**fields).to_json()["lost"] == {"count": 0, "digest": ""}
