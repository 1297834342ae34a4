"""Where does the next iteration of a StreamingDataset begin? A count of epochs that its DataLoader workers share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.data import get_worker_info

from mx8shards.errors import SettingError, shown, whole_number
from mx8shards.loading.shared_epoch import SharedEpoch, first_process, key_of, shared

_LOADED, _EPOCH, _SAMPLE, _CANONICAL, _SEED, _INITIAL = range(6)
_NONE = -1
# The least values in a state; a state saved before the first epoch has epoch -1.
_LEAST = {
    "epoch": -1,
    "sample_in_epoch": 0,
    "num_canonical_nodes": 1,
    "shuffle_seed": 0,
}
_MOST = (1 << 63) - 1


class Resumed(NamedTuple):
    """A loaded state: what a resumed run takes over from the run before it."""

    epoch: int
    sample_in_epoch: int
    num_canonical_nodes: int
    shuffle_seed: int
    initial_physical_nodes: int | None


class ResumePoint:
    """The next epoch and the loaded state, in memory that all processes with a copy of one dataset share."""

    def __init__(self) -> None:
        self._epochs = SharedEpoch(0, 0)
        self._state = shared(torch.zeros(6, dtype=torch.int64))
        self._owner = os.getpid()

    @property
    def next_epoch(self) -> int:
        """The epoch of the next iteration, as if no state had been loaded since the last one."""
        self._here()
        upcoming = self._epochs.upcoming()[0]
        loaded = self.loaded()
        return upcoming if loaded is None or upcoming > loaded.epoch else int(self._state[_LOADED]) - 1

    def begin(self, epoch: int) -> None:
        """Let the next iteration be this epoch, from its beginning."""
        self._here()
        self._epochs.begin(epoch, 0)
        self._state[_LOADED] = 0

    def load(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration resume from a state, unless it is of an earlier epoch than the next one."""
        now, found = self.next_epoch, _checked(state)
        initial = _NONE if found.initial_physical_nodes is None else found.initial_physical_nodes
        self._state[:] = torch.tensor([now + 1, *found._replace(initial_physical_nodes=initial)])
        if found.epoch >= now:
            self._epochs.begin(found.epoch, found.sample_in_epoch)

    def loaded(self) -> Resumed | None:
        """The state that was loaded last."""
        loaded, *numbers = self._state.tolist()
        if not loaded:
            return None
        found = Resumed(*numbers)
        return found._replace(initial_physical_nodes=None) if found.initial_physical_nodes == _NONE else found

    def upcoming(self) -> tuple[int, Resumed | None]:
        """The epoch of the next iteration, and the state that it resumes from, if it does."""
        self._here()
        epoch, _ = self._epochs.upcoming()
        return epoch, self._resumed_in(epoch)

    def _resumed_in(self, epoch: int) -> Resumed | None:
        """The state that an iteration of this epoch resumes from: the last one loaded, if it is of this epoch."""
        loaded = self.loaded()
        return loaded if loaded is not None and loaded.epoch == epoch else None

    def start(self) -> tuple[int, Resumed | None]:
        """Begin an iteration in this process: its epoch, and the state that it resumes from, if it does.

        All workers of one DataLoader iteration get the same epoch.
        """
        self._here()
        worker = get_worker_info()
        if worker is None:
            epoch, _ = self._epochs.start(0, 0)
        else:
            key = key_of(worker.seed - worker.id, worker.num_workers)
            epoch, _ = self._epochs.start(1 + worker.id, key, first_process(worker.id))
        return epoch, self._resumed_in(epoch)

    def _here(self) -> None:
        """A forked process that is not a worker gets its own copy."""
        if get_worker_info() is None and self._owner != os.getpid():
            self._owner, self._epochs = os.getpid(), self._epochs.copy()
            self._state = shared(self._state.clone())

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._state = shared(self._state)


def _checked(state: Any) -> Resumed:
    """The numbers of a state; SettingError if it is not one of a StreamingDataset."""
    if not isinstance(state, Mapping) or not set(_LEAST) <= set(state):
        found = shown(sorted(state, key=str) if isinstance(state, Mapping) else state)
        hint = "what state_dict() of a StreamingDataset or StreamingDataLoader returned"
        raise SettingError(subject="state", expected=f"a dict with {', '.join(_LEAST)}", found=found, hint=hint)
    epoch, sample, nodes, seed = (whole_number(name, state[name], least, _MOST) for name, least in _LEAST.items())
    initial = state.get("initial_physical_nodes")
    if initial is not None:
        initial = whole_number("initial_physical_nodes", initial, 1, _MOST)
    return Resumed(epoch, sample, nodes, seed, initial)
