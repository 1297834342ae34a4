"""Fixtures of the loader tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.loader.child_process import ChildProcess


@pytest.fixture(scope="session")
def child_process() -> Iterator[ChildProcess]:
    """A process that runs scenarios."""
    found = ChildProcess()
    yield found
    found.close()
