"""Fixtures of the loader tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.loader.parts")

from tests.loader.acting import Actor  # noqa: E402 - now its asserts tell more


@pytest.fixture(scope="session")
def actor() -> Iterator[Actor]:
    """A process in which scenes are acted out."""
    found = Actor()
    yield found
    found.close()
