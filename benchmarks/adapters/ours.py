"""How does mx8shards write and read samples?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mx8shards import Dataset, Writer

SETTINGS: dict[str, object] = {"size_limit": "64mb", "threads": "one per core", "fsync": "every file"}


def write(
    out: Path,
    columns: Mapping[str, str],
    samples: Iterable[Mapping[str, Any]],
    hashes: Sequence[str] = (),
    compression: str | None = None,
    size_limit: str = "64mb",
) -> None:
    """Write a dataset, synced to disk. The hashes always include blake3."""
    with Writer(out, columns=columns, hashes=hashes, compression=compression, size_limit=size_limit) as writer:
        for sample in samples:
            writer.write(sample)


def open_dataset(root: Path) -> Dataset:
    """The dataset, opened."""
    return Dataset(root)


def reader(root: Path) -> Callable[[int], Any]:
    """`dataset[i]`."""
    return open_dataset(root).__getitem__


def payload_reader(root: Path, column: str) -> Callable[[int], Any]:
    """Read one column of a sample as a view of the mapped shard."""
    payload = open_dataset(root).payload
    return lambda position: payload(position, column)


def open_loader(root: Path, batch_size: int, **options: Any) -> Any:
    """The Loader over all columns, fully shuffled, otherwise with defaults or `options`."""
    from mx8shards import Loader

    return Loader(Dataset(root), batch_size=batch_size, shuffle=True, seed=17, **options)


def open_remote(url: str, local: Path, batch_size: int, shards: int = 8, **options: Any) -> Any:
    """The Loader over a dataset in S3, shuffled by blocks, with a cache in `local`."""
    from mx8shards import BlockShuffle, Loader

    dataset = Dataset(url, local=local)
    return Loader(dataset, batch_size=batch_size, shuffle=BlockShuffle(shards=shards), seed=17, **options)


def resume(loader: Any, delivered: int) -> None:
    """Resume after `delivered` samples of the epoch."""
    loader.load_state_dict(loader.state_dict() | {"epoch": 0, "position": delivered})
