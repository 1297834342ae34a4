"""How much time and memory does a sample take if there are a hundred million of them?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import data, reading
from benchmarks.harness import Column, Job, Target, Wanted

NEEDS_BYTES = 8_500_000_000
BATCH = 4096
BUDGET = 1 << 30
NOTES = """\
- Samples of 64 bytes, fully shuffled, batches of 4,096, a warm page cache, a budget of 1 GiB.
- Held: growth of anonymous memory, including the loader's budget, from before the dataset is opened until the loader
  has run for a while, divided by the number of samples.
- Sparse shards have real offset tables, followed by holes: 66 MB with 1,000 samples of 64 KiB each; batches of 64. They
  are larger than memory, so each sample is read: for a page in a hole, the kernel allocates and clears a page.
"""
COLUMNS = (
    Column(title="ns per sample", number="nanoseconds", digits=0),
    Column(title="× 10⁵ samples", number="nanoseconds", digits=2, ratio=True),
    Column(title="first batch, s", number="first_batch_s", digits=2),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0),
    Column(title="held, bytes per sample", number="held_bytes_per_sample", digits=2, spread=False),
)
GROUP, SHARDS = "64-byte samples", "64 KiB samples"
COUNTS = {"10⁵": 100_000, "10⁷": 10_000_000, "10⁸": 100_000_000}
FEW_ROUNDS, MANY = "600 sparse shards", "6,000 sparse shards"
SPARSE = {FEW_ROUNDS: 600, MANY: 6_000}
PER_SHARD, SPARSE_BYTES = 1_000, 65_536


def _counts(quick: bool) -> dict[str, int]:
    return {} if quick else COUNTS


def prepare(directory: Path, *, quick: bool) -> None:
    """Write datasets of all sizes, and sparse shards."""
    for name, count in _counts(quick).items():
        data.tiny(directory / name, count)
    for name, shards in SPARSE.items():
        data.sparse(directory / name, shards // (60 if quick else 1), PER_SHARD // (10 if quick else 1), SPARSE_BYTES)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Our loader at every size. No peer is measured."""
    seconds = 0.05 if quick else 2.0

    def job(group: str, name: str, samples: int, batch: int) -> Job:
        arguments: dict[str, Any] = {"adapter": "ours", "root": str(directory / name), "options": {"memory": BUDGET}}
        arguments |= {"samples": samples, "batch_size": batch, "seconds": seconds}
        return Job(group=group, contender=name, run=reading.scale, arguments=arguments)

    share = 600 if quick else 1
    found = [job(GROUP, name, count, BATCH) for name, count in _counts(quick).items()]
    return found + [job(SHARDS, name, shards * PER_SHARD // share, 64) for name, shards in SPARSE.items()]


def targets() -> list[Target]:
    """At most 1.5 × the time and 16 bytes per sample."""

    def against_few(name: str, most: float) -> Target:
        wanted = Wanted(group=GROUP, contender=name, against="10⁵", number="nanoseconds", most=most)
        return Target(f"{name} samples: at most {most} × the time at 10⁵", (wanted,))

    def held(name: str) -> Target:
        wanted = Wanted(group=GROUP, contender=name, number="held_bytes_per_sample", most=16)
        return Target(f"{name} samples: at most 16 bytes held for each", (wanted,))

    return [against_few("10⁸", 1.5), held("10⁷"), held("10⁸")]
