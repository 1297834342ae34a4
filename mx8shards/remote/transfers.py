"""How are many files fetched in threads, so that Ctrl-C and an error end all of them at once?"""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from mx8shards.shards.cores import core_count

_T = TypeVar("_T")

# A connection to S3 brings about 80 MB/s, and a core decrypts and writes some 500 MB/s. More threads than that only
# take each other's time: with 16 of them on two cores, a GB took a tenth more.
_PER_CORE, _LEAST, _MOST = 4, 8, 32
_POLL_S = 0.05


def parallel() -> int:
    """How many files this process fetches at a time."""
    return min(max(_LEAST, _PER_CORE * core_count()), _MOST)


def fetch_all(fetch: Callable[[_T], object], items: Sequence[_T], stop: Callable[[], object]) -> None:
    """Call `fetch` for each item, `parallel()` at a time. Raises the first error, when all threads have ended.

    `stop` ends what is being fetched. It is called until all threads have ended, because one that was about to fetch
    may have connected again. Another thread starts them: Ctrl-C within `Thread.start` may leave a thread that never
    runs, and one that nobody knows of. Ctrl-C is raised in the main thread only.
    """
    stopped = threading.Event()
    ended: Future[None] = Future()

    def fetch_one(item: _T) -> None:
        if not stopped.is_set():
            fetch(item)

    def run() -> None:
        try:
            with ThreadPoolExecutor(parallel(), "mx8shards-sync") as pool:
                try:
                    for _ in pool.map(fetch_one, items):
                        pass
                finally:
                    stopped.set()
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            ended.set_exception(error)
        else:
            ended.set_result(None)

    start_new_thread(run, ())
    try:
        while not wait([ended], _POLL_S).done:
            if stopped.is_set():
                stop()
    except BaseException:
        stopped.set()
        while not wait([ended], _POLL_S).done:
            stop()
        raise
    ended.result()
