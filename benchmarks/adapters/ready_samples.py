"""How quick is torch's DataLoader itself? Datasets that have every sample ready, as the upper bound of all others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from benchmarks.adapters.streaming_classes import first
from benchmarks.adapters.torch_loader import Epochs, collate

Sample = Mapping[str, Any]
_READY = 256


class Iterated(IterableDataset[Sample]):
    """Yields `count` samples per epoch, divided among workers."""

    def __init__(self, samples: list[Sample], count: int) -> None:
        self.samples = samples
        self.count = count

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        return itertools.islice(itertools.cycle(self.samples), self.count // (worker.num_workers if worker else 1))


class Indexed(Dataset[Sample]):
    """Has `count` samples by index."""

    def __init__(self, samples: list[Sample], count: int) -> None:
        self.samples = samples
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index % len(self.samples)]


def open_loader(root: Path, batch_size: int, workers: int = 0) -> Any:
    """A DataLoader of an iterable dataset. Worker by worker, it has whole batches."""
    return Epochs(DataLoader, workers, dataset=Iterated(*_ready(root)), batch_size=batch_size, collate_fn=collate)


def open_indexed(root: Path, batch_size: int, workers: int) -> Any:
    """A DataLoader of a map-style dataset, in order."""
    arguments = {"batch_size": batch_size, "collate_fn": collate, "multiprocessing_context": "fork"}
    return Epochs(DataLoader, workers, dataset=Indexed(*_ready(root)), **arguments)


def open_workers(root: Path, workers: int, start: str) -> Any:
    """A DataLoader of many workers, each of which reads one integer and needs only torch."""
    dataset = Indexed([{"x": 0}], workers)
    return DataLoader(dataset, batch_size=1, num_workers=workers, multiprocessing_context=start, collate_fn=first)


def _ready(root: Path) -> tuple[list[Sample], int]:
    from benchmarks.adapters import ours  # here, because a spawned worker imports this module, and is to import little

    dataset = ours.open_dataset(root)
    return [dataset[i] for i in range(min(_READY, len(dataset)))], len(dataset)
