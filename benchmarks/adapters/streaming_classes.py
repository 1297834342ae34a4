"""How does training code read a StreamingDataset? One code for MosaicML Streaming and for our drop-in.

`library` is the module that such code imports: `streaming`, or `mx8shards.streaming`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Subset

from benchmarks.adapters.torch_loader import Epochs, collate

AHEAD = 1 << 20  # samples: all shards are local, so it never waits for a download
_EVERYWHERE = 1 << 40  # a block of more samples than there are


def open_samples(library: Any, root: Path, kind: Any = None, **settings: Any) -> Any:
    """A StreamingDataset to iterate without a DataLoader, fully shuffled unless `settings` say otherwise."""
    shuffled = {"shuffle": True, "shuffle_seed": 17, "num_canonical_nodes": 1, "shuffle_block_size": _EVERYWHERE}
    settings = {"local": str(root), "batch_size": 1, "predownload": AHEAD, **shuffled, **settings}
    return (kind or library.StreamingDataset)(**settings)


def open_loader(
    library: Any, root: Path, batch_size: int, workers: int = 0, joined: bool = True, kind: Any = None
) -> Any:
    """Its StreamingDataLoader. `kind`: a subclass of StreamingDataset."""
    dataset = open_samples(library, root, kind, batch_size=batch_size)
    gather = functools.partial(collate, joined=joined)
    return Epochs(library.StreamingDataLoader, workers, dataset=dataset, batch_size=batch_size, collate_fn=gather)


def open_indexed(library: Any, root: Path, batch_size: int, workers: int, name: str = "StreamingDataset") -> Any:
    """A DataLoader that indexes a dataset: every sample once, at random, in forked workers."""
    whole = library.LocalDataset(str(root)) if name == "LocalDataset" else open_samples(library, root)
    order = np.random.default_rng(17).permutation(whole.size).tolist()
    dataset = Subset(whole, order)
    return Epochs(
        DataLoader, workers, dataset=dataset, batch_size=batch_size, collate_fn=collate, multiprocessing_context="fork"
    )


def open_workers(library: Any, root: Path, workers: int, start: str) -> Any:
    """A StreamingDataLoader of many workers, started by `start` ("fork" or "spawn")."""
    dataset = open_samples(library, root, shuffle_block_size=None)
    arguments = {"batch_size": 1, "num_workers": workers, "multiprocessing_context": start, "collate_fn": first}
    return library.StreamingDataLoader(dataset, **arguments)


def first(samples: list[Mapping[str, Any]]) -> Any:
    """Collate batches of one sample."""
    return samples[0]
