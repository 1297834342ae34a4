"""What is the batch size of the DataLoader that reads this dataset? Needed if the dataset was made without one."""

from __future__ import annotations

import sys
from types import FrameType

from torch.utils.data._utils.fetch import _IterableDatasetFetcher


def batch_size_of_dataloader() -> int | None:
    """The batch size of the DataLoader that asks for the next sample right now; None if none does.

    A DataLoader does not tell an iterable dataset its batch size, neither in this process nor in a worker. But its
    fetcher, which calls the dataset's iterator, has a list with an item for each sample of the batch.
    """
    code = _IterableDatasetFetcher.fetch.__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is code:
            batch = frame.f_locals.get("possibly_batched_index")
            return len(batch) if isinstance(batch, list) and batch else 1
        frame = frame.f_back
    return None
