"""Is a dataset consistent, and the next publication unaffected, if an operation stops or fails at any step?"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mx8shards as mx8
from tests.crash import fault_injection
from tests.crash.fault_injection import FaultInjector, Stopped
from tests.crash.scenarios import BY_NAME, COLUMNS, SCENARIOS, Expectation, Scenario, samples, write

FAULTS = [
    fault_injection.stop_before,
    fault_injection.stop_during,
    fault_injection.fail_once,
    fault_injection.fill_disk,
    fault_injection.fail_from_now_on,
    fault_injection.press_ctrl_c,
]
THOROUGHLY = ["create", "append", "overwrite"]

ExpectationOf = Callable[[Scenario], Expectation]


def open_files() -> list[str]:
    """The open files of this process."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of listdir itself
            found.append(os.readlink(descriptor))
    return found


def disturbed(expectation: Expectation, place: Path, injector: FaultInjector) -> BaseException | None:
    """Run the scenario in a fresh copy with this injector. Returns the error, if any."""
    expectation.copy(place)
    error: BaseException | None = None
    with injector.running():
        try:
            expectation.scenario.act(place)
        except (mx8.ShardsError, Stopped, KeyboardInterrupt) as found:
            error = found.with_traceback(None)
    assert not any(name.endswith(".mx8shards/lock") for name in open_files())
    assert threading.active_count() == 1
    return error


def check(expectation: Expectation, place: Path, cache: Path, error: BaseException | None) -> None:
    """Assert the old or the new state, and that the error says which of the two."""
    new = expectation.check(place, cache)
    if error is None:
        assert new
    elif new and isinstance(error, mx8.ShardsError) and expectation.publishes:
        assert "already published" in str(error)  # the dataset, or one split
    expectation.finish(place)


def sweep(
    expectation: Expectation,
    scratch: Path,
    fault: Callable[[FaultInjector, fault_injection.Step], None],
    first: int = 0,
    stride: int = 1,
) -> int:
    """Disturb the scenario at every `stride`-th step from `first` on. Returns the number of steps."""
    for at in range(first, 10_000, stride):
        injector = FaultInjector(at, fault)
        error = disturbed(expectation, scratch / "place", injector)
        check(expectation, scratch / "place", scratch / "cache", error)
        if injector.faulty is None:
            assert error is None
            return at
    raise AssertionError("it never ends")


@pytest.mark.parametrize("name", THOROUGHLY)
def test_a_process_that_dies_before_any_step_leaves_the_old_or_the_new_state(
    name: str, expectation_of: ExpectationOf, scratch: Path
) -> None:
    assert sweep(expectation_of(BY_NAME[name]), scratch, fault_injection.stop_before) > 40


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_every_fault_at_some_steps_of_every_scenario_leaves_the_old_or_the_new_state(
    scenario: Scenario,
    fault: Callable[[FaultInjector, fault_injection.Step], None],
    expectation_of: ExpectationOf,
    scratch: Path,
) -> None:
    # each fault at different steps; together the six cover every seventh step
    sweep(expectation_of(scenario), scratch, fault, first=7 * FAULTS.index(fault), stride=42)


@pytest.mark.hunt
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_every_fault_at_every_step_leaves_the_old_or_the_new_state(
    scenario: Scenario,
    fault: Callable[[FaultInjector, fault_injection.Step], None],
    expectation_of: ExpectationOf,
    scratch: Path,
) -> None:
    print(scenario, fault.__name__, sweep(expectation_of(scenario), scratch, fault), "steps")


def crash_in_recovery(expectation: Expectation, scratch: Path, first: int) -> Iterator[bool]:
    """Die at step `first`, then at each step of the next process in turn. Yields whether that process completed."""
    place, cache = scratch / "place", scratch / "cache"
    for second in range(10_000):
        disturbed(expectation, place, FaultInjector(first, fault_injection.stop_before))
        if expectation.check(place, cache):
            return
        again = FaultInjector(second, fault_injection.stop_before)
        with again.running(), contextlib.suppress(Stopped):
            expectation.scenario.act(place)
        expectation.check(place, cache)
        yield again.faulty is None or any(name == "create" for name, _ in again.steps)
        if again.faulty is None:
            return


@pytest.mark.parametrize("name", ["create", "overwrite"])
def test_a_crash_during_recovery_loses_nothing(name: str, expectation_of: ExpectationOf, scratch: Path) -> None:
    expectation = expectation_of(BY_NAME[name])
    whole = FaultInjector()
    disturbed(expectation, scratch / "place", whole)
    last = [step for step, _ in whole.steps].index("remove_directory")
    for first in range(3, last, 6):
        for writing_again in crash_in_recovery(expectation, scratch, first):
            if writing_again:
                break  # later crashes are like a first crash
        expectation.finish(scratch / "place")


@pytest.mark.hunt
@pytest.mark.parametrize("part", range(4))  # each within the timeout of a test
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_two_crashes_in_a_row_at_any_two_steps_lose_nothing(
    scenario: Scenario, part: int, expectation_of: ExpectationOf, scratch: Path
) -> None:
    expectation = expectation_of(scenario)
    whole = FaultInjector()
    disturbed(expectation, scratch / "place", whole)
    pairs = 0
    for first in range(part, len(whole.steps), 4):
        pairs += sum(1 for _ in crash_in_recovery(expectation, scratch, first))
    print(scenario, pairs, "pairs of crashes")


def injector_that_fails_shard_1(scratch: Path) -> FaultInjector:
    """An injector that makes creating the file of shard 1 fail once."""
    whole = FaultInjector()
    with whole.running():
        write(scratch / "undisturbed")
    names = [str(arguments[0]) if name == "create" else "" for name, arguments in whole.steps]
    (at,) = [i for i, name in enumerate(names) if name.endswith("shard.00001.mds")]
    return FaultInjector(at, fault_injection.fail_once)


def test_a_writer_that_failed_to_store_a_shard_publishes_nothing_even_if_more_is_written(scratch: Path) -> None:
    with injector_that_fails_shard_1(scratch).running():
        writer = mx8.Writer(scratch / "data", columns=COLUMNS, size_limit=270, threads=1)
        refused = 0
        for sample in samples(0, 20):
            try:
                writer.write(sample)
            except (mx8.DiskError, ValueError):
                refused += 1
        assert refused > 1
        with pytest.raises(ValueError, match="closed: nothing can be published") as found:
            writer.finish()
    assert isinstance(found.value.__cause__, mx8.DiskError)
    with pytest.raises(mx8.DatasetNotFoundError):
        mx8.Dataset(scratch / "data")


def test_leaving_the_with_block_after_a_suppressed_disk_error_is_an_error(scratch: Path) -> None:
    def write_and_hope() -> None:
        with mx8.Writer(scratch / "data", columns=COLUMNS, size_limit=270, threads=1) as writer:
            try:
                for sample in samples(0, 20):
                    writer.write(sample)
            except mx8.DiskError:
                return

    with injector_that_fails_shard_1(scratch).running(), pytest.raises(ValueError, match="nothing can be published"):
        write_and_hope()


def test_an_error_in_the_cleanup_after_publishing_is_only_logged(
    scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = FaultInjector()
    with whole.running():
        expected = write(scratch / "one")
    with FaultInjector(len(whole.steps) - 1, fault_injection.fail_once).running():
        assert write(scratch / "two") == expected
    assert "the next publication has to clean up" in caplog.text
    assert (scratch / "two/.mx8shards/staging").is_dir()
    write(scratch / "two", mode="append")
    assert not (scratch / "two/.mx8shards/staging").exists()
