"""How does a process run with less memory than the machine has?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")


class Group(NamedTuple):
    """A control group for memory, and the name of the file that holds its limit."""

    path: Path
    limit: str


def problem() -> str:
    """Why no limit can be set here, or nothing if one can."""
    here = _here()
    if here is None:
        return "there is no memory controller of cgroups"
    if here.limit == "memory.max" and "memory" not in (here.path / "cgroup.subtree_control").read_text().split():
        return "memory is not delegated to groups below this process's own one"
    return "" if os.access(here.path, os.W_OK) else "groups below this process's own one may not be made"


def _here() -> Group | None:
    """The group of this process, of version 2 or 1, if its memory is controlled."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return Group(ROOT / "memory" / path.lstrip("/"), "memory.limit_in_bytes")
        group = ROOT / path.lstrip("/")
        if not controllers and "memory" in _text(group / "cgroup.controllers").split():
            return Group(group, "memory.max")
    return None


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def limit_memory(size_bytes: int) -> Path:
    """Move this process into a new group below its own one, which may hold as much, page cache included."""
    here = _here()
    assert here is not None, "problem() says whether there is one"
    group = here.path / f"mx8shards-benchmark-{os.getpid()}"
    group.mkdir()
    (group / here.limit).write_text(str(size_bytes))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return group


def leave(group: Path) -> None:
    """Move this process back to where it came from, and remove the group."""
    (group.parent / "cgroup.procs").write_text(str(os.getpid()))
    group.rmdir()
