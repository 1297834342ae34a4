"""How do several processes write the parts of a conversion, and end with the process that started them?

A worker gets the items of one part at a time and answers with the part or the error. It ends when the process that
started it ends, however that happens: a thread of it waits for that. So no worker keeps a part's lock, or writes on,
after its conversion was killed. Only the first process heeds SIGTERM and Ctrl-C, which a terminal sends to all of them:
it kills its workers. A part that was not finished is written again by the same command.

Workers are fresh interpreters, because a fork would inherit threads that do not run in it. Unlike `multiprocessing`'s
they import the user's script only if the source's class is defined there, so a conversion can be called from a notebook
or from a script without `if __name__ == "__main__"`.
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
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import connection, current_process, spawn
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from mx8shards.errors import SettingError, SourceError

_R = TypeVar("_R")

_GUARD = 'put the call below `if __name__ == "__main__":`, or the class into a module of its own'
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from mx8shards.convert.workers import work
work(int(sys.argv[2]))
"""

_NAME = "mx8shards-convert"
_ENDING = (signal.SIGINT, signal.SIGTERM)


def map_in_processes(
    start: Callable[[], Callable[[Any], _R]], tasks: Sequence[Any], workers: int, subject: str
) -> Generator[_R, None, None]:
    """The results of all tasks, in their order. `start` makes the function that does a task, once in each process.

    A caller that stops early must close this generator, which ends the worker processes.
    """
    processes: dict[Any, subprocess.Popen[bytes]] = {}  # by their pipes
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
                        which, result, error = pipe.recv()
                        if (task := next(left, None)) is not None:
                            pipe.send(task)
                    if error is not None:
                        raise error
                    done[which] = result
            yield done.pop(number)
    finally:
        for pipe, process in processes.items():
            process.kill()  # they have nothing that a kill could damage, and nobody wants to wait for a part
            pipe.close()
        for process in processes.values():
            process.wait()


def require_no_worker() -> None:
    """SettingError in a worker: it imports the script that the source's class is defined in, which converts again."""
    if current_process().name == _NAME:
        raise SettingError("a worker imports this script, which must not convert again", subject="workers", hint=_GUARD)


def check_importable(pickled: bytes, name: str, workers: int) -> None:
    """SettingError for a pickled object that no other process can get: part of it is defined in a notebook."""
    if workers > 1 and b"__main__" in pickled and not _main_can_be_imported():
        raise SettingError(
            subject="workers",
            expected=f"1, as {name} is defined in a notebook or at a prompt, which no worker can import",
            found=str(workers),
            hint="put the class into a module (.py) and import it from there",
        )


def _main_can_be_imported() -> bool:
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    return getattr(main, "__spec__", None) is not None or (file is not None and Path(file).is_file())


def _start_message(start: object) -> bytes:
    """What a worker needs before its first task. The script is imported only for what is pickled by its name there."""
    pickled = pickle.dumps(start)
    preparation = spawn.get_preparation_data(_NAME)
    del preparation["authkey"]  # which is not pickled
    if b"__main__" not in pickled:
        preparation = {name: value for name, value in preparation.items() if not name.startswith("init_main")}
    return pickle.dumps((preparation, pickled))


@contextlib.contextmanager
def _death_is_an_error(subject: str) -> Iterator[None]:
    """A worker that does not answer any more is a SourceError."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        hint = "the same command goes on with what is missing; fewer workers need less memory"
        raise SourceError("a worker was killed", subject=subject, hint=hint) from error


def _start(processes: dict[Any, subprocess.Popen[bytes]]) -> None:
    """Start a process and put it into the processes, by its pipe.

    Nobody would kill a process that the processes does not have, so no signal disturbs this.
    """
    with _signals_deferred():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # which signals are blocked is inherited
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                paths = json.dumps([str(path) for path in sys.path])
                # -P: what is imported before sys.path is set is no module of the user's
                command = [sys.executable, "-P", "-c", _BOOT, paths, str(theirs.fileno())]
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
                processes[Connection(ours.detach())] = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM are handled when this ends.

    To block them is not enough: any other thread may get them, and the main thread then runs their handlers.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler runs in it
        yield
        return
    came: list[int] = []
    usual = {number: signal.getsignal(number) for number in _ENDING}
    ours = {number: action for number, action in usual.items() if action is not None}  # None: not set by Python
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
    """What a worker does: task after task, until the pipe is closed."""
    threading.Thread(target=_end_with_parent, args=(descriptor,), name="mx8shards-convert-watch", daemon=True).start()
    pipe = Connection(descriptor)
    function: Callable[[Any], Any] | None = None
    with contextlib.suppress(EOFError, ConnectionError):  # nobody is there any more
        preparation, start = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from the process that started this one
        while True:
            number, task = pipe.recv()
            result: Any = None
            failure: BaseException | None = None
            try:
                if function is None:
                    _prepare(preparation)
                    function = pickle.loads(start)()  # noqa: S301
                result = function(task)
            except Exception as error:  # noqa: BLE001 - whatever a source raises, the first process raises
                failure = _picklable(error)
            pipe.send((number, result, failure))


def _prepare(preparation: dict[str, Any]) -> None:
    """Set sys.path, sys.argv and the like, and import the user's script if that is needed."""
    try:
        spawn.prepare(preparation)
    except SystemExit as error:
        raise SettingError("a worker imports this script, which ended it", subject="workers", hint=_GUARD) from error


def _end_with_parent(descriptor: int) -> None:
    """Wait until the other end of the pipe is closed: by the system, at the latest, when that process ends."""
    waiting = select.poll()
    waiting.register(descriptor, getattr(select, "POLLRDHUP", 0))  # never for data: the other thread reads these
    waiting.poll()
    os._exit(1)


def _picklable(error: Exception) -> Exception:
    """The error, with its traceback as a note, if another process can have it; else one that says the same."""
    note = "".join(traceback.format_exception(error))
    try:
        error.add_note(f"In a worker process:\n{note}")
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        return error
    except Exception:  # noqa: BLE001 - pickling raises whatever the error's own code does
        return RuntimeError(f"{type(error).__name__}: {error}\n{note}")
