"""Fixtures of the loader tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.loader.leak_checks")

from tests.loader.child_process import ChildProcess  # noqa: E402 - after the assert rewriting is registered


@pytest.fixture(scope="session")
def child_process() -> Iterator[ChildProcess]:
    """A process that runs scenarios."""
    found = ChildProcess()
    yield found
    found.close()
