"""How do batches come out of a plain DataLoader?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from multiprocessing import current_process
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

import mx8shards.loading.torch_containers  # noqa: F401 - a worker that unpickles a dataset gives batches, too
from mx8shards.dataset import Dataset
from mx8shards.errors import LoaderError, whole_number
from mx8shards.loading.batch import relocated
from mx8shards.loading.planning.machine import worker_share
from mx8shards.loading.planning.settings import Settings
from mx8shards.loading.ragged import copied
from mx8shards.loading.shared_epoch import SharedEpoch, key_of


class IterableBatches(IterableDataset[Any]):
    """A loader's batches for `DataLoader(loader.as_iterable_dataset(), num_workers=…)`.

    The DataLoader gives the loader's batches in the loader's order, with any number of workers, which take turns. Each
    worker has a loader of its own, with threads and memory, and copies batches out of its banks. Do not give the
    DataLoader `shuffle`, `sampler` or `batch_size`; `batch_size=None` is allowed. It is necessary where the loader's
    `transform` returns something other than a `Batch`, such as a dict or a tensor: a DataLoader would collate that as a
    list of one sample, and add a dimension in front.

    Every iteration is the next epoch, whether workers persist or start anew, by fork or spawn. `set_epoch` reaches all
    of them. With workers, an iteration counts as soon as they begin, because they work ahead, also if it fails: then
    `set_epoch` or `load_state_dict` repeats that epoch. Without workers, the next iteration tries the step that failed
    again, as a Loader does. `len` is the number of batches in a whole epoch.

    torchdata's StatefulDataLoader calls `state_dict` and `load_state_dict`. Within a worker, the state is that of the
    worker, and fits only the same number of workers. With workers, the state that a StatefulDataLoader gives during its
    last batch is the end of that epoch: the iteration that resumes there is empty, and the one after it is the next
    epoch. The process that started the workers does not know which batches it took from them: there `state_dict` is an
    error.
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
        self._state = dict(state)  # what a loader of this process begins with
        self._shared = SharedEpoch(state["epoch"], state["position"])
        self._owner = os.getpid()  # the process whose workers share the count
        self._loader: Any = None
        self._opened_by = (0, 0, 1)  # process, worker and number of workers that opened this loader
        self._seen = 0  # without workers: the upcoming iteration that this loader was last moved to
        self._loaded: tuple[int, int] | None = None  # epoch and position that a worker was told to go on at
        self._epoch = state["epoch"]  # that a worker is in

    def __len__(self) -> int:
        """How many batches a whole epoch has."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration this epoch, from its beginning, in all workers. Call it before `iter(DataLoader)`.

        Args:
            epoch: Its number, from 0. If it comes next anyway, its position stays: a resumed epoch is continued.
        """
        epoch = whole_number("epoch", epoch, 0)
        self._here()
        if self._shared.upcoming()[0] != epoch:
            self._shared.begin(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins; in a worker, the next batch of this worker.

        It is a LoaderError in a process whose workers gave the last batches, until `set_epoch` or `load_state_dict`.
        """
        self._here()
        if get_worker_info() is None:
            if self._shared.workers_began_last:
                raise LoaderError(
                    "workers of a DataLoader gave the last batches, and only it knows how many of them were taken",
                    subject="state_dict",
                    hint="take torchdata's StatefulDataLoader, or the Loader itself, or keep whole epochs by set_epoch",
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
            state: The state of a Loader or of an iterable dataset. The state of a worker fits only the worker of the
                same number among equally many.
        """
        whose = None
        if isinstance(state, Mapping):  # the loader says what is wrong with anything else
            state = dict(state)
            whose = state.pop("worker", None)
        loader = self._opened()
        _, worker, workers = self._opened_by
        in_worker = get_worker_info() is not None
        if whose is not None and whose != [worker, workers]:
            raise LoaderError(
                subject="state",
                place="$.worker",
                expected=f"that of worker {worker} of {workers}" if in_worker else "that of a process without workers",
                found=f"{whose!r} (number and count)",
                hint="take as many workers as there were, or a state of the Loader itself",
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
        row, key, group = 1 + worker.id, key_of(worker.seed - worker.id, worker.num_workers), _first_process(worker.id)
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
        """The batches of an epoch. It counts once it gave one, and goes on where it failed."""
        loader = (
            self._opened()
        )  # with the first batch: a DataLoader makes its iterator before, and then may `set_epoch`
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
        """The next iteration begins where this loader's does."""
        self._shared.begin(*loader._progress.upcoming)
        self._seen = self._shared.upcoming_iteration

    def _first(self, loader: Any, position: int) -> int:
        """Where this worker's first step begins, if that of the first worker begins here."""
        steps = loader._steps
        first: int = min(position + self._opened_by[1] * steps.size, steps.length)
        return first

    def _opened(self) -> Any:
        """The loader of this process, which stands where the shared count says."""
        here = self._here()
        if self._loader is None or self._opened_by != here:  # one that was opened before a fork is another process's
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
        """This process, as `_opened_by` has it. One that is no worker does not share its count with its parent."""
        if get_worker_info() is None and self._owner != os.getpid():
            self._owner, self._shared = os.getpid(), self._shared.copy()
        return os.getpid(), *worker_share()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None}  # threads and memory stay behind


def _first_process(worker: int) -> int:
    """The number of the first worker's process: a DataLoader starts all workers of an iteration one after the other."""
    numbers: tuple[int, ...] = getattr(current_process(), "_identity", ())
    return max(0, numbers[-1] - worker) if numbers else 0


def _what_next_in_worker(epoch: int) -> str | None:
    """What comes after a step of a worker failed; None where this process is not a worker."""
    if get_worker_info() is None:
        return None
    again = f"set_epoch({epoch}) of the iterable dataset begins this one again"
    return f"the DataLoader's next iteration is the next epoch, {again}, load_state_dict(…) goes on within it"
