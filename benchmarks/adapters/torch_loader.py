"""How do peers that rest on torch's DataLoader give batches as quickly as they can?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Batch = dict[str, Any]


def collate(samples: Sequence[Mapping[str, Any]], *, joined: bool = True) -> Batch:
    """One value per column: arrays and numbers stacked, bytes `joined` into one tensor with offsets, or as a list.

    From a worker a list would go through a pipe, a tensor goes through shared memory.
    """
    return {name: _column([sample[name] for sample in samples], joined) for name in samples[0]}


def _column(values: list[Any], joined: bool) -> Any:
    first = values[0]
    if isinstance(first, bytes | bytearray | memoryview):
        return joined_bytes(values) if joined else values
    if isinstance(first, torch.Tensor):
        return torch.stack(values)
    if isinstance(first, np.ndarray):
        return torch.from_numpy(np.stack(values))
    return torch.tensor(values)


def joined_bytes(values: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """All bytes after each other, and where each value begins."""
    offsets = [0, *itertools.accumulate(map(len, values))]
    return torch.frombuffer(bytearray().join(values), dtype=torch.uint8), torch.tensor(offsets)


class Epochs:
    """A DataLoader that is iterated epoch after epoch and ends its workers when told."""

    def __init__(self, make: Callable[..., Any], workers: int, **arguments: Any) -> None:
        if workers:
            arguments |= {"persistent_workers": True, "prefetch_factor": 4}
        self.loader = make(num_workers=workers, **arguments)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)

    def close(self) -> None:
        """No worker is left."""
        iterator = getattr(self.loader, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
