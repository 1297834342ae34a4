"""How does a process run with less memory than the machine has?"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def problem() -> str:
    """Why no limit can be set here, or nothing if one can."""
    controllers = ROOT / "cgroup.controllers"
    if not controllers.is_file():
        return "there is no memory controller of cgroup v2"
    if "memory" not in controllers.read_text().split():
        return "cgroup v2 has no memory controller"
    if "memory" not in _here().joinpath("cgroup.subtree_control").read_text().split():
        return "memory is not delegated to groups below this process's own one"
    return "" if os.access(_here(), os.W_OK) else "groups below this process's own one may not be made"


def _here() -> Path:
    line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return ROOT / line[3:].strip().lstrip("/")


def limit_memory(size_bytes: int) -> Path:
    """Move this process into a new group below its own one, which may hold as much, page cache included."""
    group = _here() / f"mx8shards-benchmark-{os.getpid()}"
    group.mkdir()
    (group / "memory.max").write_text(str(size_bytes))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return group


def leave(group: Path) -> None:
    """Move this process back to where it came from, and remove the group."""
    (group.parent / "cgroup.procs").write_text(str(os.getpid()))
    group.rmdir()
