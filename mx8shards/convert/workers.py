"""How do several processes write the parts of a conversion, and end with the process that started them?

A worker gets the items of one part at a time and answers with the part or the error. It ends when the process that
started it ends, however that happens: a thread of it waits for that. So no worker keeps a part's lock, or writes on,
after its conversion was killed. Ctrl-C, which a terminal sends to all of them, is the first process's business alone:
it kills its workers. A part that was not finished is written again by the same command.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from mx8shards.errors import SourceError

_R = TypeVar("_R")


def in_order(
    start: Callable[[], Callable[[Any], _R]], tasks: Sequence[Any], workers: int, subject: str
) -> Generator[_R, None, None]:
    """The results of all tasks, in their order. `start` makes the function that does a task, once in each process.

    A caller that stops early must close this generator, which ends the worker processes.
    """
    crew: dict[Any, BaseProcess] = {}  # by their pipes
    left = iter(enumerate(tasks))
    done: dict[int, _R] = {}
    try:
        for _ in range(min(workers, len(tasks))):
            _start(start, crew)
        with _answering(subject):
            for first in crew:
                first.send(next(left))
        for number in range(len(tasks)):
            while number not in done:
                for ready in connection.wait(list(crew)):
                    pipe: Any = ready
                    with _answering(subject):
                        which, result, error = pipe.recv()
                        if (task := next(left, None)) is not None:
                            pipe.send(task)
                    if error is not None:
                        raise error
                    done[which] = result
            yield done.pop(number)
    finally:
        for process in crew.values():
            process.kill()  # they have nothing that a kill could damage, and nobody wants to wait for a part
        for process in crew.values():
            process.join()


@contextlib.contextmanager
def _answering(subject: str) -> Iterator[None]:
    """A worker that does not answer any more is a SourceError."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        hint = "the same command goes on with what is missing; fewer workers need less memory"
        raise SourceError("a worker was killed", subject=subject, hint=hint) from error


def _start(start: Callable[[], Callable[[Any], Any]], crew: dict[Any, BaseProcess]) -> None:
    """Start a process and put it into the crew, by its pipe."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads that do not run in it
    resource_tracker.ensure_running()  # starting it would unblock the signal below
    # A process inherits which signals are blocked. Until the crew has it nobody would kill it, so no Ctrl-C comes.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        ours, theirs = context.Pipe()
        with theirs:
            process = context.Process(target=_work, args=(start, theirs), daemon=True)
            process.start()
        crew[ours] = process
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(start: Callable[[], Callable[[Any], Any]], pipe: Connection) -> None:
    """What a worker does: task after task, until the pipe is closed."""
    threading.Thread(target=_end_with_parent, name="mx8shards-convert-watch", daemon=True).start()
    function: Callable[[Any], Any] | None = None
    with contextlib.suppress(EOFError, ConnectionError):  # nobody is there any more
        while True:
            number, task = pipe.recv()
            result: Any = None
            failure: BaseException | None = None
            try:
                if function is None:
                    function = start()
                result = function(task)
            except Exception as error:  # noqa: BLE001 - whatever a source raises, the first process raises
                failure = _portable(error)
            pipe.send((number, result, failure))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, with its traceback as a note, if another process can have it; else one that says the same."""
    note = "".join(traceback.format_exception(error))
    try:
        error.add_note(f"In a worker process:\n{note}")
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        return error
    except Exception:  # noqa: BLE001 - pickling raises whatever the error's own code does
        return RuntimeError(f"{type(error).__name__}: {error}\n{note}")
