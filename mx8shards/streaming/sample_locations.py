"""Which shard has a sample? The class Spanner, under Streaming's name."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class Spanner:
    """Maps the number of a sample to the number of its shard, and to its row in it.

    Args:
        shard_sizes: The number of samples of each shard.
        span_size: Ignored. Streaming needs it.
    """

    def __init__(self, shard_sizes: Sequence[int] | npt.NDArray[Any], span_size: int = 1 << 10) -> None:
        self.shard_sizes = np.asarray(shard_sizes, np.int64)
        self.span_size = span_size
        self.shard_bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.shard_sizes)])
        self.num_samples = int(self.shard_bounds[-1])

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self.num_samples:
            raise IndexError(f"sample {index} of {self.num_samples}")
        shard = bisect_right(self.shard_bounds.data, index) - 1
        return shard, int(index) - int(self.shard_bounds[shard])
