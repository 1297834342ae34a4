"""How do peers that use torch's DataLoader collate batches as fast as possible?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Batch = dict[str, Any]


def collate(samples: Sequence[Mapping[str, Any]], *, joined: bool = True) -> Batch:
    """One value per column: arrays and numbers stacked, bytes `joined` into one tensor with offsets, or as a list.

    A worker sends a list through a pipe, but a tensor through shared memory.
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
    """The concatenated bytes, and the offset of each value."""
    offsets = [0, *itertools.accumulate(map(len, values))]
    return torch.frombuffer(bytearray().join(values), dtype=torch.uint8), torch.tensor(offsets)


class Epochs:
    """A DataLoader that can be closed, which ends its workers."""

    def __init__(self, make: Callable[..., Any], workers: int, **arguments: Any) -> None:
        if workers:
            arguments |= {"persistent_workers": True, "prefetch_factor": 4}
        self.loader = make(num_workers=workers, **arguments)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)

    def close(self) -> None:
        """End the workers."""
        iterator = getattr(self.loader, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
