"""How many processor cores may this process use, and how many processes share the machine?"""

from __future__ import annotations

import os

from mx8shards.errors import SettingError, whole_number


def core_count() -> int:
    """The number of cores in this process's affinity mask, or of all cores without one (macOS)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def local_world_size() -> int:
    """The number of training processes on this machine, which launchers set in the environment."""
    return environment_number("LOCAL_WORLD_SIZE", 1, 1)


def environment_number(name: str, default: int, least: int, most: int = 2**62) -> int:
    """The int in an environment variable, or the default if it is not set."""
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        return whole_number(name, int(text) if text.isdecimal() and len(text) < 20 else None, least, most)
    except SettingError as error:
        raise SettingError(
            subject=f"environment variable {name}", expected=error.expected, found=repr(text[:80])
        ) from None
