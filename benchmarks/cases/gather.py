"""How fast are shuffled batches of 100 KB blobs from the page cache?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import loader_contenders
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.loader_contenders import BLOBS, LIT, LIT_LIST, MEMCPY, MOSAIC, MOSAIC_LIST, OURS, Contender

NEEDS_BYTES = 4_500_000_000
BATCH = 256
NOTES = """\
- Batches of 256, fully shuffled, a warm page cache, several epochs; each loader has read every sample before. The
  consumer touches one byte per page of every batch.
- Bare memcpy: copies the samples from the mapped shards in random order, with an equal number of threads, into 6 banks
  in turn. All addresses are computed before the measurement. It is the C library's memcpy, which uses the CPU
  caches; mx8shards bypasses them for batches of 2 MiB or more, which is faster.
- Every loader delivers the bytes of a batch as one block of memory owned by the consumer. In the last two rows, peers
  deliver a list of new bytes objects, or of views of mapped files from which nothing was copied yet.
- streaming reads our files; litdata, WebDataset and FFCV read their own formats. Each peer was tried with 0, 1, 2 and 4
  workers (SPDL: 1 and 2 threads; litdata: both decoding modes) and measured with its fastest settings. FFCV has one
  thread per core.
- WebDataset reads files sequentially and shuffles their order and a buffer of 1,000 samples.
"""
COLUMNS = (
    Column(title="samples/s", number="samples_per_s", digits=0),
    Column(title="GB/s", number="gb_per_s", digits=2),
    Column(title="time, × mx8shards", number="microseconds", digits=2, ratio=True),
    Column(title="processor, s", number="processor_s", digits=1, spread=False),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
)


def _contenders(quick: bool) -> list[Contender]:
    others = (
        loader_contenders.peers((2,))
        if quick
        else [*loader_contenders.peers(), *loader_contenders.peers_returning_lists()]
    )
    return [Contender(OURS, "ours", "mds"), loader_contenders.memcpy(), *others]


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the samples in each format."""
    loader_contenders.write(directory, BLOBS, _count(quick), _contenders(quick))


def _count(quick: bool) -> int:
    return 600 if quick else 12_000


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders."""
    asked = loader_contenders.warm_reading(BLOBS.name, BLOBS, directory, _count(quick), BATCH, quick=quick)
    return loader_contenders.jobs(asked, _contenders(quick), quick=quick)


def targets() -> list[Target]:
    """Ratios of the others' time to ours."""

    def times(against: str, least: float, claim: str) -> Target:
        wanted = Wanted(group=BLOBS.name, contender=against, against=OURS, number="microseconds", least=least)
        return Target(claim, (wanted,))

    return [
        times(MEMCPY, 0.95, "at least 95 % of memcpy"),
        times(MOSAIC, 8, "at least 8 × as fast as streaming"),
        times(MOSAIC_LIST, 8, "at least 8 × as fast as streaming, even if that returns lists"),
        times(LIT, 3, "at least 3 × as fast as litdata"),
        times(LIT_LIST, 3, "at least 3 × as fast as litdata, even if that returns lists"),
    ]
