"""What may this process use: memory, cores, and which rank is it?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from mx8shards.errors import SettingError, shown, whole_number
from mx8shards.order.steps import MOST_RANKS
from mx8shards.shards.cores import core_count, environment_number, local_world_size

MOST_DEFAULT_BYTES = 4 << 30
_CGROUP = Path("/sys/fs/cgroup")


def default_memory() -> int:
    """A quarter of what the cgroup or the machine has, 4 GB at most, in equal shares for all processes of this kind."""
    return min(memory_limit() // 4, MOST_DEFAULT_BYTES) // sharers()


def default_threads() -> int:
    """The cores of this process, in equal shares."""
    return max(1, core_count() // sharers())


def sharers() -> int:
    """How many processes divide this machine: local ranks, and the workers of a DataLoader within each."""
    worker = _worker_info()
    return local_world_size() * (worker.num_workers if worker else 1)


def memory_limit() -> int:
    """The least of the machine's memory and what any cgroup above this process allows."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _cgroup_files():
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def _cgroup_files() -> list[Path]:
    """Where limits may stand: this process's cgroup and all above it, of version 2 or 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = _CGROUP, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = _CGROUP / "memory", "memory.limit_in_bytes"
        else:
            continue
        inner = base / path.lstrip("/")
        files += [above / name for above in (inner, *inner.parents) if above.is_relative_to(base)]
    return files


def distributed_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """The rank and world size that were given; else torch.distributed's, else the environment's, else 0 of 1."""
    if (rank is None) != (world_size is None):
        found = f"rank={shown(rank)}, world_size={shown(world_size)}"
        raise SettingError(subject="rank and world_size", expected="both, or neither", found=found)
    if rank is not None:
        world_size = whole_number("world_size", world_size, 1, MOST_RANKS)
        return whole_number("rank", rank, 0, world_size - 1), world_size
    found_here = _distributed()
    if found_here is not None:
        return found_here
    world_size = environment_number("WORLD_SIZE", 1, 1, MOST_RANKS)
    given = [name for name in ("RANK", "WORLD_SIZE") if name in os.environ]
    if len(given) == 1 and (world_size > 1 or given == ["RANK"]):
        environment_number(given[0], 0, 0, MOST_RANKS)  # a value that is none comes first
        raise SettingError(
            subject="environment variables RANK and WORLD_SIZE",
            expected="both, or neither",
            found=f"{given[0]}={shown(os.environ[given[0]])} alone",
            hint="start the processes with torchrun, or give rank=… and world_size=… to the Loader",
        )
    return environment_number("RANK", 0, 0, world_size - 1), world_size


def _distributed() -> tuple[int, int] | None:
    """What torch.distributed says, if it is in use: torch is not imported just to ask."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank()), int(distributed.get_world_size())


def _worker_info() -> Any:
    """Which DataLoader worker this process is, or None."""
    data: Any = sys.modules.get("torch.utils.data")
    return data.get_worker_info() if data is not None else None


def worker_share() -> tuple[int, int]:
    """The number of this DataLoader worker and how many there are; 0 of 1 elsewhere."""
    worker = _worker_info()
    return (int(worker.id), int(worker.num_workers)) if worker else (0, 1)
