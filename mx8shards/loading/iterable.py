"""How do batches come out of a plain DataLoader?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from torch.utils.data import IterableDataset

from mx8shards.dataset import Dataset
from mx8shards.loading.batch import Batch, changed, copied
from mx8shards.loading.loader import Loader
from mx8shards.loading.machine import worker_share
from mx8shards.loading.settings import Settings


class IterableBatches(IterableDataset[dict[str, Any]]):
    """For `DataLoader(loader.as_iterable_dataset(), batch_size=None, num_workers=…)`.

    Each worker is a rank of its own within the loader's rank, with threads and memory of its own; batches are copied
    out of the banks. Workers begin at the epoch and position that were last set here, so call `set_epoch` before each
    epoch unless they persist. The state is the worker's, for loaders that keep one for each. A batch is a dict of its
    columns, and of `sample_ids` and `padding`.
    """

    def __init__(
        self, dataset: Dataset, settings: Settings, rank: int, world_size: int, state: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._dataset = dataset
        self._settings = settings
        self._rank = rank
        self._world_size = world_size
        self._epoch: int | None = None
        self._state: Mapping[str, Any] | None = state
        self._wanted = True  # whether the loader has yet to be told of these
        self._loader: Loader | None = None
        self._worker = (0, 0, 1)  # whose the loader is: process, number, and how many there are

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, from its beginning."""
        self._epoch, self._state, self._wanted = epoch, None, True

    def state_dict(self) -> dict[str, Any]:
        """Where this worker stands."""
        return self._opened().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there with the next iteration."""
        self._epoch, self._state, self._wanted = None, dict(state), True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._opened():
            own = changed(batch, copied)
            yield {**own, "sample_ids": own.sample_ids, "padding": own.padding} if isinstance(own, Batch) else own

    def _opened(self) -> Loader:
        worker, workers = worker_share()
        here = (os.getpid(), worker, workers)
        if self._loader is None or self._worker != here:  # one that was opened before a fork is somebody else's
            self._worker, self._wanted = here, True
            settings = {field.name: getattr(self._settings, field.name) for field in fields(Settings)}
            rank, world_size = self._rank * workers + worker, self._world_size * workers
            self._loader = Loader(self._dataset, rank=rank, world_size=world_size, **settings)
        if self._wanted:
            if self._state is not None:
                self._loader.load_state_dict(self._state)
            elif self._epoch is not None:
                self._loader.set_epoch(self._epoch)
            self._wanted = False
        return self._loader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None}  # threads and memory stay behind
