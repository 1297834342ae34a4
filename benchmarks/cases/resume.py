"""How long does resuming in the middle of an epoch take?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import data, reading
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.loader_contenders import MOSAIC, OURS

NEEDS_BYTES = 1_000_000_000
BATCH = 256
NOTES = """\
- The time from `load_state_dict` to the next batch, in a process that has read before: the median of 20 repetitions
  (streaming: 3). Samples of 64 bytes, shuffled; a warm page cache.
"""
COLUMNS = (
    Column(title="ms", number="resume_ms", digits=1),
    Column(title="time, × at the start", number="resume_ms", digits=2, ratio=True),
    Column(title="processor, s", number="processor_s", digits=1, spread=False),
)
START, MIDDLE, END = "at the start", "in the middle", "at 99 %"
SHARES = {START: 0.0, MIDDLE: 0.5, END: 0.99}
# each group's adapter, needed module, number of samples and repetitions
NAMES = (f"{OURS}, 10,000,000 samples", f"{MOSAIC}, 1,000,000 samples")
GROUPS = dict(zip(NAMES, (("ours", "", 10_000_000, 20), ("mosaicml", "streaming", 1_000_000, 3)), strict=True))


def prepare(directory: Path, *, quick: bool) -> None:
    """Write one dataset of each size."""
    for adapter, _, count, _ in _groups(quick).values():
        data.tiny(directory / adapter, count // (1_000 if quick else 1))


def _groups(quick: bool) -> dict[str, tuple[str, str, int, int]]:
    return dict(list(GROUPS.items())[: 1 if quick else 2])


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Each contender at every position."""
    found = []
    for group, (adapter, needs, count, times) in _groups(quick).items():
        for contender, share in list(SHARES.items())[: 2 if quick else None]:
            delivered = int(count // (1_000 if quick else 1) * share) // BATCH * BATCH
            arguments = {"adapter": adapter, "root": str(directory / adapter), "options": {}, "batch_size": BATCH}
            arguments |= {"delivered": delivered, "times": 2 if quick else times}
            rounds = None if adapter == "ours" else 3
            job = Job(
                group=group, contender=contender, run=reading.resume, arguments=arguments, rounds=rounds, needs=needs
            )
            found.append(job)
    return found


def targets() -> list[Target]:
    """Constant time: no position takes more than 1.25 times as long as the start."""
    return [
        Target(
            f"{contender} at most 1.25 × the time {START}",
            (Wanted(group=NAMES[0], contender=contender, against=START, number="resume_ms", most=1.25),),
        )
        for contender in (MIDDLE, END)
    ]
