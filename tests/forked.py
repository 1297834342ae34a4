"""Run a function in a forked process that has imported everything already."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


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
