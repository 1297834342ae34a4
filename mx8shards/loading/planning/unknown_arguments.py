"""What should a caller give a Loader instead of an argument that it does not have, such as one of a DataLoader?"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

from mx8shards.errors import SettingError

_P = ParamSpec("_P")

_THREADS = "threads prepare the batches, threads=… says how many"
_VIEW = "order=…, or a view: dataset.select(positions)"
_OF_DATALOADER = {
    "batch_sampler": _VIEW,
    "collate_fn": "the loader stacks rows itself; transform=… takes a function of a whole batch",
    "drop_last": 'uneven="drop" leaves out the last part of a step',
    "generator": "seed=… determines the order",
    "in_order": "batches always come in order",
    "multiprocessing_context": _THREADS,
    "num_workers": _THREADS,
    "persistent_workers": _THREADS,
    "pin_memory": 'device="cuda" gives batches on the GPU, batch.pin_memory() pins one',
    "pin_memory_device": "device=… says where batches go",
    "prefetch_factor": "memory=… says how much may be prepared ahead",
    "sampler": _VIEW,
    "timeout": "read_timeout_s=… is the time that the file system may fail to answer",
    "worker_init_fn": _THREADS,
}


class UnknownArgumentError(SettingError, TypeError):
    """A Loader has no argument of this name. It is also the TypeError that Python raises for such a call."""


def refused(init: Callable[_P, None]) -> Callable[_P, None]:
    """Let a Loader's `__init__` refuse an argument that it does not have, with what to use instead.

    Args:
        init: The function.
    """
    known = [name for name in inspect.signature(init).parameters if name != "self"]

    @wraps(init)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> None:
        for name in kwargs:
            if name not in known:
                raise UnknownArgumentError(f"there is no argument {name}", subject="Loader", hint=_hint(name, known))
        init(*args, **kwargs)

    return checked


def _hint(name: str, known: Sequence[str]) -> str:
    alike = difflib.get_close_matches(name, known, 1)
    return _OF_DATALOADER.get(name) or (f"did you mean {alike[0]}?" if alike else f"there are {', '.join(known)}")
