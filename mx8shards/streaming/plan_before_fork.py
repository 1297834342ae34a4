"""How do forked workers of a DataLoader share the plan of an epoch? The parent makes it right before the first fork.

A DataLoader does not tell a dataset that it is about to start workers. But they are forked from within its iterator's
constructor, whose frame has the loader. What a forked process inherits takes no memory until one of them writes to it.
"""

from __future__ import annotations

import os
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

Then = Callable[[], None]
Plan = Callable[[Any, int, int], Then]  # of a dataset, the number of workers and the batch size

_CODE = _MultiProcessingDataLoaderIter.__init__.__code__
_INTERRUPT_AFTER_S = 0.1
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


def _starting() -> tuple[Any, int] | None:
    """The DataLoader that forks a worker right now, and the worker's number; None if none does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CODE:
            return frame.f_locals["loader"], frame.f_locals["i"]
        frame = frame.f_back
    return None


def _before() -> None:
    loader, worker = _starting() or (None, 0)
    if loader is None or worker > 0:
        return
    dataset, _forking.then = loader.dataset, None
    for plan in (plan for kind, plan in _plans.items() if isinstance(dataset, kind)):
        try:
            with suppress(Exception):  # the workers raise it
                _forking.then = plan(dataset, loader.num_workers, loader.batch_size or 1)
        except KeyboardInterrupt:  # an exception of this function would be ignored
            threading.Timer(_INTERRUPT_AFTER_S, interrupt_main).start()


def _after() -> None:
    if _forking.then is None:
        return
    loader, worker = _starting() or (None, 0)
    if loader is None or worker + 1 < loader.num_workers:
        return
    then, _forking.then = _forking.then, None
    with suppress(Exception):  # without it, the next iteration plans by itself
        then()


os.register_at_fork(before=_before, after_in_parent=_after)
