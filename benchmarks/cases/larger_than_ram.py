"""Does a loader keep its pace when the data are larger than the memory there is for them?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks import cgroup, contest, data, reading
from benchmarks.contest import BLOBS, MEMCPY, OURS, Contender, Reading
from benchmarks.harness import Column, Job, Target, Wanted

RAM_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
LIMIT_BYTES = 1 << 30
PROBLEM = cgroup.problem()
HELD_BYTES = RAM_BYTES if PROBLEM else LIMIT_BYTES  # what is read before the state is steady
DATA_BYTES = RAM_BYTES // 4 * 5 if PROBLEM else 4 * LIMIT_BYTES
NEEDS_BYTES = DATA_BYTES
BATCH = 256
PER_SHARD = 600
NOTES = """\
- Where a control group's memory is ours to divide, each process gets 1 GiB, page cache included, for 4 GiB of blobs.
  Elsewhere the data are a quarter larger than the machine's memory. Limited to: what the process had.
- Cold: the first seconds, when the page cache is empty. Steady: the last ones, after more was read than can be held.
- Bare memcpy reads the maps with no hint to the kernel.
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
    contest.memcpy(),
)


def prepare(directory: Path, *, quick: bool) -> None:
    """One shard of blobs, over and over."""
    contest.write(directory, BLOBS, 60 if quick else PER_SHARD, CONTENDERS)
    data.repeat_shard(directory / "mds", _shards(quick), shutil.copyfile)


def _shards(quick: bool) -> int:
    return 10 if quick else DATA_BYTES // (PER_SHARD * BLOBS.sample_bytes)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """We in both ways, and memcpy from the maps."""
    limited = not PROBLEM and not quick
    arguments = {
        "sample_bytes": BLOBS.sample_bytes,
        "batch_size": BATCH,
        "limit_bytes": LIMIT_BYTES if limited else 0,
        "held_bytes": 30_000_000 if quick else HELD_BYTES,
        "seconds": 0.05 if quick else 5.0,
    }
    return contest.jobs(
        Reading(GROUP, directory, reading.larger_than_ram, arguments), CONTENDERS[:: 2 if quick else 1], quick=quick
    )


def targets() -> list[Target]:
    """Within a tenth of cold."""
    return [
        Target(
            "steady within 10 % of cold",
            (Wanted(group=GROUP, contender=OURS, number="steady_per_cold", least=0.9),),
        ),
        Target(
            "steady as quick as memcpy from the maps",
            (Wanted(group=GROUP, contender=OURS, against=MEMCPY, number="steady_mb_per_s", least=1),),
        ),
    ]
