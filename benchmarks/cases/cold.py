"""How quickly does an epoch come, in random order, from a disk, when nothing of it is in memory?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import contest, reading
from benchmarks.contest import ARRAYS, BLOBS, OURS, Contender, Kind, Reading
from benchmarks.harness import Column, Job, Target, Wanted

NEEDS_BYTES = 4_500_000_000
BATCH = 256
NOTES = """\
- One epoch, opening included. Before every run the kernel is told to drop the files from its page cache, and asked
  whether it did. Each process has read another small dataset of the kind before, so that nothing is imported or
  compiled while the time is taken.
- Bare random reader: every sample once in random order, each by one preadv into a buffer that its thread keeps, with as
  many threads (1 to 32) as were quickest when each number was tried.
- Read per byte: what came from the disk for each byte of payload, as the kernel counts it.
- WebDataset reads its files in sequence, and litdata whole chunks: neither reads at random.
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
    return [ours, *ways, bare, *(contest.peers(counts=(0, 2, 4)) if kind is BLOBS else ())]


def prepare(directory: Path, *, quick: bool) -> None:
    """The same samples in each format, and some more to practise on."""
    for kind, count in _kinds(quick):
        contest.write(directory / FOLDERS[kind.name], kind, count, _contenders(kind, quick))
        contest.write(directory / "practice" / FOLDERS[kind.name], kind, BATCH, _contenders(kind, quick))


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Everyone who reads."""
    found = []
    for kind, count in _kinds(quick):
        folder = FOLDERS[kind.name]
        arguments = {"samples": count, "sample_bytes": kind.sample_bytes, "batch_size": BATCH}
        asked = Reading(
            kind.name, directory / folder, reading.cold, arguments, practice=directory / "practice" / folder
        )
        found += contest.jobs(asked, _contenders(kind, quick), quick=quick)
    return found


def targets() -> list[Target]:
    """85 % of the bare reader."""

    def target(group: str) -> Target:
        wanted = Wanted(group=group, contender=BARE, against=OURS, number="microseconds", least=0.85)
        return Target(f"{group}: at least 85 % of a {BARE}", (wanted,))

    return [target(BLOBS.name), target(ARRAYS.name)]
