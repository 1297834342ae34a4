"""Are shards fetched for `predownload` samples beyond the one that is read, at every time, and for few more?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mx8shards.streaming import StreamingDataset
from tests.dropin.conftest import write
from tests.waiting import wait_until

COUNT = 600
STEP = 32  # it looks ahead after so many samples, or after a quarter of `predownload`, or a batch


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of about 5 samples."""
    return write(tmp_path_factory.mktemp("source") / "data", 0, COUNT, limit=400)


@pytest.mark.parametrize("settings", [{"batch_size": 8}, {"batch_size": 2, "predownload": 24}], ids=str)
def test_shards_are_fetched_ahead_at_every_time(settings: dict[str, Any], source: Path, tmp_path: Path) -> None:
    dataset = StreamingDataset(remote=str(source), local=str(tmp_path), **settings)
    wanted, ends = dataset.predownload, np.cumsum(dataset.samples_per_shard)

    def fetched() -> int:
        """The samples of the shards that are here, which are the first ones of the dataset."""
        return int(ends[len(list(tmp_path.glob("*.mds"))) - 1])

    for position, found in enumerate(dataset):
        assert found["id"] == position
        if position % 7 == 0:
            wait_until(lambda: fetched() >= min(position + wanted, COUNT))  # noqa: B023 - it is called here
            assert fetched() <= position + wanted + 2 * STEP + int(dataset.samples_per_shard.max())
