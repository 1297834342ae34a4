"""How does litdata read samples, from MDS and from its own format?

It reads MDS only if every shard is compressed with plain zstd, deletes each compressed file after unpacking it, and
refuses a shard that zstd did not make smaller. By default, random access reads the whole shard again for every sample.
The fastest setup found is one shard, memory-mapped, with samples decoded one by one.
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
    """litdata's StreamingDataset, set to keep unpacked shards."""
    return litdata.StreamingDataset(str(root), batch_decode=0, max_cache_size="1000GB")


def reader(root: Path) -> Callable[[int], Any]:
    """`StreamingDataset[i]`, reading from a memory map, which normally only its iterator enables."""
    dataset = open_dataset(root)
    dataset[0]  # unpacks the shard
    dataset.cache._reader.enable_mmap_for_chunks({0})
    dataset.cache._reader._item_loader._chunk_filepath = ""  # makes it open the shard again
    return lambda position: dataset[position]


def write(out: Path, columns: Mapping[str, str], samples: Iterable[Mapping[str, Any]]) -> None:
    """Write litdata's own format in chunks of 64 MB, as `litdata.optimize` does."""
    writer = BinaryWriter(str(out), chunk_bytes="64MB")
    for number, sample in enumerate(samples):
        writer[number] = {name: sample[name] for name in columns}
    writer.done()
    writer.merge()


def open_loader(
    root: Path, batch_size: int, workers: int = 0, joined: bool = True, batch_decode: int | str = "auto"
) -> Any:
    """litdata's StreamingDataset and StreamingDataLoader over its own format, with its own shuffle."""
    from benchmarks.adapters.torch_loader import Epochs, collate

    dataset = open_samples(root, batch_decode)
    gather = functools.partial(collate, joined=joined)
    return Epochs(litdata.StreamingDataLoader, workers, dataset=dataset, batch_size=batch_size, collate_fn=gather)


def open_samples(root: Path, batch_decode: int | str = "auto") -> Any:
    """litdata's StreamingDataset over its own format, fully shuffled, to iterate without a DataLoader."""
    return litdata.StreamingDataset(
        str(root), shuffle=True, seed=17, drop_last=False, max_cache_size="1000GB", batch_decode=batch_decode
    )


def open_indexed(root: Path, batch_size: int, workers: int) -> Any:
    """A DataLoader that indexes litdata's StreamingDataset: every sample once, at random, in forked workers."""
    import numpy as np
    from torch.utils.data import DataLoader, Subset

    from benchmarks.adapters.torch_loader import Epochs, collate

    whole = litdata.StreamingDataset(str(root), max_cache_size="1000GB", batch_decode=0)
    dataset = Subset(whole, np.random.default_rng(17).permutation(len(whole)).tolist())
    arguments = {"batch_size": batch_size, "collate_fn": collate, "multiprocessing_context": "fork"}
    return Epochs(DataLoader, workers, dataset=dataset, **arguments)


def open_remote(url: str, local: Path, batch_size: int, workers: int = 0) -> Any:
    """litdata's StreamingDataset over its own format in S3, shuffled, with a cache in `local`."""
    from litdata.streaming import downloader

    from benchmarks.adapters.torch_loader import Epochs, collate

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # it has no setting for servers without TLS
    dataset = litdata.StreamingDataset(
        url, cache_dir=str(local), shuffle=True, seed=17, drop_last=False, max_cache_size="1000GB"
    )
    return Epochs(litdata.StreamingDataLoader, workers, dataset=dataset, batch_size=batch_size, collate_fn=collate)
