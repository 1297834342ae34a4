"""Does a loader keep its throughput if the data are larger than the memory for the page cache?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks import cgroup, data, loader_contenders, reading
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.loader_contenders import BLOBS, MEMCPY, OURS, Contender, Reading

RAM_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
LIMIT_BYTES = 1 << 30
PROBLEM = cgroup.problem()
HELD_BYTES = RAM_BYTES if PROBLEM else LIMIT_BYTES  # bytes read before the throughput is steady
DATA_BYTES = RAM_BYTES // 4 * 5 if PROBLEM else 4 * LIMIT_BYTES
NEEDS_BYTES = DATA_BYTES
BATCH = 256
PER_SHARD = 600
NOTES = """\
- If memory cgroups can be created, each process is limited to 1 GiB, including the page cache, for 4 GiB of blobs.
  Otherwise the data are a quarter larger than the machine's memory. Limited to: this limit, or the machine's memory.
- Cold: the first seconds, with an empty page cache. Steady: the last seconds, after reading more than memory holds.
- Bare memcpy reads the mapped files without hints (madvise) to the kernel.
"""
COLUMNS = (
    Column(title="cold, MB/s", number="cold_mb_per_s", digits=0),
    Column(title="steady, MB/s", number="steady_mb_per_s", digits=0),
    Column(title="steady / cold", number="steady_per_cold", digits=2),
    Column(title="limited to, GB", number="limit_gb", digits=1, spread=False),
)
GROUP = BLOBS.name
PREAD = f'{OURS}, io="pread"'
SMALL = {"memory": 256 << 20}
CONTENDERS = (
    Contender(OURS, "ours", "mds", [SMALL]),
    Contender(PREAD, "ours", "mds", [{**SMALL, "io": "pread"}]),
    loader_contenders.memcpy(),
)


def prepare(directory: Path, *, quick: bool) -> None:
    """Write one shard of blobs and repeat it."""
    loader_contenders.write(directory, BLOBS, 60 if quick else PER_SHARD, CONTENDERS)
    data.repeat_shard(directory / "mds", _shards(quick), shutil.copyfile)


def _shards(quick: bool) -> int:
    return 10 if quick else DATA_BYTES // (PER_SHARD * BLOBS.sample_bytes)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Our loader with both io settings, and memcpy from mapped files."""
    limited = not PROBLEM and not quick
    arguments = {
        "sample_bytes": BLOBS.sample_bytes,
        "batch_size": BATCH,
        "limit_bytes": LIMIT_BYTES if limited else 0,
        "held_bytes": 30_000_000 if quick else HELD_BYTES,
        "seconds": 0.05 if quick else 5.0,
    }
    return loader_contenders.jobs(
        Reading(GROUP, directory, reading.larger_than_ram, arguments), CONTENDERS[:: 2 if quick else 1], quick=quick
    )


def targets() -> list[Target]:
    """Steady throughput within 10 % of the cold one."""
    return [
        Target(
            "steady within 10 % of cold",
            (Wanted(group=GROUP, contender=OURS, number="steady_per_cold", least=0.9),),
        ),
        Target(
            "steady as fast as memcpy from mapped files",
            (Wanted(group=GROUP, contender=OURS, against=MEMCPY, number="steady_mb_per_s", least=1),),
        ),
    ]
