"""How fast are batches of 224-pixel crops of 12-megapixel photos, from the page cache?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import picture_contenders
from benchmarks.harness import Column, Job, Target
from benchmarks.loader_contenders import Contender
from benchmarks.picture_contenders import LARGE, TILED, UNTOUCHED

NEEDS_BYTES = 2_500_000_000
NOTES = """\
- 4000 × 3000 pixels, 4:2:0, generated, at 2 bits per pixel; batches of 8. Everything else as in images.
- An untouched file must be entropy-decoded completely for any crop; `pixels` shows how much of the time that takes.
- FFCV prefetches only one batch here, because each picture in a batch takes 36 MB.
"""
COLUMNS = (
    Column(title="images/s", number="images_per_s", digits=1),
    Column(title="time, × mx8shards tiled", number="microseconds", digits=2, ratio=True),
    Column(title="processor µs per image", number="core_us", digits=0),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
)
RANDOM, CENTRE = "12 megapixels, random crop", "12 megapixels, centre crop"
OURS = ("tiled", "mds")


def _contenders(crops: str, quick: bool) -> list[Contender]:
    ours = picture_contenders.ours(crops, OURS)
    return ours if quick else [*ours, picture_contenders.ffcv(crops, ahead=1), picture_contenders.pillow(crops)]


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the photos, in every format."""
    picture_contenders.prepare(directory, LARGE, _contenders("random", quick), quick=quick)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders."""
    crops = {RANDOM: "random"} if quick else {RANDOM: "random", CENTRE: "centre"}
    found = []
    for group, kind in crops.items():
        found += picture_contenders.jobs(directory, group, LARGE, _contenders(kind, quick), quick=quick, seconds=3)
    return found


def targets() -> list[Target]:
    """Ratios to FFCV."""

    return [
        picture_contenders.speed_target(RANDOM, UNTOUCHED, 2.5),
        picture_contenders.speed_target(RANDOM, TILED, 4.5),
    ]
