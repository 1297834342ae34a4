"""How fast is an epoch in random order from the disk, with an empty page cache?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import loader_contenders, reading
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.loader_contenders import ARRAYS, BLOBS, OURS, Contender, Kind, Reading

NEEDS_BYTES = 4_500_000_000
BATCH = 256
NOTES = """\
- One epoch, including opening. Before every run the files are dropped from the page cache, and this is checked. Each
  process has read another small dataset of this kind before, so that no import or compilation is measured.
- Bare random reader: every sample once in random order, each with one preadv into a buffer of the thread. Numbers of
  threads from 1 to 32 were tried, and the fastest was measured.
- Read per byte: bytes read from the disk, as the kernel counts them, for each byte of payload.
- WebDataset reads its files sequentially and litdata reads whole chunks, so neither reads at random.
"""
COLUMNS = (
    Column(title="MB/s", number="mb_per_s", digits=0),
    Column(title="samples/s", number="samples_per_s", digits=0, spread=False),
    Column(title="time, × mx8shards", number="microseconds", digits=2, ratio=True),
    Column(title="read per byte", number="read_per_byte", digits=2, spread=False),
    Column(title="processor, s", number="processor_s", digits=1, spread=False),
)
BARE = "bare random reader"
PREAD, MMAP = f'{OURS}, io="pread"', f'{OURS}, io="mmap"'
FOLDERS = {BLOBS.name: "blobs", ARRAYS.name: "arrays"}
DEPTHS = (1, 2, 4, 8, 16, 32)


def _kinds(quick: bool) -> list[tuple[Kind, int]]:
    return [(BLOBS, 300)] if quick else [(BLOBS, 8_000), (ARRAYS, 50_000)]


def _contenders(kind: Kind, quick: bool) -> list[Contender]:
    bare = Contender(BARE, "preads", "mds", [{"depth": depth} for depth in DEPTHS])
    ours = Contender(OURS, "ours", "mds")
    if quick:
        return [ours, bare]
    ways = [Contender(PREAD, "ours", "mds", [{"io": "pread"}]), Contender(MMAP, "ours", "mds", [{"io": "mmap"}])]
    return [ours, *ways, bare, *(loader_contenders.peers(counts=(0, 2, 4)) if kind is BLOBS else ())]


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the samples in each format, and a small dataset for warming up."""
    for kind, count in _kinds(quick):
        loader_contenders.write(directory / FOLDERS[kind.name], kind, count, _contenders(kind, quick))
        loader_contenders.write(directory / "practice" / FOLDERS[kind.name], kind, BATCH, _contenders(kind, quick))


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders."""
    found = []
    for kind, count in _kinds(quick):
        folder = FOLDERS[kind.name]
        arguments = {"samples": count, "sample_bytes": kind.sample_bytes, "batch_size": BATCH}
        asked = Reading(
            kind.name, directory / folder, reading.cold, arguments, practice=directory / "practice" / folder
        )
        found += loader_contenders.jobs(asked, _contenders(kind, quick), quick=quick)
    return found


def targets() -> list[Target]:
    """85 % of the bare reader's speed."""

    def target(group: str) -> Target:
        wanted = Wanted(group=group, contender=BARE, against=OURS, number="microseconds", least=0.85)
        return Target(f"{group}: at least 85 % of a {BARE}", (wanted,))

    return [target(BLOBS.name), target(ARRAYS.name)]
