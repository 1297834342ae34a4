"""How quickly do batches of 100 KB blobs come, in random order, from files that are in memory?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import contest
from benchmarks.contest import BLOBS, LIT, LIT_LIST, MEMCPY, MOSAIC, MOSAIC_LIST, OURS, Contender
from benchmarks.harness import Column, Job, Target, Wanted

NEEDS_BYTES = 4_500_000_000
BATCH = 256
NOTES = """\
- Batches of 256, the whole dataset shuffled, a warm page cache, epoch after epoch; each loader saw every sample before.
  The consumer touches one byte per page of every batch.
- Bare memcpy: the same samples at random from the same maps, by as many threads into 6 banks in turn, where every row
  lies and goes known beforehand. It is the C library's, and goes through the caches; mx8shards copies batches of 2 MiB
  or more past them, which is quicker.
- Every loader gives the bytes of a batch as one block of memory that is the consumer's. In the last two rows peers give
  a list instead, of new bytes objects or of views of mapped files, where nothing was copied yet.
- streaming reads the same files as we do, litdata, WebDataset and FFCV their own formats. Each peer was tried with 0,
  1, 2 and 4 workers (SPDL with 1 and 2 threads), litdata also with both ways to decode, and measured with the settings
  that suited it best. FFCV has a thread per core.
- WebDataset reads files in sequence and shuffles their order and a buffer of 1,000 samples.
"""
COLUMNS = (
    Column(title="samples/s", number="samples_per_s", digits=0),
    Column(title="GB/s", number="gb_per_s", digits=2),
    Column(title="time, × mx8shards", number="microseconds", digits=2, ratio=True),
    Column(title="processor, s", number="processor_s", digits=1, spread=False),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
)


def _contenders(quick: bool) -> list[Contender]:
    others = contest.peers((2,)) if quick else [*contest.peers(), *contest.listing_peers()]
    return [Contender(OURS, "ours", "mds"), contest.memcpy(), *others]


def prepare(directory: Path, *, quick: bool) -> None:
    """The same samples in each format."""
    contest.write(directory, BLOBS, _count(quick), _contenders(quick))


def _count(quick: bool) -> int:
    return 600 if quick else 12_000


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Everyone who reads."""
    asked = contest.warm_reading(BLOBS.name, BLOBS, directory, _count(quick), BATCH, quick=quick)
    return contest.jobs(asked, _contenders(quick), quick=quick)


def targets() -> list[Target]:
    """What the issue asks for, as time: that of others as a multiple of ours."""

    def times(against: str, least: float, claim: str) -> Target:
        wanted = Wanted(group=BLOBS.name, contender=against, against=OURS, number="microseconds", least=least)
        return Target(claim, (wanted,))

    return [
        times(MEMCPY, 0.95, "at least 95 % of memcpy"),
        times(MOSAIC, 8, "at least 8 × as quick as streaming"),
        times(MOSAIC_LIST, 8, "at least 8 × as quick as streaming, even where it gives a list"),
        times(LIT, 3, "at least 3 × as quick as litdata"),
        times(LIT_LIST, 3, "at least 3 × as quick as litdata, even where it gives a list"),
    ]
