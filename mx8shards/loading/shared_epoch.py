"""Which epoch do the workers of a DataLoader give next?

A DataLoader starts its workers anew in every epoch, or keeps them, and tells the dataset nothing of it: neither in the
parent nor in the workers is there a call that means "this is the next epoch". So the processes count together, in
memory that they share. Each writes one integer of its own into it and no lock is needed; a worker may be killed at any
time.
"""

from __future__ import annotations

from typing import Any

import torch

from mx8shards.errors import LoaderError

_MOST_SLOTS = 1024
_REMEMBERED = 4  # iterations of a slot
_BEGINS = 16  # so many of the last settings are kept, for a worker that starts late
_EPOCH_BITS, _KEY_BITS = 27, 16
_MOST_EPOCHS, _MOST_SETTINGS = 1 << _EPOCH_BITS, 1 << 20
_KEYS = (1 << _KEY_BITS) - 1


class SharedEpoch:
    """The epochs that all processes with a copy of one iterable dataset have begun.

    An iteration has a number: how often the epoch was set, then the epoch. A slot has the numbers of the last
    iterations that a process of this place began (slot 0 is the process without workers), each with the key of the
    DataLoader iteration that it was for. An equal key in another slot, with a number newer than all that this process
    was in, means that this iteration has begun there already.
    """

    def __init__(self, epoch: int, position: int) -> None:
        self._slots = _shared(torch.zeros(_MOST_SLOTS, _REMEMBERED, dtype=torch.int64))
        self._settings = _shared(torch.zeros(1 + 2 * _BEGINS, dtype=torch.int64))
        self.begin(epoch, position)

    def begin(self, epoch: int, position: int) -> None:
        """Set where the next iteration begins, for all processes."""
        if epoch >= _MOST_EPOCHS - 1:
            raise LoaderError(subject="epoch", expected=f"less than {_MOST_EPOCHS - 1}", found=str(epoch))
        settings = self._settings.numpy()
        version = int(settings[0]) + 1
        if version == _MOST_SETTINGS:
            raise LoaderError("the epoch was set a million times: call as_iterable_dataset() again")
        at = 1 + 2 * (version % _BEGINS)
        settings[at : at + 2] = epoch, position
        settings[0] = version  # last: whoever sees it finds the rest

    @property
    def stamp(self) -> int:
        """The number of the iteration that comes next."""
        return self._next(self._slots.tolist())

    def upcoming(self) -> tuple[int, int]:
        """Epoch and position at which the next iteration begins."""
        return self._place(self.stamp)

    def start(self, slot: int, key: int) -> tuple[int, int]:
        """Begin the next iteration in the process of this slot. Epoch and position at which it begins."""
        slots = self._read(slot)  # once: what others write meanwhile must not count, or two would get different numbers
        number = max(_begun_elsewhere(slots, slot, key), default=None)
        number = self._next(slots) if number is None else number
        self._write(slot, number, key)
        return self._place(number)

    def start_at(self, slot: int, key: int, epoch: int) -> None:
        """Begin an iteration of this epoch, as a state says that was loaded in the process of this slot."""
        slots = self._read(slot)
        begun = [number for number in _begun_elsewhere(slots, slot, key) if number % _MOST_EPOCHS == epoch]
        if not begun and self._next(slots) % _MOST_EPOCHS != epoch:
            self.begin(epoch, 0)
        self._write(slot, max(begun) if begun else self._next(slots), key)

    def copy(self) -> SharedEpoch:
        """A count of its own that begins where this one stands."""
        return SharedEpoch(*self.upcoming())

    def _next(self, slots: list[list[int]]) -> int:
        version = int(self._settings[0])
        last = max(map(max, slots)) >> _KEY_BITS
        if last >> _EPOCH_BITS == version:
            return last + 1
        return version << _EPOCH_BITS | int(self._settings[1 + 2 * (version % _BEGINS)])

    def _read(self, slot: int) -> list[list[int]]:
        """All slots, if there is this one among them."""
        if slot >= _MOST_SLOTS:
            raise LoaderError(subject="num_workers", expected=f"at most {_MOST_SLOTS - 1}", found=f"at least {slot}")
        slots: list[list[int]] = self._slots.tolist()
        return slots

    def _write(self, slot: int, number: int, key: int) -> None:
        """Put this in the place of the oldest iteration of a slot. One integer is written at once."""
        row = self._slots[slot]
        row[int(row.argmin())] = number << _KEY_BITS | key

    def _place(self, number: int) -> tuple[int, int]:
        version, epoch = divmod(number, _MOST_EPOCHS)
        at = 1 + 2 * (version % _BEGINS)
        began, position = self._settings[at : at + 2].tolist()
        return epoch, position if epoch == began else 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._slots, self._settings = _shared(self._slots), _shared(self._settings)


def _begun_elsewhere(slots: list[list[int]], slot: int, key: int) -> list[int]:
    """The numbers of iterations for this key that others have begun, and this process has not."""
    mine = slots[slot]
    old = max([min(mine), *(each for each in mine if each & _KEYS == key)]) >> _KEY_BITS
    return [each >> _KEY_BITS for row in slots for each in row if each & _KEYS == key and each >> _KEY_BITS > old]


def _shared(numbers: torch.Tensor) -> torch.Tensor:
    """The same tensor in shared memory: a plain pickle and copy.deepcopy give one that is not."""
    if not numbers.is_shared():  # type: ignore[no-untyped-call]
        numbers.share_memory_()  # type: ignore[no-untyped-call]
    return numbers


def key_of(seed: int, workers: int) -> int:
    """The key of a DataLoader iteration with this base seed and so many workers; 0 is that of no workers."""
    return 1 + (seed * _MOST_SLOTS + workers) % _KEYS
