"""Is a dataset consistent after a power cut, which loses everything that was not synced?"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import mx8shards as mx8
from tests.crash.disk_model import Disk
from tests.crash.fault_injection import FaultInjector, Step
from tests.crash.scenarios import BY_NAME, SCENARIOS, Expectation, Scenario

ExpectationOf = Callable[[Scenario], Expectation]


def steps_of(expectation: Expectation, place: Path) -> list[Step]:
    """The steps of an undisturbed run in `place`, which is restored afterwards."""
    expectation.copy(place)
    injector = FaultInjector()
    with injector.running():
        expectation.scenario.act(place)
    expectation.copy(place)
    return injector.steps


def cut_everywhere(
    expectation: Expectation, scratch: Path, steps: list[Step], chances: list[float], stride: int = 1
) -> int:
    """Cut the power after every `stride`-th step and the last. Returns the number of disk states checked."""
    place, left, cache = scratch / "place", scratch / "left", scratch / "cache"
    disk = Disk.of(expectation.copy(place))
    states = 0
    for number in range(len(steps) + 1):
        if number % stride == 0 or number == len(steps):
            for chance in chances:
                shutil.rmtree(left, ignore_errors=True)
                disk.cut(place, left, random.Random(number), chance)
                new = expectation.check(left, cache)
                assert new or number < len(steps), "what was published is gone"
                expectation.finish(left)
                states += 1
        if number < len(steps):
            disk.play(steps[number])
    return states


@pytest.mark.parametrize("name", ["create", "append", "overwrite"])
def test_a_power_cut_after_any_step_leaves_the_old_or_the_new_state(
    name: str, expectation_of: ExpectationOf, scratch: Path
) -> None:
    expectation = expectation_of(BY_NAME[name])
    assert cut_everywhere(expectation, scratch, steps_of(expectation, scratch / "place"), [0, 0.6], stride=2) > 40


@pytest.mark.hunt
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_power_cut_in_any_scenario_with_any_reordering_leaves_the_old_or_the_new_state(
    scenario: Scenario, expectation_of: ExpectationOf, scratch: Path
) -> None:
    expectation = expectation_of(scenario)
    chances = [0, 1, *(0.1 * tenth for tenth in range(1, 10))]
    print(
        scenario,
        cut_everywhere(expectation, scratch, steps_of(expectation, scratch / "place"), chances),
        "states of the disk",
    )


@pytest.mark.parametrize(
    ("kind", "part"),
    [("sync", "shard.00001.mds"), ("sync", "intent.draft"), ("sync_directory", "staging"), ("sync_directory", "data")],
)
def test_the_disk_model_detects_a_missing_sync(
    kind: str, part: str, expectation_of: ExpectationOf, scratch: Path
) -> None:
    expectation = expectation_of(BY_NAME["create"])
    steps = steps_of(expectation, scratch / "place")
    fewer = [step for step in steps if not (step[0] == kind and any(str(a).endswith(part) for a in step[1]))]
    assert len(fewer) < len(steps)
    with pytest.raises((AssertionError, mx8.ShardsError)):
        cut_everywhere(expectation, scratch, fewer, [0, 0.6])


def cut_again_and_again(expectation: Expectation, scratch: Path, seed: int) -> None:
    """Cut the power at random steps, also during recovery, then complete the operation."""
    rng = random.Random(seed)
    place, left, cache = scratch / "place", scratch / "left", scratch / "cache"
    expectation.copy(left)
    for _ in range(rng.randint(2, 4)):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(left, place)
        injector = FaultInjector()
        disk = Disk.of(place)
        with injector.running():
            expectation.scenario.act(place)
        for step in injector.steps[: rng.randint(0, len(injector.steps))]:
            disk.play(step)
        shutil.rmtree(left)
        disk.cut(place, left, rng, rng.random())
        if expectation.check(left, cache):
            break
    expectation.finish(left)


@pytest.mark.parametrize("name", ["create", "overwrite"])
def test_repeated_power_cuts_lose_nothing(name: str, expectation_of: ExpectationOf, scratch: Path) -> None:
    for seed in range(25):
        cut_again_and_again(expectation_of(BY_NAME[name]), scratch, seed)


@pytest.mark.hunt
@pytest.mark.parametrize("round_", range(4))  # each within the timeout of a test
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_thousand_series_of_power_cuts_lose_nothing(
    scenario: Scenario, round_: int, expectation_of: ExpectationOf, scratch: Path
) -> None:
    for seed in range(250 * round_, 250 * (round_ + 1)):
        cut_again_and_again(expectation_of(scenario), scratch, seed)
