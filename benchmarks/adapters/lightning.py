"""How does litdata read samples: of MDS, and of its own format?

It reads MDS only where every shard is compressed with plain zstd, unlinks each compressed file that it has unpacked,
and refuses a shard that zstd made no smaller. Read at random as its users would, it reads the whole shard again for
every sample. One shard which it may map, samples decoded one by one: that is the quickest that it can be made to do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import litdata
from litdata.streaming.writer import BinaryWriter

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


def write(out: Path, columns: Mapping[str, str], samples: Iterable[Mapping[str, Any]]) -> None:
    """Its own optimised format, in chunks of 64 MB, as `litdata.optimize` would leave it."""
    writer = BinaryWriter(str(out), chunk_bytes="64MB")
    for number, sample in enumerate(samples):
        writer[number] = {name: sample[name] for name in columns}
    writer.done()
    writer.merge()


def open_loader(
    root: Path, batch_size: int, workers: int = 0, joined: bool = True, batch_decode: int | str = "auto"
) -> Any:
    """Its StreamingDataset and StreamingDataLoader over its own format; shuffled as it does."""
    from benchmarks.adapters.torch_loader import Epochs, collate

    dataset = litdata.StreamingDataset(
        str(root), shuffle=True, seed=17, drop_last=False, max_cache_size="1000GB", batch_decode=batch_decode
    )
    gather = functools.partial(collate, joined=joined)
    return Epochs(litdata.StreamingDataLoader, workers, dataset=dataset, batch_size=batch_size, collate_fn=gather)
