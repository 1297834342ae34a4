"""How is the order of the next epoch computed while this one runs, so that there is no pause between them?"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from threading import get_ident
from typing import IO, Any

from torch.utils.data import get_worker_info

from mx8shards.loading.execution.threads import start_thread
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
        self._sent: IO[bytes] | None = None  # a nameless file in memory: the pickled plan, for spawned workers

    def share(self, key: Hashable, make: Make) -> None:
        """Have this plan ready for the workers that are forked after this.

        Args:
            key: Everything that the plan depends on.
            make: A function that makes it.
        """
        if self.shared(key) is None:
            if self._sent is not None:
                self._sent.close()
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
        try:
            if self._sent is None:  # not through the pipe, which a worker reads only when it has imported torch
                self._sent = _file_in_memory(pickle.dumps(self._shared))
                weakref.finalize(self, self._sent.close)
            return _of_worker, (DupFd(self._sent.fileno()),)
        except OSError:  # no memory or descriptor is left: the worker plans for itself
            return PlanAhead, ()


def _file_in_memory(data: bytes) -> IO[bytes]:
    """A file without a name, which takes no place of /dev/shm. OSError where there are none (macOS)."""
    if not hasattr(os, "memfd_create"):
        raise OSError("no files in memory")
    file = os.fdopen(os.memfd_create("mx8shards-plan"), "wb")
    try:
        file.write(data)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


def _of_worker(sent: Any) -> PlanAhead:
    found, descriptor = PlanAhead(), sent.detach()
    with os.fdopen(descriptor, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        found._shared = pickle.loads(data)  # noqa: S301 - from the parent process
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
        self._given_up = False

    def run(self) -> None:
        """Make the plan."""
        self._thread = get_ident()
        try:
            if self._given_up:
                raise SystemExit
            self.made.set_result(self._make())
        except BaseException as error:  # noqa: BLE001 - the iteration that needs the plan makes it again, and raises this
            with suppress(InvalidStateError):  # it was made right before it was given up
                self.made.set_exception(error)
        finally:
            self._thread = None  # its number may soon be another thread's

    def stop(self) -> None:
        """Raise SystemExit in the thread, at its next step in Python: none of NumPy's steps takes more than seconds."""
        self._given_up = True
        thread = self._thread
        if thread is not None and not self.made.done():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SystemExit))
