"""Fixtures of the crash tests: directories, and the result of each scenario without disturbance."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.scenarios import IN_MEMORY, Expectation, Scenario


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A directory on a tmpfs if possible: simulated crashes need no real disk."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def expectation_of(memory: Path) -> Callable[[Scenario], Expectation]:
    """Scenarios run undisturbed, once each."""
    known: dict[str, Expectation] = {}

    def find(scenario: Scenario) -> Expectation:
        if scenario.name not in known:
            (memory / scenario.name).mkdir()
            known[scenario.name] = Expectation.of(scenario, memory / scenario.name)
        return known[scenario.name]

    return find


@pytest.fixture
def scratch(memory: Path) -> Iterator[Path]:
    """An empty directory on the tmpfs, removed after the test."""
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)
