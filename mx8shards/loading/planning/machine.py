"""What may this process use: memory, cores, and which rank is it?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from mx8shards.errors import SettingError, shown, whole_number
from mx8shards.order.steps import MOST_RANKS
from mx8shards.shards.cores import core_count, environment_number, local_world_size

MAX_DEFAULT_BYTES = 4 << 30
_CGROUP = Path("/sys/fs/cgroup")


def default_memory() -> int:
    """A quarter of the memory of the cgroup or machine, at most 4 GB, divided by the processes that share it."""
    return min(memory_limit() // 4, MAX_DEFAULT_BYTES) // sharing_processes()


def default_threads() -> int:
    """The cores of this process, divided by the processes that share them."""
    return max(1, core_count() // sharing_processes())


def sharing_processes() -> int:
    """The number of processes that share this machine: local ranks times DataLoader workers."""
    worker = _worker_info()
    return local_world_size() * (worker.num_workers if worker else 1)


def memory_limit() -> int:
    """The minimum of the machine's memory and the limits of all cgroups of this process."""
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
    """The limit files of this process's cgroup and its parents, version 2 or 1."""
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
    found_here = distributed_group()
    if found_here is not None:
        return found_here
    world_size = environment_number("WORLD_SIZE", 1, 1, MOST_RANKS)
    given = [name for name in ("RANK", "WORLD_SIZE") if name in os.environ]
    if len(given) == 1 and (world_size > 1 or given == ["RANK"]):
        environment_number(given[0], 0, 0, MOST_RANKS)  # an invalid value is reported first
        raise SettingError(
            subject="environment variables RANK and WORLD_SIZE",
            expected="both, or neither",
            found=f"{given[0]}={shown(os.environ[given[0]])} alone",
            hint="start the processes with torchrun, or give rank=… and world_size=… to the Loader",
        )
    return environment_number("RANK", 0, 0, world_size - 1), world_size


def distributed_group() -> tuple[int, int] | None:
    """Rank and world size from torch.distributed, if it is initialized. This does not import torch."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank()), int(distributed.get_world_size())


def _worker_info() -> Any:
    """The WorkerInfo of this process, if it is a DataLoader worker."""
    data: Any = sys.modules.get("torch.utils.data")
    return data.get_worker_info() if data is not None else None


def worker_share() -> tuple[int, int]:
    """The number of this DataLoader worker, and the number of workers; (0, 1) outside of a worker."""
    worker = _worker_info()
    return (int(worker.id), int(worker.num_workers)) if worker else (0, 1)
