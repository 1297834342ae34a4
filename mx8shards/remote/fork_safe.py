"""How does a forked process, such as a DataLoader worker, use an object store? It asks a helper process.

The client of an object store has threads, which do not exist in a forked process; there it would wait for ever.
"""

from __future__ import annotations

import os
import pickle
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mx8shards.disk import operations
from mx8shards.remote import store_process
from mx8shards.remote.store import Fetched, Listed, Span, Store
from mx8shards.remote.store_process import HelperEndedError


class ForkSafe:
    """A Store that also works in a process forked from the one that made it: there a helper process does the work.

    Args:
        store: The store. In the process that made it, it is asked directly.

    Attributes:
        client_is_dead: Whether this process was forked from one that had loaded obstore, which has threads.
    """

    client_is_dead: ClassVar[bool] = False

    def __init__(self, store: Store) -> None:
        self._store = store
        self._owner = -1 if self.client_is_dead else os.getpid()
        self._pickled = b""
        _made.add(self)

    def __reduce__(self) -> tuple[Callable[[Store], ForkSafe], tuple[Store]]:
        return ForkSafe, (self._store,)

    def __repr__(self) -> str:
        return repr(self._store)

    @property
    def url(self) -> str:
        """The URL of the prefix."""
        return self._store.url

    @property
    def address(self) -> str:
        """The URL and the endpoint."""
        return self._store.address

    @property
    def can_put_conditionally(self) -> bool:
        """Whether `put` honours `if_match`."""
        return bool(self._answer("can_put_conditionally"))

    def read(self, key: str, most: int) -> Fetched:
        """A whole object of at most `most` bytes."""
        found: Fetched = self._answer("read", key, most)
        return found

    def read_spans(self, key: str, spans: Sequence[Span], etag: str | None) -> list[bytes]:
        """Parts of an object."""
        found: list[bytes] = self._answer("read_spans", key, list(spans), etag)
        return found

    def head(self, key: str) -> Listed | None:
        """Size and ETag of an object."""
        found: Listed | None = self._answer("head", key)
        return found

    def fetch(self, key: str, target: Path, size_bytes: int, *, in_ranges: bool = False, algorithm: str = "") -> str:
        """Write a whole object into the new file `target`."""
        target = target.absolute()  # the helper may have another working directory
        ask = partial(self._ask, "fetch", key, target, size_bytes, in_ranges=in_ranges, algorithm=algorithm)
        try:
            found: str = ask()
        except HelperEndedError:
            operations.unlink(target)
            found = ask()
        return found

    def put(self, key: str, source: bytes | Path, *, if_match: str | None = None, new: bool = False) -> str:
        """Store an object and return its ETag. It is not repeated if the helper is killed: it may have succeeded."""
        source = source.absolute() if isinstance(source, Path) else source
        return str(self._ask("put", key, source, if_match=if_match, new=new))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        self._answer("delete", list(keys))

    def close(self) -> None:
        """End operations that wait before another attempt. In a forked process, end the wait for their answers."""
        if os.getpid() == self._owner:
            self._store.close()
        else:
            store_process.abandon(self)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All objects below a prefix."""
        return iter(self._answer("list", prefix))

    def _answer(self, method: str, *args: Any) -> Any:
        """The result of an operation that may be repeated: once more if the helper is killed meanwhile."""
        try:
            return self._ask(method, *args)
        except HelperEndedError:
            return self._ask(method, *args)

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a method of the store, or of an attribute."""
        if os.getpid() == self._owner:
            found = getattr(self._store, method)
            return found(*args, **kwargs) if callable(found) else found
        self._pickled = self._pickled or pickle.dumps(self._store)
        try:
            return store_process.ask(self, self._pickled, method, args, kwargs)
        except HelperEndedError as error:
            raise error.at(subject=self.url) from None


_made: weakref.WeakSet[ForkSafe] = weakref.WeakSet()


def _before_fork() -> None:
    """In a process that may have used a store: prepare one helper for all processes that it forks."""
    if len(_made) or "obstore" in sys.modules:
        store_process.prepare()


def _after_fork() -> None:
    ForkSafe.client_is_dead = ForkSafe.client_is_dead or "obstore" in sys.modules
    store_process.forget()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
