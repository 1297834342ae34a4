"""How much memory does a loader take that was given a budget, when sizes differ by a factor of 50,000?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import contest, reading
from benchmarks.contest import OURS, Contender, Kind, Reading
from benchmarks.harness import Column, Job, Target, Wanted

NEEDS_BYTES = 4_000_000_000
BATCH = 32
NOTES = """\
- Sizes are log-normal around 64 KB, cut at 1 KB and 50 MB, every 500th sample is one of 50 MB; batches of 32; a warm
  page cache. Counted are anonymous and shared pages of the loader and all its workers, again and again while it reads.
- Over warm-up: the same beyond what `warm_up` had left. Peers take no budget; they have two workers each.
"""
COLUMNS = (
    Column(title="anonymous memory, MB", number="anonymous_mb", digits=0),
    Column(title="over warm-up, MB", number="over_warm_up_mb", digits=0),
    Column(title="samples/s", number="samples_per_s", digits=0),
)
BUDGETS_MB = (512, 1024, 2048)
GROUP = "1 KB to 50 MB"
ALLOWED_MB = (64 << 20) / 1e6


def _ours(budget_mb: int) -> str:
    return f"{OURS}, memory={budget_mb} MB"


def _samples(count: int) -> Iterable[Mapping[str, Any]]:
    rng = np.random.default_rng(17)
    largest = 50_000_000 if count > 500 else 5_000_000
    noise = rng.integers(0, 256, largest, np.uint8).tobytes()
    sizes = np.exp(rng.normal(np.log(64_000), 1.5, count)).clip(1_000, largest).astype(int)
    sizes[::500] = largest
    return ({"x": noise[:size]} for size in sizes.tolist())


SIZES = Kind(GROUP, {"x": "bytes"}, 0, _samples)


def _contenders(quick: bool) -> list[Contender]:
    budgets = (64, 128) if quick else BUDGETS_MB
    ours = [Contender(_ours(mb), "ours", "mds", [{"memory": mb * 1_000_000}]) for mb in budgets]
    return [*ours, *(() if quick else contest.peers(counts=(2,))[:3])]


def prepare(directory: Path, *, quick: bool) -> None:
    """The same samples in each format."""
    contest.write(directory / "sizes", SIZES, 100 if quick else 4_000, _contenders(quick))
    contest.write(directory / "practice", SIZES, 2 * BATCH, _contenders(quick))


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Everyone, for several epochs."""
    arguments = {"batch_size": BATCH, "seconds": 0.1 if quick else 4.0}
    asked = Reading(GROUP, directory / "sizes", reading.memory, arguments, practice=directory / "practice")
    contenders = _contenders(quick)
    ours = [contender for contender in contenders if contender.adapter == "ours"]
    others = [replace(peer, tries=peer.tries[:1]) for peer in contenders if peer not in ours]
    return contest.jobs(asked, ours, quick=quick) + contest.jobs(replace(asked, rounds=3), others, quick=quick)


def targets() -> list[Target]:
    """The budget and 64 MiB."""
    return [
        Target(
            f"memory={mb} MB: no more than that and 64 MiB over warm-up",
            (Wanted(group=GROUP, contender=_ours(mb), number="over_warm_up_mb", most=mb + ALLOWED_MB),),
        )
        for mb in BUDGETS_MB
    ]
