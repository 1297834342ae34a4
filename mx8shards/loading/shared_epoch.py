"""Which epoch do the workers of a DataLoader yield next?

A DataLoader starts its workers anew in every epoch, or keeps them. In both cases it does not tell the dataset, neither
in the parent nor in the workers, that the next epoch begins. So the processes count iterations in shared memory. Each
process writes into its own row, so counting needs no lock, and a worker may be killed at any time. Setting the epoch
writes into a table that all share: the parent does that before it starts workers, and a worker that loaded a state does
it before its first batch.
"""

from __future__ import annotations

import os
from multiprocessing import current_process
from typing import Any

import torch

from mx8shards.errors import LoaderError

_MAX_ROWS = 1024
_REMEMBERED = 4  # iterations in a row
_REMEMBERED_STARTS = 16  # a worker that starts late still finds where its iteration began
_EPOCH_BITS, _KEY_BITS, _GROUP_BITS = 27, 16, 32
_MAX_EPOCHS, _MAX_STARTS = 1 << _EPOCH_BITS, 1 << 20
_KEYS, _GROUPS = (1 << _KEY_BITS) - 1, (1 << _GROUP_BITS) - 1


class SharedEpoch:
    """The epochs that all processes with a copy of one iterable dataset have begun.

    An iteration is one integer: its high bits count how often the epoch was set, its low bits are the epoch. So a newer
    iteration has a larger number. Row 0 belongs to the process without workers, row 1 + i to worker i. A row holds the
    last iterations that its processes began, each with the key of its DataLoader iteration; `_writers` holds the
    process that wrote each entry.

    A worker joins the newest iteration that another row has begun under the same key and its own row has not. If there
    is none, it begins the next iteration. Keys repeat if training code calls `torch.manual_seed` before every epoch, so
    entries of dead processes from another group of workers do not count. Otherwise, if a worker was terminated before
    it began an iteration, the worker started in its place would join that old iteration.
    """

    def __init__(self, epoch: int, position: int) -> None:
        self._begun = shared(torch.zeros(_MAX_ROWS, _REMEMBERED, dtype=torch.int64))
        self._writers = shared(torch.zeros(_MAX_ROWS, _REMEMBERED, dtype=torch.int64))
        self._starts = shared(torch.zeros(1 + 2 * _REMEMBERED_STARTS, dtype=torch.int64))
        self.begin(epoch, position)

    def begin(self, epoch: int, position: int) -> None:
        """Set where the next iteration begins, for all processes."""
        if epoch >= _MAX_EPOCHS - 1:
            raise LoaderError(subject="epoch", expected=f"less than {_MAX_EPOCHS - 1}", found=str(epoch))
        starts = self._starts.numpy()
        count = int(starts[0]) + 1
        if count == _MAX_STARTS:
            raise LoaderError("the epoch was set a million times: call as_iterable_dataset() again")
        at = 1 + 2 * (count % _REMEMBERED_STARTS)
        starts[at : at + 2] = epoch, position
        starts[0] = count  # last: a reader of this count finds the epoch and the position

    @property
    def upcoming_iteration(self) -> int:
        """The number of the iteration that comes next."""
        return self._next(self._begun.tolist())

    def upcoming(self) -> tuple[int, int]:
        """Epoch and position at which the next iteration begins."""
        return self._where(self.upcoming_iteration)

    @property
    def workers_began_last(self) -> bool:
        """Whether workers began the last iteration, and the epoch was not set since."""
        begun = self._begun.tolist()
        last = max(map(max, begun))
        return last >> _KEY_BITS >> _EPOCH_BITS == int(self._starts[0]) and last >> _KEY_BITS not in [
            entry >> _KEY_BITS for entry in begun[0]
        ]

    def start(self, row: int, key: int, group: int = 0) -> tuple[int, int]:
        """Begin the next iteration in the process of this row. Epoch and position at which it begins.

        group  a number that all workers started for one DataLoader iteration share, and no others
        """
        begun = self._read(row)  # once: with later writes of others, two workers could get different iterations
        iteration = max(self._begun_elsewhere(begun, row, key, group), default=None)
        iteration = self._next(begun) if iteration is None else iteration
        self._write(row, iteration, key, group)
        return self._where(iteration)

    def start_at(self, row: int, key: int, epoch: int, group: int = 0) -> None:
        """Begin an iteration of this epoch in the process of this row."""
        begun = self._read(row)
        same = [found for found in self._begun_elsewhere(begun, row, key, group) if found % _MAX_EPOCHS == epoch]
        if not same and self._next(begun) % _MAX_EPOCHS != epoch:
            self.begin(epoch, 0)
        self._write(row, max(same) if same else self._next(begun), key, group)

    def copy(self) -> SharedEpoch:
        """An independent copy, which begins at the upcoming position of this one."""
        return SharedEpoch(*self.upcoming())

    def _next(self, begun: list[list[int]]) -> int:
        count = int(self._starts[0])
        last = max(map(max, begun)) >> _KEY_BITS
        if last >> _EPOCH_BITS == count:
            return last + 1
        return count << _EPOCH_BITS | int(self._starts[1 + 2 * (count % _REMEMBERED_STARTS)])

    def _read(self, row: int) -> list[list[int]]:
        """All rows. LoaderError if there is no row of this number."""
        if row >= _MAX_ROWS:
            raise LoaderError(subject="num_workers", expected=f"at most {_MAX_ROWS - 1}", found=f"at least {row}")
        begun: list[list[int]] = self._begun.tolist()
        return begun

    def _begun_elsewhere(self, begun: list[list[int]], row: int, key: int, group: int) -> list[int]:
        """The iterations under this key that other rows have begun and this row has not."""
        mine = begun[row]
        old = max([min(mine), *(entry for entry in mine if entry & _KEYS == key)]) >> _KEY_BITS
        return [
            entry >> _KEY_BITS
            for other, entries in enumerate(begun)
            for at, entry in enumerate(entries)
            if entry & _KEYS == key and entry >> _KEY_BITS > old and self._counts(int(self._writers[other, at]), group)
        ]

    @staticmethod
    def _counts(writer: int, group: int) -> bool:
        """Whether an entry of this process counts for this group: dead processes of other groups do not."""
        return writer & _GROUPS == group or _is_alive(writer >> _GROUP_BITS)

    def _write(self, row: int, iteration: int, key: int, group: int) -> None:
        """Replace the oldest entry of a row. Its writer is stored first, so that readers of the entry find it."""
        at = int(self._begun[row].argmin())
        self._begun[row, at] = 0
        self._writers[row, at] = os.getpid() << _GROUP_BITS | group
        self._begun[row, at] = iteration << _KEY_BITS | key

    def _where(self, iteration: int) -> tuple[int, int]:
        """Epoch and position at which an iteration begins: a position only in the epoch that was set."""
        count, epoch = divmod(iteration, _MAX_EPOCHS)
        at = 1 + 2 * (count % _REMEMBERED_STARTS)
        began, position = self._starts[at : at + 2].tolist()
        return epoch, position if epoch == began else 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begun, self._writers, self._starts = map(shared, (self._begun, self._writers, self._starts))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def shared(numbers: torch.Tensor) -> torch.Tensor:
    """The same tensor in shared memory: pickle and copy.deepcopy give a private one."""
    if not numbers.is_shared():  # type: ignore[no-untyped-call]
        numbers.share_memory_()  # type: ignore[no-untyped-call]
    return numbers


def first_process(worker: int) -> int:
    """The process number of worker 0: a DataLoader starts all workers of an iteration one after the other."""
    numbers: tuple[int, ...] = getattr(current_process(), "_identity", ())
    return max(0, numbers[-1] - worker) if numbers else 0


def key_of(seed: int, workers: int) -> int:
    """The key of a DataLoader iteration with this base seed and this many workers; 0 is the key without workers."""
    return 1 + (seed * _MAX_ROWS + workers) % _KEYS
