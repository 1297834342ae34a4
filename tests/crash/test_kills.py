"""Is a dataset consistent after its writer was killed, or one of its system calls failed?"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.child import BROKEN, DONE, IN_PLACE
from tests.crash.scenarios import BY_NAME, SCENARIOS, Expectation, Scenario
from tests.crash.traced_processes import FAILING, NoTracerError, Point, TracedProcesses, fail, kill

ExpectationOf = Callable[[Scenario], Expectation]
TRACED = [
    *("create", "create compressed", "append to a foreign dataset", "overwrite"),
    *("merge", "merge and move", "append by ranks and move", "gc", "gc of parts"),
]


@pytest.fixture(scope="module")
def processes() -> Iterator[TracedProcesses]:
    found = TracedProcesses()
    yield found
    found.close()


def all_points(processes: TracedProcesses, expectation: Expectation, scratch: Path) -> list[Point]:
    """Every system call on files in the two working threads. Skips the test if tracing is not allowed."""
    try:
        return [
            point
            for where in ("main", "thread")
            for point in processes.points(
                expectation.scenario, expectation.copy(scratch / "place"), where, scratch / "log"
            )
        ]
    except (FileNotFoundError, NoTracerError) as error:
        pytest.skip(f"strace cannot be used here: {error}")


def disturb(processes: TracedProcesses, expectation: Expectation, scratch: Path, point: Point, option: str) -> int:
    """Run once with a kill or failure at this call, and check the result. Returns the exit status."""
    place, log = expectation.copy(scratch / "place"), scratch / "log"
    status = processes.trace(expectation.scenario, place, point.where, log, "-e", option)
    what = f"{expectation.scenario}: {point} with {option} ended with {status}"
    assert status != BROKEN, what
    new = expectation.check(place, scratch / "cache")
    if status == DONE:
        assert new, what
    elif new and status > 0 and expectation.publishes:
        assert status == IN_PLACE, what
    expectation.finish(place)
    return status


@pytest.mark.parametrize("name", ["overwrite", "convert and append", "split and append"])
def test_a_writer_killed_at_some_system_calls_leaves_the_old_or_the_new_state(
    name: str, processes: TracedProcesses, expectation_of: ExpectationOf, scratch: Path
) -> None:
    expectation = expectation_of(BY_NAME[name])
    points = all_points(processes, expectation, scratch)
    ended = [
        disturb(processes, expectation, scratch, point, kill(point)) for point in random.Random(0).sample(points, 20)
    ]
    assert ended.count(-signal.SIGKILL) >= 18


def test_some_failing_system_calls_leave_the_old_or_the_new_state(
    processes: TracedProcesses, expectation_of: ExpectationOf, scratch: Path
) -> None:
    expectation = expectation_of(BY_NAME["create"])
    points = [point for point in all_points(processes, expectation, scratch) if point.call in FAILING]
    for i, point in enumerate(random.Random(1).sample(points, 20)):
        disturb(processes, expectation, scratch, point, fail(point, ("EIO", "ENOSPC")[i % 2]))


@pytest.mark.hunt
@pytest.mark.parametrize("name", TRACED)
def test_a_process_killed_at_any_system_call_leaves_the_old_or_the_new_state(
    name: str, processes: TracedProcesses, expectation_of: ExpectationOf, scratch: Path
) -> None:
    expectation = expectation_of(BY_NAME[name])
    points = all_points(processes, expectation, scratch)
    ended = [disturb(processes, expectation, scratch, point, kill(point)) for point in points]
    print(f"{name}: {len(points)} calls, {ended.count(-signal.SIGKILL)} kills")


@pytest.mark.hunt
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", TRACED)
def test_any_failing_system_call_leaves_the_old_or_the_new_state(
    name: str, error: str, processes: TracedProcesses, expectation_of: ExpectationOf, scratch: Path
) -> None:
    expectation = expectation_of(BY_NAME[name])
    points = [point for point in all_points(processes, expectation, scratch) if point.call in FAILING]
    ended = [disturb(processes, expectation, scratch, point, fail(point, error)) for point in points]
    print(f"{name}: {len(points)} calls with {error}, {len(ended) - ended.count(DONE)} of them noticed")


def kill_at_random(
    processes: TracedProcesses, expectation_of: ExpectationOf, directory: Path, times: int, seed: int = 0
) -> int:
    """Kill random scenarios at random times on a real disk. Returns how many died."""
    rng = random.Random(seed)
    died = 0
    took: dict[str, float] = {}
    for _ in range(times):
        expectation = expectation_of(rng.choice(SCENARIOS))
        place = expectation.copy(directory / "place")
        if expectation.scenario.name not in took:
            began = time.perf_counter()
            assert processes.run(expectation.scenario, place) == DONE
            took[expectation.scenario.name] = time.perf_counter() - began
            expectation.copy(place)
        with processes.started(expectation.scenario, place) as pid:
            time.sleep(rng.uniform(0, took[expectation.scenario.name]))
            processes.kill(pid)
        died += processes.status == -signal.SIGKILL
        expectation.check(place, directory / "cache")
        expectation.finish(place)
    return died


def test_kills_at_random_times_never_damage_a_dataset(
    processes: TracedProcesses, expectation_of: ExpectationOf, tmp_path: Path
) -> None:
    assert kill_at_random(processes, expectation_of, tmp_path, 12) > 0


@pytest.mark.hunt
@pytest.mark.parametrize("round_", range(5))  # each within the timeout of a test
def test_five_hundred_kills_at_random_times_never_damage_a_dataset(
    round_: int, processes: TracedProcesses, expectation_of: ExpectationOf, tmp_path: Path
) -> None:
    print(kill_at_random(processes, expectation_of, tmp_path, 100, seed=round_ + 1), "of 100 died")
