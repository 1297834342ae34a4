"""How is a process limited to less memory than the machine has? With a memory cgroup, version 1 or 2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")


class Group(NamedTuple):
    """A memory cgroup, and the name of the file with its limit."""

    path: Path
    limit: str


def problem() -> str:
    """The reason why no limit can be set here, or "" if it can."""
    here = _here()
    if here is None:
        return "there is no cgroup memory controller"
    if here.limit == "memory.max" and "memory" not in (here.path / "cgroup.subtree_control").read_text().split():
        return "the memory controller is not delegated to cgroups below this process's own"
    return "" if os.access(here.path, os.W_OK) else "no permission to create cgroups below this process's own"


def _here() -> Group | None:
    """The memory cgroup of this process, version 2 or 1, if there is one."""
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
    """Move this process into a new cgroup with this memory limit, which includes the page cache."""
    here = _here()
    assert here is not None, "call problem() first"
    group = here.path / f"mx8shards-benchmark-{os.getpid()}"
    group.mkdir()
    (group / here.limit).write_text(str(size_bytes))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return group


def leave(group: Path) -> None:
    """Move this process back to its former cgroup, and remove the new one."""
    (group.parent / "cgroup.procs").write_text(str(os.getpid()))
    group.rmdir()
