"""How busy is an accelerator with a fixed time per batch, and how much processor time is left?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks import loader_contenders, reading
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.loader_contenders import ARRAYS, BLOBS, OURS, Contender, Kind, Reading

NEEDS_BYTES = 3_000_000_000
NOTES = """\
- The accelerator is emulated by sleeping for the time of a step, as MLPerf Storage does. Busy: the fraction of time in
  which it does not wait for a batch. Processor left: the idle fraction of the time of all cores.
- A warm page cache; batches of 256 blobs or 512 arrays. Peers have two workers each.
"""
COLUMNS = (
    Column(title="busy, %", number="busy_percent", digits=1),
    Column(title="processor left, %", number="processor_left_percent", digits=0),
    Column(title="samples/s", number="samples_per_s", digits=0, spread=False),
)
# each group's kind of samples, step time and batch size
STEPS: dict[str, tuple[Kind, float, int]] = {
    "100 KB blobs, steps of 50 ms": (BLOBS, 0.050, 256),
    "100 KB blobs, steps of 10 ms": (BLOBS, 0.010, 256),
    "4 KiB + int, steps of 50 ms": (ARRAYS, 0.050, 512),
    "4 KiB + int, steps of 5 ms": (ARRAYS, 0.005, 512),
}
FOLDERS = {BLOBS.name: "blobs", ARRAYS.name: "arrays"}


def _contenders(kind: Kind, quick: bool) -> list[Contender]:
    peers = loader_contenders.peers(counts=(2,))
    return [Contender(OURS, "ours", "mds"), loader_contenders.memcpy(), *(() if quick else peers)]


def prepare(directory: Path, *, quick: bool) -> None:
    """Write both kinds of samples in each format."""
    for kind, count in ((BLOBS, 4_000), (ARRAYS, 50_000)):
        loader_contenders.write(
            directory / FOLDERS[kind.name], kind, count // (20 if quick else 1), _contenders(kind, quick)
        )


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders with every step time."""
    found = []
    for group, (kind, step_s, batch) in list(STEPS.items())[: 1 if quick else None]:
        arguments = {"batch_size": batch, "step_s": step_s, "seconds": 0.1 if quick else 2.0}
        asked = Reading(group, directory / FOLDERS[kind.name], reading.utilisation, arguments, best="busy_percent")
        first, others = _contenders(kind, quick)[:2], _contenders(kind, quick)[2:]
        found += loader_contenders.jobs(asked, first, quick=quick)
        found += loader_contenders.jobs(
            replace(asked, rounds=3), [replace(peer, tries=peer.tries[:1]) for peer in others], quick=quick
        )
    return found


def targets() -> list[Target]:
    """At least 95 % everywhere."""
    return [
        Target(
            f"{group}: busy for at least 95 % of the time",
            (Wanted(group=group, contender=OURS, number="busy_percent", least=95),),
        )
        for group in STEPS
    ]
