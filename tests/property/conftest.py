"""What do property tests of loaders share?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mx8shards as mx8


@pytest.fixture(scope="module")
def pool() -> Iterator[mx8.Pool]:
    """The threads and memory of all ranks of a world, in one process."""
    pool = mx8.Pool(memory="1gb", threads=2)
    yield pool
    pool.close()
