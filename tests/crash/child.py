"""The process that crash tests kill.

`python -m tests.crash.child` reads scenarios from its standard input, one JSON line each, and runs each in a new fork:
forking is a hundred times faster than starting Python with NumPy. A fork reports the number of the thread to trace,
stops itself until a tracer is attached, and reports the result in its exit status.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

import mx8shards as mx8
from mx8shards.disk import operations
from tests.crash.scenarios import BY_NAME, IN_MEMORY

DONE, REFUSED, IN_PLACE, BROKEN = range(4)  # exit statuses
_PR_SET_PTRACER = 0x59616D61


def say(what: str, value: int) -> None:
    """Report one line to the parent process."""
    os.write(1, f"{what} {value}\n".encode())


def pause() -> None:
    """Stop this process until a tracer is attached and continues it."""
    say("thread", threading.get_native_id())
    os.kill(os.getpid(), signal.SIGSTOP)


def pause_in_a_thread(name: str, arguments: tuple[Any, ...]) -> None:
    """Replaces `operations.before`: the first thread other than the main one stops before its first step."""
    if threading.current_thread() is not threading.main_thread():
        operations.before = lambda name, arguments: None
        pause()


def act(scenario: str, place: Path, where: str) -> int:
    """Run a scenario. Returns the exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, -1, 0, 0, 0)  # allow any process to trace this one
    if where == "main":
        pause()
    elif where == "thread":
        operations.before = pause_in_a_thread
    try:
        BY_NAME[scenario].act(place)
    except mx8.ShardsError as error:
        return IN_PLACE if "is already published" in str(error) else REFUSED
    return DONE


def act_and_exit(scenario: str, place: Path, where: str) -> None:
    """The body of a forked child."""
    status = BROKEN
    try:
        status = act(scenario, place, where)
    finally:
        if status == BROKEN:
            traceback.print_exc()
        os._exit(status)


def warm_up() -> None:
    """Import everything that is imported lazily, so that no system call of an import is counted."""
    for scenario in BY_NAME.values():
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as place:
            scenario.prepare(Path(place))
            scenario.act(Path(place))


def serve() -> None:
    """Run the scenarios of the standard input, one after the other."""
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            act_and_exit(request["scenario"], Path(request["place"]), request["where"])
        say("pid", pid)
        say("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    warm_up()
    serve()
