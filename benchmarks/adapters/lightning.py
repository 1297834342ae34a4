"""How does litdata read MDS samples?

It reads MDS only where every shard is compressed with plain zstd, unlinks each compressed file that it has unpacked,
and refuses a shard that zstd made no smaller. Read at random as its users would, it reads the whole shard again for
every sample. One shard which it may map, samples decoded one by one: that is the quickest that it can be made to do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import litdata

SETTINGS: dict[str, object] = {"shards": "one, unpacked beforehand", "batch_decode": 0, "mmap": "enabled by hand"}


def open_dataset(root: Path) -> Any:
    """Its StreamingDataset, which drops no unpacked shard."""
    return litdata.StreamingDataset(str(root), batch_decode=0, max_cache_size="1000GB")


def reader(root: Path) -> Callable[[int], Any]:
    """`StreamingDataset[i]`, reading from the map that its iterator would enable."""
    dataset = open_dataset(root)
    dataset[0]  # unpacks the shard
    dataset.cache._reader.enable_mmap_for_chunks({0})
    dataset.cache._reader._item_loader._chunk_filepath = ""  # so that the shard is opened anew
    return lambda position: dataset[position]
