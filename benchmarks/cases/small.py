"""How fast are shuffled batches of 4 KiB arrays and labels from the page cache?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import loader_contenders
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.loader_contenders import ARRAYS, LIT, MEMCPY, MOSAIC, OURS, Contender

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
    return [Contender(OURS, "ours", "mds"), loader_contenders.memcpy(), *([] if quick else loader_contenders.peers())]


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the samples in each format."""
    loader_contenders.write(directory, ARRAYS, _count(quick), _contenders(quick))


def _count(quick: bool) -> int:
    return 2_000 if quick else 200_000


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders; for other batch sizes only our loader and memcpy."""
    found = []
    for batch in BATCHES[: 1 if quick else None]:
        asked = loader_contenders.warm_reading(GROUPS[batch], ARRAYS, directory, _count(quick), batch, quick=quick)
        contenders = _contenders(quick)
        found += loader_contenders.jobs(asked, contenders if batch == BATCHES[0] else contenders[:2], quick=quick)
    return found


def targets() -> list[Target]:
    """Ratios of the others' time to ours."""

    def times(batch: int, against: str, least: float, claim: str) -> Target:
        wanted = Wanted(group=GROUPS[batch], contender=against, against=OURS, number="microseconds", least=least)
        return Target(claim, (wanted,))

    return [
        times(512, MEMCPY, 0.85, "batches of 512: at least 85 % of memcpy"),
        times(256, MEMCPY, 0.85, "batches of 256: at least 85 % of memcpy"),
        times(2048, MEMCPY, 0.85, "batches of 2,048: at least 85 % of memcpy"),
        times(512, MOSAIC, 100, "at least 100 × as fast as streaming"),
        times(512, LIT, 18, "at least 18 × as fast as litdata"),
    ]
