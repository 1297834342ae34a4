"""Wait in a test until something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 60


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; an AssertionError after a minute."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def has_ended(process: int) -> bool:
    """Whether a process is gone, or a zombie: then it has no command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() == b""
    except OSError:
        return True
