"""How do worker processes write the parts of a conversion, and end with their parent process?

A worker receives the items of one part at a time and sends back the part or the error. One of its threads watches the
parent and ends the worker when the parent ends for any reason. So after a kill no worker continues to write or holds a
part's lock. Workers block SIGTERM and Ctrl-C, which a terminal sends to all processes; the parent kills its workers
instead. An unfinished part is written again when the same command is run again.

Workers are new interpreters, not forks, because a fork of a process with threads is unsafe. Unlike `multiprocessing`'s
workers they import the user's script only if the source's class is defined there, so a conversion can be called from a
notebook, or from a script without `if __name__ == "__main__"`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import connection, current_process, spawn
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mx8shards.errors import SettingError, SourceError

_R = TypeVar("_R")
Tell = Callable[[int], object]  # called with the progress of one task

_TELL_EVERY_S = 0.5

_GUARD = 'put the call below `if __name__ == "__main__":`, or move the class to a separate module'
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from mx8shards.convert.workers import work
work(int(sys.argv[2]))
"""

_NAME = "mx8shards-convert"
_ENDING = (signal.SIGINT, signal.SIGTERM)


class _Progress(NamedTuple):
    """A message from a worker: the progress of the task with this number."""

    number: int
    done: int


def map_in_processes(
    start: Callable[[], Callable[[Any, Tell], _R]],
    tasks: Sequence[Any],
    workers: int,
    subject: str,
    tell: Callable[[int, int], object],
) -> Generator[_R, None, None]:
    """The results of all tasks, in order. Each process calls `start` once, and the function it returns for each task.

    That function is called with a task and a `Tell`, which reports its progress; then `tell` is called with the number
    of the task and its progress. A caller that stops early must close this generator, which kills the workers.
    """
    processes: dict[Any, subprocess.Popen[bytes]] = {}  # keyed by their pipes
    left = iter(enumerate(tasks))
    done: dict[int, _R] = {}
    start_message = _start_message(start)
    try:
        for _ in range(min(workers, len(tasks))):
            _start(processes)
        with _death_is_an_error(subject):
            for first in processes:
                first.send_bytes(start_message)
                first.send(next(left))
        for number in range(len(tasks)):
            while number not in done:
                for ready in connection.wait(list(processes)):
                    pipe: Any = ready
                    with _death_is_an_error(subject):
                        message = pipe.recv()
                    if isinstance(message, _Progress):
                        tell(*message)
                        continue
                    which, result, error = message
                    with _death_is_an_error(subject):
                        if (task := next(left, None)) is not None:
                            pipe.send(task)
                    if error is not None:
                        raise error
                    done[which] = result
            yield done.pop(number)
    finally:
        for pipe, process in processes.items():
            process.kill()  # safe at any time, and waiting for unfinished parts would be useless
            pipe.close()
        for process in processes.values():
            process.wait()


def require_no_worker() -> None:
    """SettingError in a worker that imports the user's script, if the script starts the conversion again."""
    if current_process().name == _NAME:
        raise SettingError(
            "a worker imports this script, which must not start the conversion again", subject="workers", hint=_GUARD
        )


def check_importable(pickled: bytes, name: str, workers: int) -> None:
    """SettingError if workers cannot unpickle an object because its class is defined in a notebook."""
    if workers > 1 and b"__main__" in pickled and not _main_can_be_imported():
        raise SettingError(
            subject="workers",
            expected=f"1, as {name} is defined in a notebook or at a prompt, which no worker can import",
            found=str(workers),
            hint="move the class to a module (.py) and import it from there",
        )


def _main_can_be_imported() -> bool:
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    return getattr(main, "__spec__", None) is not None or (file is not None and Path(file).is_file())


def _start_message(start: object) -> bytes:
    """The first message to a worker. It imports the user's script only if the pickled object refers to it."""
    pickled = pickle.dumps(start)
    preparation = spawn.get_preparation_data(_NAME)
    del preparation["authkey"]  # it cannot be pickled
    if b"__main__" not in pickled:
        preparation = {name: value for name, value in preparation.items() if not name.startswith("init_main")}
    return pickle.dumps((preparation, pickled))


@contextlib.contextmanager
def _death_is_an_error(subject: str) -> Iterator[None]:
    """Raise SourceError if a worker has died."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        hint = "running the same command again resumes; fewer workers need less memory"
        raise SourceError("a worker was killed", subject=subject, hint=hint) from error


def _start(processes: dict[Any, subprocess.Popen[bytes]]) -> None:
    """Start a worker and add it to `processes`.

    Signals are deferred meanwhile, because a worker that is not in `processes` would not be killed.
    """
    with _signals_deferred():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the worker inherits the blocked signals
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                paths = json.dumps([str(path) for path in sys.path])
                # -P: until sys.path is set, no module of the user can be imported by mistake
                command = [sys.executable, "-P", "-c", _BOOT, paths, str(theirs.fileno())]
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
                processes[Connection(ours.detach())] = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM until this block ends.

    Blocking them is not enough: another thread may receive them, and the main thread then runs their handlers.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers only run in the main thread
        yield
        return
    came: list[int] = []
    usual = {number: signal.getsignal(number) for number in _ENDING}
    ours = {
        number: action for number, action in usual.items() if action is not None
    }  # None: the handler was not set by Python
    try:
        for number in ours:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, action in ours.items():
            signal.signal(number, action)
        for late in came:
            signal.raise_signal(late)


def work(descriptor: int) -> None:
    """The main function of a worker: run tasks until the pipe is closed."""
    threading.Thread(target=_end_with_parent, args=(descriptor,), name="mx8shards-convert-watch", daemon=True).start()
    pipe = Connection(descriptor)
    function: Callable[[Any, Tell], Any] | None = None
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        preparation, start = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our parent
        while True:
            number, task = pipe.recv()
            result: Any = None
            failure: BaseException | None = None
            try:
                if function is None:
                    _prepare(preparation)
                    function = pickle.loads(start)()  # noqa: S301
                result = function(task, _teller(pipe, number))
            except Exception as error:  # noqa: BLE001 - the parent raises any error of the source
                failure = _picklable(error)
            pipe.send((number, result, failure))


def _teller(pipe: Connection, number: int) -> Tell:
    """Send the progress of a task to the parent, at most twice a second."""
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _TELL_EVERY_S:
            last = now
            pipe.send(_Progress(number, done))

    return tell


def _prepare(preparation: dict[str, Any]) -> None:
    """Set sys.path, sys.argv and so on, and import the user's script if needed."""
    try:
        spawn.prepare(preparation)
    except SystemExit as error:
        raise SettingError(
            "a worker imports this script, which called sys.exit", subject="workers", hint=_GUARD
        ) from error


def _end_with_parent(descriptor: int) -> None:
    """Exit when the parent closes its end of the pipe, or ends, which closes it."""
    waiting = select.poll()
    waiting.register(descriptor, getattr(select, "POLLRDHUP", 0))  # not for data, which the main thread reads
    waiting.poll()
    os._exit(1)


def _picklable(error: Exception) -> Exception:
    """The error with its traceback as a note, or a RuntimeError with its text if it cannot be pickled."""
    note = "".join(traceback.format_exception(error))
    try:
        error.add_note(f"In a worker process:\n{note}")
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        return error
    except Exception:  # noqa: BLE001 - pickling runs the error's own code, which may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}\n{note}")
