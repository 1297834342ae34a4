"""How does mosaicml-streaming write and read samples?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.adapters import streaming_classes
from benchmarks.adapters.streaming_stub import import_streaming

streaming = import_streaming()

open_samples = functools.partial(streaming_classes.open_samples, streaming)
open_loader = functools.partial(streaming_classes.open_loader, streaming)
open_indexed = functools.partial(streaming_classes.open_indexed, streaming)
open_workers = functools.partial(streaming_classes.open_workers, streaming)

SETTINGS: dict[str, object] = {"size_limit": "64mb", "fsync": "none of its own"}


def write(
    out: Path,
    columns: Mapping[str, str],
    samples: Iterable[Mapping[str, Any]],
    hashes: Sequence[str] = (),
    compression: str | None = None,
    size_limit: str = "64mb",
) -> None:
    """Write and close the files, without syncing them to disk."""
    with streaming.MDSWriter(
        out=str(out), columns=dict(columns), hashes=sorted(hashes), compression=compression, size_limit=size_limit
    ) as writer:
        for sample in samples:
            writer.write(sample)


def open_dataset(root: Path) -> Any:
    """LocalDataset, Streaming's fastest reader for random access."""
    return streaming.LocalDataset(str(root))


def open_streaming_dataset(root: Path) -> Any:
    """StreamingDataset, Streaming's reader for training loops."""
    return streaming.StreamingDataset(local=str(root), batch_size=1, shuffle=False)


def reader(root: Path) -> Callable[[int], Any]:
    """`LocalDataset[i]`."""
    dataset = open_dataset(root)
    return lambda position: dataset[position]


def open_remote(url: str, local: Path, batch_size: int, workers: int = 0) -> Any:
    """StreamingDataset over a dataset in S3, with its default shuffle, py1e, and a cache in `local`."""
    from benchmarks.adapters.torch_loader import Epochs, collate

    dataset = streaming.StreamingDataset(
        remote=url, local=str(local), batch_size=batch_size, shuffle=True, shuffle_seed=17, num_canonical_nodes=1
    )
    return Epochs(streaming.StreamingDataLoader, workers, dataset=dataset, batch_size=batch_size, collate_fn=collate)


def resume(loader: Any, delivered: int) -> None:
    """Load the state after `delivered` samples of the first epoch."""
    dataset = loader.loader.dataset
    dataset.load_state_dict(dataset.state_dict(delivered, False))
