"""How is the order of the next epoch computed while this one runs, so that there is no pause between them?"""

from __future__ import annotations

import ctypes
import os
import pickle
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from multiprocessing.context import get_spawning_popen
from threading import get_ident
from typing import Any

import torch
from torch.utils.data import get_worker_info

from mx8shards.loading.execution.threads import start_thread
from mx8shards.loading.shared_epoch import shared as in_shared_memory
from mx8shards.order.mosaicml.epoch_plan import EpochPlan

MOST_SENT = 1 << 22  # samples: a spawned worker reads 16 MB sooner than it makes the order
_LEAST_SAMPLES = 1 << 18  # a smaller epoch's order takes a few milliseconds

Make = Callable[[], EpochPlan]


class PlanAhead:
    """The plan of the next epoch, made in a thread. It belongs to one process; workers may share another one."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._key: Hashable = None
        self._made: Future[EpochPlan] | None = None
        self._is_first = True
        self._shared: tuple[Hashable, EpochPlan] | None = None
        self._sent: torch.Tensor | None = None  # the pickled plan for spawned workers

    def share(self, key: Hashable, make: Make) -> None:
        """Have this plan ready for the workers that are forked after this.

        Args:
            key: Everything that the plan depends on.
            make: A function that makes it.
        """
        if self.shared(key) is None:
            self._shared, self._sent = (key, self.take(key, make)), None

    def shared(self, key: Hashable) -> EpochPlan | None:
        """The plan with this key that the process shares from which this one was forked.

        Args:
            key: Everything that the plan depends on.
        """
        return self._shared[1] if self._shared is not None and self._shared[0] == key else None

    def take(self, key: Hashable, make: Make) -> EpochPlan:
        """The plan with this key: the one made ahead, if it is that, or a new one.

        Args:
            key: Everything that the plan depends on.
            make: A function that makes it.
        """
        made = self._made if self._key == key and self._process == os.getpid() else None
        self._key = self._made = None
        if made is not None and made.exception() is None:
            return made.result()
        return make()

    def begin(self, samples: int, key: Hashable, make: Make) -> None:
        """Begin to make a plan, unless it is quick to make, or this may be the last epoch of this process.

        Args:
            samples: The number of samples of an epoch.
            key: Everything that the plan depends on.
            make: A function that makes it.
        """
        if self._process != os.getpid():
            self._process, self._is_first = os.getpid(), True
        may_be_last = self._is_first and get_worker_info() is not None  # only persistent workers have a second epoch
        self._is_first = False
        if samples < _LEAST_SAMPLES or may_be_last:
            return
        making = _Making(make)
        self._key, self._made = key, making.made
        start_thread(making, "plan-ahead", making.run)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process plans for itself. Only a worker that is being spawned gets the plan that is shared."""
        if get_spawning_popen() is None or self._shared is None or len(self._shared[1]) > MOST_SENT:
            return PlanAhead, ()
        if self._sent is None:  # in shared memory: a worker reads its pipe only when it has imported torch
            self._sent = in_shared_memory(torch.frombuffer(bytearray(pickle.dumps(self._shared)), dtype=torch.uint8))
        return _of_worker, (self._sent,)


def _of_worker(sent: torch.Tensor) -> PlanAhead:
    found = PlanAhead()
    found._shared = pickle.loads(sent.numpy().data)  # noqa: S301 - from the parent process
    return found


class _Making:
    """A plan that a thread makes. At the end of the interpreter, which waits for threads, it is given up.

    Args:
        make: A function that makes it.
    """

    def __init__(self, make: Make) -> None:
        self.made: Future[EpochPlan] = Future()
        self._make = make
        self._thread: int | None = None

    def run(self) -> None:
        """Make the plan."""
        self._thread = get_ident()
        try:
            self.made.set_result(self._make())
        except BaseException as error:  # noqa: BLE001 - the iteration that needs the plan makes it again, and raises this
            with suppress(InvalidStateError):  # it was made right before it was given up
                self.made.set_exception(error)

    def stop(self) -> None:
        """Raise SystemExit in the thread, at its next step in Python: none of NumPy's steps takes more than seconds."""
        if self._thread is not None and not self.made.done():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(SystemExit))
