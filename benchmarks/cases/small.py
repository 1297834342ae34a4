"""How quickly do batches of 4 KiB arrays and their labels come, in random order, from files that are in memory?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import contest
from benchmarks.contest import ARRAYS, LIT, MEMCPY, MOSAIC, OURS, Contender
from benchmarks.harness import Column, Job, Target, Wanted

NEEDS_BYTES = 4_500_000_000
NOTES = """\
- As in gather. Both columns are delivered, stacked: int32 [B, 1024] and int64 [B]; the memory budget is the default.
"""
COLUMNS = (
    Column(title="samples/s", number="samples_per_s", digits=0),
    Column(title="GB/s", number="gb_per_s", digits=2),
    Column(title="time, × mx8shards", number="microseconds", digits=2, ratio=True),
    Column(title="processor, s", number="processor_s", digits=1, spread=False),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
)
BATCHES = (512, 256, 2048)
GROUPS = {batch: f"{ARRAYS.name}, batches of {batch}" for batch in BATCHES}


def _contenders(quick: bool) -> list[Contender]:
    return [Contender(OURS, "ours", "mds"), contest.memcpy(), *([] if quick else contest.peers())]


def prepare(directory: Path, *, quick: bool) -> None:
    """The same samples in each format."""
    contest.write(directory, ARRAYS, _count(quick), _contenders(quick))


def _count(quick: bool) -> int:
    return 2_000 if quick else 200_000


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Everyone who reads; batches of other sizes only those that are quick."""
    found = []
    for batch in BATCHES[: 1 if quick else None]:
        asked = contest.warm_reading(GROUPS[batch], ARRAYS, directory, _count(quick), batch, quick=quick)
        contenders = _contenders(quick)
        found += contest.jobs(asked, contenders if batch == BATCHES[0] else contenders[:2], quick=quick)
    return found


def targets() -> list[Target]:
    """What the issue asks for, as time: that of others as a multiple of ours."""

    def times(batch: int, against: str, least: float, claim: str) -> Target:
        wanted = Wanted(group=GROUPS[batch], contender=against, against=OURS, number="microseconds", least=least)
        return Target(claim, (wanted,))

    return [
        times(512, MEMCPY, 0.85, "batches of 512: at least 85 % of memcpy"),
        times(256, MEMCPY, 0.85, "batches of 256: at least 85 % of memcpy"),
        times(2048, MEMCPY, 0.85, "batches of 2,048: at least 85 % of memcpy"),
        times(512, MOSAIC, 100, "at least 100 × as quick as streaming"),
        times(512, LIT, 18, "at least 18 × as quick as litdata"),
    ]
