"""How long does a new process take to the first batch of a dataset of ten million samples?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import data, reading
from benchmarks.harness import Column, Job, Target, Wanted, in_a_process
from benchmarks.loader_contenders import MOSAIC, OURS

NEEDS_BYTES = 1_000_000_000
BATCH = 256
NOTES = """\
- Samples of 64 bytes, shuffled; a warm page cache. An earlier process has compiled our kernels. The time begins after
  the import of torch and numba and includes the import of the loader's own package.
- StreamingDataset has no workers here, because starting them takes time.
"""
COLUMNS = (
    Column(title="first batch, s", number="first_batch_s", digits=2),
    Column(title="time, × mx8shards", number="first_batch_s", digits=1, ratio=True),
    Column(title="imports included, s", number="import_s", digits=2, spread=False),
    Column(title="torch and numba before, s", number="torch_and_numba_s", digits=2, spread=False),
    Column(title="peak memory, MB", number="peak_mb", digits=0, spread=False),
)
GROUP = "10,000,000 samples"


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the dataset, load it into the page cache, and compile the kernels."""
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
    """At most one second."""
    return [
        Target("within 1 s", (Wanted(group=GROUP, contender=OURS, number="first_batch_s", most=1),)),
    ]
