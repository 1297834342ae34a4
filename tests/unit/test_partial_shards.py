"""Which shards are read in parts?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mx8shards.loading.planning.partial_shards import PartialShards
from tests.clip_data import write_videos
from tests.videos import video


class Thousands(dict[int, Any]):
    """Parts that are too many to look at for each batch."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("all parts are looked at")


def test_a_batch_looks_only_at_its_own_shards(tmp_path: Path) -> None:
    with write_videos(tmp_path / "data", [video("h264").data]) as dataset:
        parts = PartialShards(dataset.shards)
        assert parts.among(np.array([3, 1, 3])).tolist() == [False] * 3
        parts._parts = Thousands({1: None, 3: None, 5: None})
        parts.read_whole([5])
        numbers = np.array([3, 1, 2, 3, 5])
        assert parts.among(numbers).tolist() == [True, True, False, True, False]
