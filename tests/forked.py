"""Run functions in forked processes, which have imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def forked(work: Callable[[], object]) -> int:
    """Start a forked process, and return its id. It prints the traceback of an error, and exits with status 0 or 1."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - the parent reads the status
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def in_fork(work: Callable[[], Any]) -> Any:
    """The result of a function in a forked process, or the exception that it raised."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def run() -> None:
        try:
            there.send(work())
        except Exception as error:  # noqa: BLE001 — the test looks at it
            there.send(error)

    process = context.Process(target=run, daemon=True)  # as DataLoader's workers are
    process.start()
    try:
        assert here.poll(60), "the forked process does not answer"
        return here.recv()
    finally:
        process.kill()
        process.join()
