"""How long is it from a fresh process to the first batch of ten million samples?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import data, reading
from benchmarks.contest import MOSAIC, OURS
from benchmarks.harness import Column, Job, Target, Wanted, in_a_process

NEEDS_BYTES = 1_000_000_000
BATCH = 256
NOTES = """\
- Samples of 64 bytes, shuffled; a warm page cache and, for us, kernels that an earlier process compiled. The time
  begins after torch and numba were imported: of it, imports are those of the loader's own package.
- StreamingDataset has no workers here: they would take their time to start.
"""
COLUMNS = (
    Column(title="first batch, s", number="first_batch_s", digits=2),
    Column(title="time, × mx8shards", number="first_batch_s", digits=1, ratio=True),
    Column(title="of it imports, s", number="import_s", digits=2, spread=False),
    Column(title="before: torch and numba, s", number="torch_and_numba_s", digits=2, spread=False),
    Column(title="peak memory, MB", number="peak_mb", digits=0, spread=False),
)
GROUP = "10,000,000 samples"


def prepare(directory: Path, *, quick: bool) -> None:
    """The dataset, in the page cache, and compiled kernels."""
    data.tiny(directory / "tiny", 10_000 if quick else 10_000_000)
    if not quick:
        in_a_process(jobs(directory, quick=quick)[0], directory)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Both."""
    arguments = {"root": str(directory / "tiny"), "options": {}, "batch_size": BATCH}
    return [
        Job(
            group=GROUP,
            contender=name,
            run=reading.first_batch,
            arguments={"adapter": adapter, **arguments},
            needs=needs,
        )
        for name, adapter, needs in ((OURS, "ours", ""), (MOSAIC, "mosaicml", "streaming"))
    ]


def targets() -> list[Target]:
    """One second."""
    return [
        Target("within 1 s", (Wanted(group=GROUP, contender=OURS, number="first_batch_s", most=1),)),
    ]
