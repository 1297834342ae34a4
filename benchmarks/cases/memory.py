"""How much memory does a loader with a budget use, if sample sizes vary by a factor of 50,000?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loader_contenders, reading
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.loader_contenders import OURS, Contender, Kind, Reading

NEEDS_BYTES = 4_000_000_000
BATCH = 32
NOTES = """\
- Sizes are log-normal around 64 KB, clipped to 1 KB and 50 MB, and every 500th sample has 50 MB; batches of 32; a warm
  page cache. The result is the peak of anonymous and shared pages of the loader and all its workers while it reads.
- Over warm-up: the peak minus the memory after `warm_up`. Peers have no budget; they have two workers each.
- Samples/s and processor time are measured after a first epoch. In it, loaders touch new memory, which on a virtual
  machine may take 25 times as long as later, when the host has backed it.
"""
COLUMNS = (
    Column(title="anonymous memory, MB", number="anonymous_mb", digits=0),
    Column(title="over warm-up, MB", number="over_warm_up_mb", digits=0),
    Column(title="samples/s", number="samples_per_s", digits=0),
    Column(title="processor µs/sample", number="core_us", digits=0),
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
    return [*ours, *(() if quick else loader_contenders.peers(counts=(2,))[:3])]


def _count(quick: bool) -> int:
    return 100 if quick else 4_000


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the samples in each format."""
    loader_contenders.write(directory / "sizes", SIZES, _count(quick), _contenders(quick))
    loader_contenders.write(directory / "practice", SIZES, 2 * BATCH, _contenders(quick))


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders, for several epochs."""
    arguments = {"samples": _count(quick), "batch_size": BATCH, "seconds": 0.1 if quick else 4.0}
    asked = Reading(GROUP, directory / "sizes", reading.memory, arguments, practice=directory / "practice")
    contenders = _contenders(quick)
    ours = [contender for contender in contenders if contender.adapter == "ours"]
    others = [replace(peer, tries=peer.tries[:1]) for peer in contenders if peer not in ours]
    return loader_contenders.jobs(asked, ours, quick=quick) + loader_contenders.jobs(
        replace(asked, rounds=3), others, quick=quick
    )


def targets() -> list[Target]:
    """At most the budget plus 64 MiB."""
    return [
        Target(
            f"memory={mb} MB: over warm-up at most that, plus 64 MiB",
            (Wanted(group=GROUP, contender=_ours(mb), number="over_warm_up_mb", most=mb + ALLOWED_MB),),
        )
        for mb in BUDGETS_MB
    ]
