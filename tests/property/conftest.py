"""Fixtures of the property tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mx8shards as mx8


@pytest.fixture(scope="module")
def pool() -> Iterator[mx8.Pool]:
    """A pool that all loaders of a module share, one per rank."""
    pool = mx8.Pool(memory="1gb", threads=2)
    yield pool
    pool.close()
