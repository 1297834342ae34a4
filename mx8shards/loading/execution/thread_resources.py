"""When are the per-thread resources of stages opened and closed? Closed once, with the thread or the stage."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from threading import RLock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

from mx8shards.stages import Stage


class ThreadResources:
    """The resources of a pool's threads, for each stage. They keep no stage or loader alive."""

    def __init__(self) -> None:
        self._lock = RLock()  # reentrant: a garbage collection may end a stage while it is held
        self._of: WeakKeyDictionary[Stage, dict[int, Resource]] = WeakKeyDictionary()

    def of(self, stage: Stage) -> Resource:
        """This thread's resource for a stage, opened on first use; for a `with` statement."""
        with self._lock:
            mine = self._of.setdefault(stage, {})
            found = mine.get(get_ident())
        if found is None:
            found = mine[get_ident()] = Resource(stage.open_thread())
            weakref.finalize(stage, found.close).atexit = False
        return found

    def end_stages(self, stages: Iterable[Stage]) -> None:
        """Close the resources of all threads for these stages."""
        for stage in stages:
            with self._lock:
                ended = self._of.pop(stage, {})
            for resource in list(ended.values()):
                resource.close()

    def end_thread(self) -> None:
        """Close the resources of this thread."""
        with self._lock:
            ended = [mine.pop(get_ident(), None) for mine in list(self._of.values())]
        for resource in ended:
            if resource is not None:
                resource.close()


class Resource:
    """The resource of one thread for one stage. If `close` is called while it is in use, it is closed after that."""

    def __init__(self, value: Any) -> None:
        self._process = os.getpid()
        self._lock = RLock()
        self._value = value
        self._in_use = False
        self._ended = False

    def __enter__(self) -> Any:
        with self._lock:
            self._in_use = True
        return self._value

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._in_use = False
            if self._ended:
                self._close()

    def close(self) -> None:
        """Close it once. Has no effect in a forked child, where the lock may be held by a thread of the parent."""
        if self._process != os.getpid():
            return
        with self._lock:
            if not self._ended:
                self._ended = True
                if not self._in_use:
                    self._close()

    def _close(self) -> None:
        value, self._value = self._value, None
        close = getattr(value, "close", None)
        if close is not None:
            close()
