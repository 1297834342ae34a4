"""How many processor cores may this process use?"""

from __future__ import annotations

import os


def core_count() -> int:
    """The cores that its affinity leaves to this process, where the system has such a thing (macOS has not)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
