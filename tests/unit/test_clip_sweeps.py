"""Do parts of payloads come only for batches that are wanted?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mx8shards.errors import LoaderError
from mx8shards.kernels.records import MAPPED, ROW, SHARD
from mx8shards.media.clip_sweeps import copier


def test_decoders_read_nothing_more_once_the_batch_is_not_wanted() -> None:
    payload, found, stopped = np.arange(100, dtype=np.uint8), np.zeros(10, np.uint8), False
    shards, rows = np.zeros(1, SHARD), np.zeros(1, ROW)
    shards["base"], rows["way"] = payload.ctypes.data, MAPPED
    work: Any = SimpleNamespace(shards=shards, rows=rows, is_stopped=lambda: stopped)
    copy = copier(work, 0, 20, 50)
    assert copy(5, 10, found.ctypes.data)
    assert found.tolist() == list(range(25, 35))
    stopped = True
    with pytest.raises(LoaderError, match="stopped"):
        copy(5, 10, found.ctypes.data)
