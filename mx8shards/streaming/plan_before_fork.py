"""How do workers of a DataLoader share the plan of an epoch? The parent makes it right before the first one starts.

A DataLoader does not tell a dataset that it is about to start workers. But they are forked from within its iterator's
constructor, whose frame has the loader. What a forked process inherits takes no memory until one of them writes to it.
To a spawned process, a plan that is not large is sent with the dataset.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import get_spawning_popen
from multiprocessing.popen_fork import Popen
from types import CodeType, FrameType
from typing import Any

from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

Then = Callable[[], None]
Plan = Callable[[Any, int, int], Then]  # of a dataset, the number of workers and the batch size

# The code of the functions that start the workers, and that fork one.
_START = _MultiProcessingDataLoaderIter.__init__.__code__
_FORK = Popen._launch.__code__  # type: ignore[attr-defined]
_POLL_S = 0.01
_plans: dict[type, Plan] = {}


class _Forking(threading.local):
    """What this thread has to do after it forked the last worker."""

    then: Then | None = None


_forking = _Forking()


def share_plans(kind: type, plan: Plan) -> None:
    """Let the workers that are forked for a dataset of this class share its plan.

    Args:
        kind: The class.
        plan: A function that makes the plan of the next iteration, and returns a function that is called after the last
            fork.
    """
    _plans[kind] = plan


def plan_before_spawn(dataset: Any, plan: Callable[[int, int], object]) -> None:
    """If a DataLoader is about to spawn its first worker, for which it pickles this dataset, make the plan.

    Errors are ignored: the workers raise them again.

    Args:
        dataset: The dataset that is being pickled.
        plan: A function that makes the plan, from the number of workers and the batch size.
    """
    loader, worker = _starting() or (None, 0)
    if loader is not None and loader.dataset is dataset and worker == 0 and get_spawning_popen() is not None:
        with suppress(Exception):
            plan(loader.num_workers, loader.batch_size or 1)


def _starting() -> tuple[Any, int] | None:
    """The DataLoader that starts a worker right now, and the worker's number; None if none does."""
    frame = _caller(sys._getframe(), _START)
    found = {} if frame is None else frame.f_locals
    return (found["loader"], found["i"]) if {"loader", "i"} <= set(found) else None


def _caller(frame: FrameType | None, code: CodeType) -> FrameType | None:
    """The innermost frame with this code among a frame and its callers."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def _before() -> None:
    loader, worker = _starting() or (None, 0)
    if loader is None or worker > 0:
        return
    dataset, _forking.then = loader.dataset, None
    for plan in (plan for kind, plan in _plans.items() if isinstance(dataset, kind)):
        with _errors_dropped():
            _forking.then = plan(dataset, loader.num_workers, loader.batch_size or 1)


@contextmanager
def _errors_dropped() -> Iterator[None]:
    """Drop errors, as workers or the next iteration raise them again, and repeat Ctrl-C after the fork.

    Python would print and drop all exceptions of a fork's hooks.
    """
    try:
        with suppress(Exception):
            yield
    except KeyboardInterrupt:
        threading.Thread(target=_interrupt_again, args=(threading.get_ident(),), daemon=True).start()


def _interrupt_again(thread: int) -> None:
    """Send the signal of Ctrl-C again, once the thread has forked."""
    while _caller(sys._current_frames().get(thread), _FORK) is not None:
        time.sleep(_POLL_S)
    signal.pthread_kill(thread, signal.SIGINT)


def _after() -> None:
    if _forking.then is None:
        return
    loader, worker = _starting() or (None, 0)
    if loader is None or worker + 1 < loader.num_workers:
        return
    then, _forking.then = _forking.then, None
    with _errors_dropped():
        then()


os.register_at_fork(before=_before, after_in_parent=_after)
