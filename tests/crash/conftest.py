"""Fixtures of the crash tests: directories, and the result of each scene without disturbance."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.scenes import IN_MEMORY, Scene, Story


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A directory in memory where the machine has one: whoever stops the world by hand need not wait for a disk."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def story_of(memory: Path) -> Callable[[Scene], Story]:
    """Scenes run undisturbed, once each."""
    known: dict[str, Story] = {}

    def find(scene: Scene) -> Story:
        if scene.name not in known:
            (memory / scene.name).mkdir()
            known[scene.name] = Story.of(scene, memory / scene.name)
        return known[scene.name]

    return find


@pytest.fixture
def scratch(memory: Path) -> Iterator[Path]:
    """An empty directory in memory, gone after the test."""
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)
