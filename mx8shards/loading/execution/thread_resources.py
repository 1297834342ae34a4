"""When are the resources that each thread has for a stage made and closed? Once: with the first to end of the two."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from threading import RLock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

from mx8shards.stages import Stage


class ThreadResources:
    """What the threads of a pool have for stages. Neither a stage nor its loader is kept alive by that."""

    def __init__(self) -> None:
        self._lock = RLock()  # a garbage collection may end a stage at any place
        self._of: WeakKeyDictionary[Stage, dict[int, Resource]] = WeakKeyDictionary()

    def of(self, stage: Stage) -> Resource:
        """What this thread has for a stage; use it in a `with` statement."""
        with self._lock:
            mine = self._of.setdefault(stage, {})
            found = mine.get(get_ident())
        if found is None:
            found = mine[get_ident()] = Resource(stage.open_thread())
            weakref.finalize(stage, found.close).atexit = False
        return found

    def end_stages(self, stages: Iterable[Stage]) -> None:
        """Close what all threads have for these stages."""
        for stage in stages:
            with self._lock:
                ended = self._of.pop(stage, {})
            for resource in list(ended.values()):
                resource.close()

    def end_thread(self) -> None:
        """Close what this thread has for any stage."""
        with self._lock:
            ended = [mine.pop(get_ident(), None) for mine in list(self._of.values())]
        for resource in ended:
            if resource is not None:
                resource.close()


class Resource:
    """What one thread needs for one stage. One that is closed while it is used is closed at the end of that use."""

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
        """Close it, once; in a forked child never, where a thread of the parent may hold the lock for ever."""
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
