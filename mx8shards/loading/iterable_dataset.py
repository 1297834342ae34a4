"""How does a torch DataLoader yield a loader's batches? The dataset that `Loader.as_iterable_dataset` returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

import mx8shards.loading.torch_containers  # noqa: F401 - a worker that unpickles a dataset needs it, too
from mx8shards.dataset import Dataset
from mx8shards.errors import LoaderError, whole_number
from mx8shards.loading.batch import relocated
from mx8shards.loading.planning.machine import worker_share
from mx8shards.loading.planning.settings import Settings
from mx8shards.loading.ragged import copied
from mx8shards.loading.shared_epoch import SharedEpoch, first_process, key_of


class IterableBatches(IterableDataset[Any]):
    """A loader's batches for `DataLoader(loader.as_iterable_dataset(), num_workers=…)`.

    The DataLoader yields the loader's batches in the loader's order, with any number of workers, which take turns. Each
    worker has its own loader, with threads and memory, and copies batches out of its banks. Do not give the DataLoader
    `shuffle`, `sampler` or `batch_size`; `batch_size=None` is allowed. It is necessary if the loader's `transform`
    returns something other than a `Batch`, such as a dict or a tensor: a DataLoader would collate that as a list of one
    sample, and add a dimension in front.

    Every iteration is the next epoch, whether workers persist or start anew, by fork or spawn. `set_epoch` reaches all
    of them. With workers, an iteration counts as soon as they begin, because they prefetch. It counts even if it fails:
    then `set_epoch` or `load_state_dict` repeats that epoch. Without workers, the next iteration tries the failed step
    again, as a Loader does. `len` is the number of batches in a whole epoch.

    torchdata's StatefulDataLoader calls `state_dict` and `load_state_dict`. A state taken in a worker fits only the
    same number of workers. The state that a StatefulDataLoader with workers returns during its last batch is the end of
    that epoch: the iteration that resumes there is empty, and the one after it is the next epoch. The process that
    started the workers does not know how many batches were consumed, so `state_dict` raises an error there.
    """

    def __init__(
        self,
        open_in_turns: Callable[..., Any],
        dataset: Dataset,
        settings: Settings,
        rank: int,
        world_size: int,
        length: int,
        state: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self._open = open_in_turns  # a LoaderInTurns, which must not be imported here: Loader imports this module
        self._dataset = dataset
        self._settings = settings
        self._rank = rank
        self._world_size = world_size
        self._length = length
        self._state = dict(state)  # the initial state of a loader in this process
        self._shared = SharedEpoch(state["epoch"], state["position"])
        self._owner = os.getpid()  # the process whose workers share the count
        self._loader: Any = None
        self._opened_by = (0, 0, 1)  # process, worker and number of workers that opened this loader
        self._seen = 0  # without workers: the upcoming iteration that this loader was last moved to
        self._loaded: tuple[int, int] | None = None  # epoch and position at which a worker was told to resume
        self._epoch = state["epoch"]  # of the worker's current iteration

    def __len__(self) -> int:
        """The number of batches in a whole epoch."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration this epoch, from its beginning, in all workers. Call it before `iter(DataLoader)`.

        Args:
            epoch: Its number, from 0. If it comes next anyway, the position stays, so that a resumed epoch continues.
        """
        epoch = whole_number("epoch", epoch, 0)
        self._here()
        if self._shared.upcoming()[0] != epoch:
            self._shared.begin(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """The position of the next batch; in a worker, of this worker's next batch.

        LoaderError in a process whose workers yielded the last batches, until `set_epoch` or `load_state_dict`.
        """
        self._here()
        if get_worker_info() is None:
            if self._shared.workers_began_last:
                raise LoaderError(
                    "workers of a DataLoader gave the last batches, and only the DataLoader knows how many it took",
                    subject="state_dict",
                    hint="use torchdata's StatefulDataLoader or the Loader itself, or repeat an epoch with set_epoch",
                )
            state: dict[str, Any] = self._opened().state_dict()
            return state
        loader = self._opened()
        state = loader.state_dict()
        _, worker, workers = self._opened_by
        if state["epoch"] != self._epoch:  # it has no more steps of this epoch, though other workers may
            state |= {"epoch": self._epoch, "position": loader._steps.length}
        return {**state, "worker": [worker, workers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume with the step after the state. If the data differ, an error says how.

        Args:
            state: The state of a Loader or of an iterable dataset. A worker's state fits only the worker with the same
                number, among the same number of workers.
        """
        whose = None
        if isinstance(state, Mapping):  # the loader reports anything else as an error
            state = dict(state)
            whose = state.pop("worker", None)
        loader = self._opened()
        _, worker, workers = self._opened_by
        in_worker = get_worker_info() is not None
        if whose is not None and whose != [worker, workers]:
            raise LoaderError(
                subject="state",
                place="$.worker",
                expected=f"worker {worker} of {workers}" if in_worker else "the state of a process without workers",
                found=f"{whose!r} (number and count)",
                hint="use the same number of workers, or a state of the Loader itself",
            )
        loader.load_state_dict(state)
        if not in_worker:
            self._count_from(loader)
        elif whose is not None:
            self._loaded = state["epoch"], state["position"]
        else:
            self._loaded = state["epoch"], self._first(loader, state["position"])

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is None:
            return self._counted()
        loader = self._opened()
        row, key, group = 1 + worker.id, key_of(worker.seed - worker.id, worker.num_workers), first_process(worker.id)
        if self._loaded is None:
            epoch, position = self._shared.start(row, key, group)
            position = self._first(loader, position)
        else:
            epoch, position = self._loaded
            self._loaded = None
            self._shared.start_at(row, key, epoch, group)
        self._epoch = epoch
        loader._go_to(epoch, position)
        return (relocated(batch, copied) for batch in loader)

    def _counted(self) -> Iterator[Any]:
        """The batches of an epoch, which counts from its first batch on. After an error, its step is repeated."""
        loader = self._opened()  # not earlier: `set_epoch` may be called after the DataLoader has made its iterator
        epoch, _ = loader._progress.upcoming
        try:
            for number, batch in enumerate(loader):
                if not number:
                    self._shared.start_at(0, 0, epoch)
                    self._seen = self._shared.upcoming_iteration
                yield relocated(batch, copied)
        except LoaderError:
            if self._seen == self._shared.upcoming_iteration:  # else the epoch was set meanwhile
                self._count_from(loader)
            raise

    def _count_from(self, loader: Any) -> None:
        """Begin the next iteration where this loader's next iteration begins."""
        self._shared.begin(*loader._progress.upcoming)
        self._seen = self._shared.upcoming_iteration

    def _first(self, loader: Any, position: int) -> int:
        """Where this worker's first step begins, if the first worker's begins at `position`."""
        steps = loader._steps
        first: int = min(position + self._opened_by[1] * steps.size, steps.length)
        return first

    def _opened(self) -> Any:
        """The loader of this process, moved to the position that the processes share."""
        here = self._here()
        if self._loader is None or self._opened_by != here:  # a loader opened before a fork belongs to another process
            self._opened_by = here
            settings = {field.name: getattr(self._settings, field.name) for field in fields(Settings)}
            settings |= {"rank": self._rank, "world_size": self._world_size}
            self._loader = self._open(here[2], _what_next_in_worker, self._dataset, **settings)
            self._loader.load_state_dict(self._state)
            self._seen = 0
        if get_worker_info() is None and self._seen != self._shared.upcoming_iteration:
            self._loader._go_to(*self._shared.upcoming())
            self._seen = self._shared.upcoming_iteration
        return self._loader

    def _here(self) -> tuple[int, int, int]:
        """This process, as in `_opened_by`. A forked process that is not a worker gets its own copy of the position."""
        if get_worker_info() is None and self._owner != os.getpid():
            self._owner, self._shared = os.getpid(), self._shared.copy()
        return os.getpid(), *worker_share()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None}  # threads and memory stay behind


def _what_next_in_worker(epoch: int) -> str | None:
    """What follows a failed step in a worker, as text for the user; None if this process is not a worker."""
    if get_worker_info() is None:
        return None
    again = f"set_epoch({epoch}) of the iterable dataset repeats this one"
    return f"the DataLoader's next iteration is the next epoch, {again}, load_state_dict(…) resumes within it"
